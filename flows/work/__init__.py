"""What is done, without Prefect: computations over a store of results, and their record in the database."""
