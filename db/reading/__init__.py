"""Reading the database: frames, results as Python objects, SQL written by users, export to files."""
