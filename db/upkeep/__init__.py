"""Maintenance of the database: revisions, archives, backups, removal of results, accounts that may only read."""
