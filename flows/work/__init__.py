"""The work of a study, without Prefect: computations, the store of results, and records in the database."""
