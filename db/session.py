"""Opening the results database: one engine per address, one context manager for transactions.

Nothing here creates or migrates anything: opening an SQLite file that does not exist is an error
(`eft db upgrade` creates it). A read-only Database refuses every statement that writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.orm import Session

from db.addresses import is_ambiguous, is_host, redacted, shown
from db.errors import UPGRADE_HINT, DatabaseMissing, problem_from
from db.side_effects import READER
from eftcore.errors import EnvironmentProblem, InputError

BUSY_TIMEOUT_SECONDS = 30
STATEMENT_TIMEOUT_SECONDS = 30
CONNECT_TIMEOUT_SECONDS = 10

_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}

Mode = Literal["ro", "rw", "rwc"]


def parse_url(url: str | sa.URL) -> sa.URL:
    """Check an address. Raises InputError unless it is an SQLite file or a PostgreSQL database."""
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        raise InputError(
            "is no address",
            place="database url",
            value=shown(url),
            remedy="use sqlite:///results.db or postgresql://user@host/name",
        ) from None
    except ValueError:
        raise InputError(
            "its port is no number", place="database url", value=shown(url), remedy="write it as host:5432"
        ) from None
    backend, _, driver = parsed.drivername.partition("+")
    if backend not in _DRIVERS:
        raise InputError(
            f"{backend!r} is not supported",
            place="database url",
            value=shown(parsed),
            remedy="use sqlite or postgresql",
        )
    if driver not in ("", _DRIVERS[backend]):
        raise InputError(
            f"the driver {driver!r} is not used here",
            place="database url",
            value=shown(parsed),
            remedy=f"write {backend}:// alone, which is {_DRIVERS[backend]}",
        )
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise InputError(
            f"port {parsed.port} is none", place="database url", value=shown(parsed), remedy="ports are 1 to 65535"
        )
    if backend == "sqlite" and (parsed.database in (None, "", ":memory:") or parsed.query):
        raise InputError(
            "must name a file and nothing more, as in sqlite:///results.db", place="database url", value=shown(parsed)
        )
    if not is_host(parsed.host) or (isinstance(url, str) and is_ambiguous(url)):
        raise InputError(
            "it is not clear where the host begins",
            place="database url",
            value=shown(url),
            remedy="write an @ of the password as %40, a space as %20, and / ? # as %2F %3F %23",
        )
    return parsed


def sqlite_path(url: sa.URL) -> Path | None:
    """The file of an SQLite address; None for a server."""
    if url.get_backend_name() != "sqlite":
        return None
    assert url.database is not None
    return Path(url.database)


def make_engine(url: sa.URL, mode: Mode, *, foreign_keys: bool = True, durable: bool = True) -> sa.Engine:
    """Engine that opens the database for reading ("ro"), writing ("rw") or creating ("rwc").

    On SQLite every transaction starts with BEGIN IMMEDIATE when it carries the execution option
    ``eft_write``: a transaction that reads first and writes later would fail at once under concurrency.
    """
    options: dict[str, Any] = {"json_serializer": lambda value: json.dumps(value, allow_nan=False)}
    path = sqlite_path(url)
    if path is None:
        return _postgresql_engine(url, mode, options, durable)
    address = sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": mode, "uri": "true"})
    engine = sa.create_engine(address, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, **options)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not guessed by the driver
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        if not durable:
            connection.execute("PRAGMA synchronous = NORMAL")
        if mode == "ro":
            connection.execute("PRAGMA query_only = ON")
            connection.set_authorizer(_allow_only_reading)

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("eft_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


_READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_TRANSACTION,
}


def _allow_only_reading(action: int, *_details: str | None) -> int:
    """SQLite's authorizer, called for each part of a statement: it refuses writes, ATTACH and PRAGMA."""
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _postgresql_engine(url: sa.URL, mode: Mode, options: dict[str, Any], durable: bool) -> sa.Engine:
    settings = ["-c timezone=UTC"]
    if not durable:
        settings.append("-c synchronous_commit=off")
    if mode == "ro":
        settings.append(f"-c default_transaction_read_only=on -c statement_timeout={STATEMENT_TIMEOUT_SECONDS * 1000}")
        options["execution_options"] = {"postgresql_readonly": True}
    given = url.query.get("options", ())
    connect_args = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": " ".join([*([given] if isinstance(given, str) else given), *settings]),
    }
    try:
        engine = sa.create_engine(url, connect_args=connect_args, pool_pre_ping=True, **options)
    except ImportError as missing:  # the driver is not installed, or the library that it needs is missing
        raise EnvironmentProblem(
            f"needs the Python package psycopg ({str(missing).splitlines()[0]})",
            place="database",
            value=shown(url),
            remedy="pip install 'resnet-eft[postgres]'",
        ) from None
    if mode == "ro":
        event.listen(engine, "begin", _lay_down_rights)
    return engine


def _lay_down_rights(connection: sa.Connection) -> None:
    """Allow only reading tables in this transaction: a superuser's SELECT could otherwise read files of the server."""
    driver = connection.connection.driver_connection
    assert driver is not None
    if driver.info.parameter_status("is_superuser") == "on":
        driver.execute(f"SET LOCAL ROLE {READER}")


class Database:
    """A results database, opened for writing or, with ``read_only``, in a way that no statement can change it.

    Args:
        url: ``sqlite:///path`` or ``postgresql://...``; see db.settings.default_url().
        read_only: SQLite: the file is opened with mode=ro and query_only, and everything but reading is refused
            when a statement is compiled; PostgreSQL: read-only transactions with a statement timeout.
        durable: whether a transaction that ended survives a power cut. Without this its end does not wait for the disk;
            a power cut may then undo the last transactions, each of them as a whole.

    Raises:
        InputError: the address belongs to neither database.
    """

    def __init__(self, url: str | sa.URL, read_only: bool = False, *, durable: bool = True) -> None:
        self.url = parse_url(url)
        self.read_only = read_only
        self.engine = make_engine(self.url, "ro" if read_only else "rw", durable=durable)

    def __repr__(self) -> str:
        return f"Database({shown(self.url)!r}, read_only={self.read_only})"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: commits at the end, rolls back on any exception.

        Raises DatabaseMissing, SchemaOutdated, DatabaseReadOnly, DatabaseUnreachable (all EnvironmentProblem).
        """
        engine = self.engine if self.read_only else self.engine.execution_options(eft_write=True)
        with self._translated(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction for reading, which never waits for a writer on SQLite. Raises as session()."""
        with self._translated(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.IntegrityError:
            raise  # a violated constraint of the schema is a bug of this program, not a problem of the environment
        except exc.DataError as error:
            said = redacted(str(error.orig), self.url).strip().splitlines()[0]
            raise InputError(
                f"a text or number is none that the database can hold ({said})",
                place="database",
                value=shown(self.url),
                remedy="change it",
            ) from error
        except exc.DBAPIError as error:
            raise self._problem(error) from error

    def _problem(self, error: exc.DBAPIError) -> EnvironmentProblem:
        path = sqlite_path(self.url)
        if path is not None and not path.exists():
            return DatabaseMissing("there is no database yet", place=path, remedy=f"{UPGRADE_HINT} to create it")
        return problem_from(error, self.url)
