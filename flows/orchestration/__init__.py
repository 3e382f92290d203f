"""Everything that uses Prefect: its server and settings, task runners, tasks, and the execution of a study."""
