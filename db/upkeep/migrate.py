"""Creating and upgrading the results database, and reporting its revision.

Migrations run in one transaction that holds the database's write lock, so several processes may upgrade at once: the
first does the work, the others find it done. In a wheel the migrations are in the folder of this file, in a checkout in
alembic/.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import exc
from sqlalchemy.orm import Session

from alembic import command
from db.addresses import shown
from db.errors import (
    UPGRADE_HINT,
    DatabaseMissing,
    DatabaseReadOnly,
    DatabaseUnreachable,
    SchemaOutdated,
    problem_from,
)
from db.schema.models import AlgorithmVersion, Base, Claim
from db.session import Database, make_engine, parse_url, sqlite_path
from db.settings import default_url
from db.upkeep import readers
from db.upkeep.readers import VERSION_TABLE
from db.writing import claims
from db.writing.lifecycle import register_version
from eftcore.errors import InputError
from eftcore.specs import ALGORITHM_VERSION, newest_version

__all__ = [
    "DatabaseMissing",
    "DatabaseReadOnly",
    "DatabaseUnreachable",
    "SchemaOutdated",
    "current",
    "downgrade",
    "head",
    "info",
    "require_current",
    "upgrade",
]

_UPGRADE_LOCK = 0x45465421
"""Key of the PostgreSQL advisory lock that allows one upgrade at a time."""


def _config(**attributes: Any) -> Config:
    here = Path(__file__).resolve().parents[1]
    beside = here / "_migrations"
    config = Config()
    config.set_main_option("script_location", str(beside if beside.is_dir() else here.parent / "alembic"))
    config.attributes.update(attributes)
    return config


@cache
def head() -> str:
    """The newest revision this version of the program knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


@contextmanager
def locked_connection(url: sa.URL) -> Iterator[sa.Connection]:
    """A connection in a transaction that no other upgrade can enter; creates the SQLite file when there is none.

    Foreign keys are off: rebuilding a table in batch mode drops it, which would cascade to everything below it.
    """
    path = sqlite_path(url)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnreachable(
                f"its folder cannot be created ({error.strerror})", place=path, remedy="choose another folder"
            ) from None
        with suppress(OSError):  # SQLite's own error message is clearer
            path.touch(exist_ok=False)  # the umask says who may write it; SQLite would let its owner alone
    engine = make_engine(url, "rwc", foreign_keys=False)
    try:
        with engine.execution_options(eft_write=True).connect() as connection:
            if path is not None:
                _use_write_ahead_log(connection)
            with connection.begin():
                if path is None:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
                yield connection
    except exc.DBAPIError as error:
        raise problem_from(error, url) from error
    finally:
        engine.dispose()


def _use_write_ahead_log(connection: sa.Connection) -> None:
    """Set SQLite's write-ahead log, with which readers and a writer work side by side.

    The file keeps the mode, so only upgrades set it.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA journal_mode = WAL")


def upgrade(url: str | sa.URL | None = None, revision: str = "head") -> str:
    """Create the database or bring it to ``revision``; nothing happens when it has this revision already.

    Returns the revision reached. Raises InputError (not an address), DatabaseUnreachable, DatabaseReadOnly,
    or SchemaOutdated when the database was made by a newer version of the program.
    """
    parsed = parse_url(url or default_url())
    try:
        found = current(parsed)
    except DatabaseMissing:
        found = None
    _refuse_unknown(parsed, found)
    target = head() if revision == "head" else revision
    if found != target:
        with locked_connection(parsed) as connection:
            before = readers.readers(connection)
            command.upgrade(_config(connection=connection), revision)
            readers.grant(connection, before)  # tables and views made anew have lost the rights of reading accounts
    if target == head():
        register_versions(parsed)
    return target


def register_versions(url: str | sa.URL | None = None) -> None:
    """Record the versions of the present algorithms, so that results of older versions are shown as superseded."""
    parsed = parse_url(url or default_url())
    with _peek(parsed) as connection:
        rows = connection.execute(sa.select(AlgorithmVersion.algorithm, AlgorithmVersion.version))
        known = {row.algorithm: row.version for row in rows}
    present = {name: newest_version(name) for name in ALGORITHM_VERSION}
    newer = {name: version for name, version in present.items() if known.get(name, 0) < version}
    if not newer:
        return
    db = Database(parsed)
    try:
        with db.session() as session:
            for name, version in newer.items():
                register_version(session, name, version)
    finally:
        db.dispose()


def downgrade(url: str | sa.URL, revision: str) -> None:
    """Go back to an older revision ("base" removes every table and its rows).

    Raises InputError (no such revision), EnvironmentProblem while results are being computed, and as current().
    """
    with _going_back(url, revision) as connection:
        before = readers.readers(connection)
        command.downgrade(_config(connection=connection), revision)
        if revision != "base":
            readers.grant(connection, before)


def dropped_by_downgrade(url: str | sa.URL, revision: str) -> list[str]:
    """What a downgrade to an older revision would lose, one line each. Raises as downgrade().

    The downgrade is tried in a transaction that is rolled back.
    """
    with _going_back(url, revision) as connection:
        before = _contents(connection)
        command.downgrade(_config(connection=connection), revision)
        after = _contents(connection)
        transaction = connection.get_transaction()
        assert transaction is not None
        transaction.rollback()
    lost = []
    for table, (rows, columns) in before.items():
        if table not in after:
            lost.append(f"table {table} with {rows} rows")
            continue
        rows_left, columns_left = after[table]
        if rows_left < rows:
            lost.append(f"{rows - rows_left} of {rows} rows of {table}")
        lost += [f"column {table}.{column}" for column in columns if column not in columns_left]
    return lost


@contextmanager
def _going_back(url: str | sa.URL, revision: str) -> Iterator[sa.Connection]:
    with locked_connection(_known(url, revision)) as connection:
        if sa.inspect(connection).has_table(Claim.__tablename__):
            claims.refuse_while_at_work(Session(connection))
        yield connection


def _known(url: str | sa.URL, revision: str) -> sa.URL:
    parsed = parse_url(url)
    known = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]
    if revision not in (*known, "base"):
        raise InputError(
            "no such revision", place="revision", value=revision, remedy=f"use {', '.join(reversed(known))} or base"
        )
    _refuse_unknown(parsed, current(parsed))
    return parsed


def _contents(connection: sa.Connection) -> dict[str, tuple[int, list[str]]]:
    """Number of rows and names of columns of every table, except the table that holds the revision."""
    inspector = sa.inspect(connection)
    names = sorted(set(inspector.get_table_names()) - {VERSION_TABLE})
    counts = {name: connection.scalar(sa.select(sa.func.count()).select_from(sa.table(name))) or 0 for name in names}
    return {name: (counts[name], [column["name"] for column in inspector.get_columns(name)]) for name in names}


def current(url: str | sa.URL | None = None) -> str | None:
    """The revision of the database; None when it has no tables of this program. Changes nothing.

    Raises DatabaseMissing (no SQLite file) or DatabaseUnreachable.
    """
    parsed = parse_url(url or default_url())
    with _peek(parsed) as connection:
        return _revision(connection)


@contextmanager
def _peek(url: sa.URL) -> Iterator[sa.Connection]:
    path = sqlite_path(url)
    if path is not None and not path.exists():
        raise DatabaseMissing("there is no database yet", place=path, remedy=f"{UPGRADE_HINT} to create it")
    engine = make_engine(url, "ro")
    try:
        with engine.connect() as connection:
            yield connection
    except exc.DBAPIError as error:
        raise problem_from(error, url) from error
    finally:
        engine.dispose()


def _revision(connection: sa.Connection) -> str | None:
    if connection.dialect.name == "sqlite":
        tables = connection.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        there = VERSION_TABLE in tables
    else:
        there = sa.inspect(connection).has_table(VERSION_TABLE)
    if not there:
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def require_current(url: str | sa.URL | None = None) -> None:
    """Return when the database is ready for use; raise with the command to run when it is not.

    Raises DatabaseMissing, SchemaOutdated or DatabaseUnreachable.
    """
    parsed = parse_url(url or default_url())
    found = current(parsed)
    _refuse_unknown(parsed, found)
    if found is None:
        raise SchemaOutdated("has no tables yet", place="database", value=shown(parsed), remedy=UPGRADE_HINT)
    if found != head():
        raise SchemaOutdated(
            f"is at revision {found}, this version needs {head()}",
            place="database",
            value=shown(parsed),
            remedy=UPGRADE_HINT,
        )


@cache
def _all_revisions() -> frozenset[str]:
    """All revisions this version of the program knows."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _refuse_unknown(url: sa.URL, found: str | None) -> None:
    if found is not None and found not in _all_revisions():
        raise SchemaOutdated(
            f"is at revision {found}, made by a newer version of this program",
            place="database",
            value=shown(url),
            remedy="update the program",
        )


def info(url: str | sa.URL | None = None) -> dict[str, Any]:
    """What `eft db info` prints: address (no password), server, revision, size in bytes, rows of each table.

    Raises as current().
    """
    parsed = parse_url(url or default_url())
    path = sqlite_path(parsed)
    with _peek(parsed) as connection:
        found = _revision(connection)
        rows = {}
        if found == head():
            tables = Base.metadata.sorted_tables
            rows = {table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables}
        if path is not None:
            size = sum(part.stat().st_size for part in (path, Path(f"{path}-wal")) if part.exists())
        else:
            size = int(connection.scalar(sa.text("SELECT pg_database_size(current_database())")) or 0)
        return {
            "url": shown(parsed),
            "server": f"{connection.dialect.name} {'.'.join(map(str, connection.dialect.server_version_info or ()))}",
            "revision": found,
            "head": head(),
            "up_to_date": found == head(),
            "bytes": size,
            "rows": rows,
        }
