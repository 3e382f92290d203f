"""What the database holds: tables, column types, documented views, and which part of a result goes where."""
