"""Writing to the database: results, the status of runs, and claims by workers that compute a result."""
