"""The results database: tables, migrations, writing results, reading them as pandas frames, SQL for users."""
