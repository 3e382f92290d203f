"""The results database: tables, migrations, writing results, reading them as pandas, SQL for people."""
