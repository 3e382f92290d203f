"""Maintenance of the database: revisions, archives, releases, backups, removal, accounts that may only read."""
