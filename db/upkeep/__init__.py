"""Looking after the database: revisions, archives, copies, removal, accounts that read."""
