"""What Prefect does: its server and settings, task runners, tasks, the order in which they run."""
