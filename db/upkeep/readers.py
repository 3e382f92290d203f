"""Accounts on a PostgreSQL server that may read the results and do nothing else: `eft db grant-reader NAME`."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy import exc

from db.errors import problem_from
from db.schema.models import Base
from db.schema.views import VIEWS
from db.session import make_engine, parse_url, sqlite_path
from eftcore.errors import InputError

VERSION_TABLE = "eft_schema_version"

_POWERS = sa.text(
    "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname LIKE 'pg\\_%' AND rolname <> 'pg_database_owner'"
    " AND pg_has_role(:name, oid, 'MEMBER')"
    " UNION ALL SELECT 'SUPERUSER' FROM pg_catalog.pg_roles WHERE rolname = :name AND rolsuper ORDER BY 1"
)
_READERS = sa.text(
    "SELECT DISTINCT g.rolname FROM pg_catalog.pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a"
    " JOIN pg_catalog.pg_roles g ON g.oid = a.grantee"
    " WHERE c.oid = to_regclass('runs') AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner"
)


def grant_reader(url: str | sa.URL, name: str) -> list[str]:
    """Let an existing role read the tables and views of this project. Returns its other rights, one line each.

    Later upgrades keep the right to read (``readers``, ``grant``).

    Raises:
        InputError: no such role, or the database is an SQLite file.
        EnvironmentProblem: the database cannot be used, or the account in use may not grant the right.
    """
    parsed = parse_url(url)
    if sqlite_path(parsed) is not None:
        raise InputError(
            "SQLite has no accounts", place="role", value=name, remedy="the permissions of the file say who reads it"
        )
    engine = make_engine(parsed, "rw")
    try:
        with engine.begin() as connection:
            known = sa.text("SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = :name")
            if "\0" in name or not connection.scalar(known, {"name": name}):
                raise InputError(
                    "there is no such role on this server",
                    place="role",
                    value=name,
                    remedy="make it there first, as in CREATE ROLE reader LOGIN PASSWORD '...'",
                )
            grant(connection, [name])
            powers = connection.scalars(_POWERS, {"name": name}).all()
    except exc.DBAPIError as error:
        raise problem_from(error, parsed) from error
    finally:
        engine.dispose()
    return [f"{name} reads more than the results, being {power}: REVOKE {power} FROM it" for power in powers]


def readers(connection: sa.Connection) -> list[str]:
    """Roles that may read the table of runs without owning it; none on SQLite."""
    return [] if connection.dialect.name == "sqlite" else list(connection.scalars(_READERS))


def grant(connection: sa.Connection, names: Iterable[str]) -> None:
    """Let these roles read every present table and view of this project."""
    names = list(names)
    if not names:
        return
    quote = connection.dialect.identifier_preparer.quote
    database, schema = connection.execute(sa.text("SELECT current_database(), current_schema()")).one()
    wanted = [*Base.metadata.tables, *(view.name for view in VIEWS), VERSION_TABLE]
    there = {*sa.inspect(connection).get_table_names(), *sa.inspect(connection).get_view_names()}
    ours = ", ".join(f"{quote(schema)}.{quote(table)}" for table in wanted if table in there)
    for name in names:
        for right in (
            f"CONNECT ON DATABASE {quote(database)}",
            f"USAGE ON SCHEMA {quote(schema)}",
            f"SELECT ON {ours}",
        ):
            connection.exec_driver_sql(f"GRANT {right} TO {quote(name)}")
