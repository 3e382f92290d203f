"""What the database holds: tables, column types, documented views, and the rows that a result is stored as."""
