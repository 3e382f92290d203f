"""Addresses, opening, and what the surroundings can do wrong."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import sqlalchemy as sa

from db.errors import DatabaseMissing, DatabaseReadOnly, DatabaseUnreachable, SchemaOutdated, problem_from
from db.schema.models import Study
from db.session import Database, parse_url
from db.settings import default_url
from db.upkeep import migrate
from db.writing.repository import record_study
from eftcore.errors import EnvironmentProblem, InputError


def test_default_address(monkeypatch, tmp_path):
    monkeypatch.delenv("EFT_DATABASE_URL", raising=False)
    monkeypatch.delenv("EFT_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_url() == f"sqlite:///{tmp_path}/eft-data/results.db"
    monkeypatch.setenv("EFT_HOME", str(tmp_path / "home"))
    assert default_url() == f"sqlite:///{tmp_path}/home/results.db"
    monkeypatch.setenv("EFT_DATABASE_URL", "postgresql://somewhere/results")
    assert default_url() == "postgresql://somewhere/results"


@pytest.mark.parametrize(
    "wrong", ["results.db", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "sqlite:///a.db?mode=memory", ""]
)
def test_wrong_address_is_an_input_error(wrong):
    with pytest.raises(InputError, match=r"database url .*sqlite"):
        Database(wrong)


def test_password_is_never_shown():
    database = Database("postgresql://user:secret@localhost:1/none")
    assert "secret" not in repr(database)
    with pytest.raises(DatabaseUnreachable, match="EFT_DATABASE_URL") as caught, database.reading() as session:
        session.execute(sa.text("SELECT 1"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("read_only", [True, False])
def test_opening_creates_nothing(tmp_path, read_only):
    path = tmp_path / "none" / "results.db"
    database = Database(f"sqlite:///{path}", read_only=read_only)
    for session in (database.session, database.reading):
        with pytest.raises(DatabaseMissing, match="eft db upgrade"), session() as opened:
            opened.execute(sa.text("SELECT 1"))
    assert not path.parent.exists()


def test_odd_file_names(tmp_path, sqlite_template):
    path = tmp_path / "50% a?b#c d&mode=ro" / "results.db"
    migrate.upgrade(sa.URL.create("sqlite", database=str(path)))
    database = Database(sa.URL.create("sqlite", database=str(path)))
    record_study(database, name="s", digest="a" * 64, spec={}, runs_asked=1)
    assert path.exists()


def test_sqlite_settings(sqlite_db):
    with sqlite_db.session() as session:
        settings = {
            name: session.execute(sa.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000}


def test_writing_transactions_take_the_lock_first_and_readers_do_not_wait(sqlite_db):
    """BEGIN IMMEDIATE: a second writer waits instead of failing, a reader sees the state before."""
    record_study(sqlite_db, name="before", digest="a" * 64, spec={}, runs_asked=1)
    other = Database(sqlite_db.url)
    order: list[str] = []

    def write() -> None:
        record_study(other, name="second", digest="c" * 64, spec={}, runs_asked=1)
        order.append("second")

    thread = threading.Thread(target=write)
    with sqlite_db.session() as session:
        session.scalars(sa.select(Study)).all()  # reads first, writes later
        thread.start()
        with Database(sqlite_db.url, read_only=True).reading() as reader:
            assert reader.scalars(sa.select(Study.name)).all() == ["before"]
        session.execute(sa.insert(Study).values(name="first", digest="b" * 64, spec={}))
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_exception_rolls_back(db, count_rows):
    def write_and_fail() -> None:
        with db.session() as session:
            session.execute(sa.insert(Study).values(name="x", digest="x" * 64, spec={}))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        write_and_fail()
    assert count_rows(db)["studies"] == 0


def test_read_only_database_cannot_be_written(db, read_only):
    record_study(db, name="kept", digest="a" * 64, spec={}, runs_asked=1)
    for statement in (sa.delete(Study), sa.insert(Study).values(name="x", digest="b" * 64, spec={})):
        with pytest.raises(DatabaseReadOnly), read_only.session() as session:
            session.execute(statement)
        with pytest.raises(sa.exc.DBAPIError), read_only.engine.begin() as connection:
            connection.execute(statement)
    with pytest.raises(DatabaseReadOnly):
        record_study(read_only, name="x", digest="b" * 64, spec={}, runs_asked=1)
    with read_only.reading() as session:
        assert session.scalars(sa.select(Study.name)).all() == ["kept"]


def test_file_that_is_no_database(tmp_path):
    path = tmp_path / "results.db"
    path.write_text("name,value\n" * 200)
    with pytest.raises(DatabaseUnreachable, match="not a database"):
        migrate.require_current(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnreachable, match="not a database"):
        migrate.upgrade(f"sqlite:///{path}")
    assert path.read_text() == "name,value\n" * 200


def test_folder_in_place_of_the_file(tmp_path):
    with pytest.raises(DatabaseUnreachable, match="check the file"):
        migrate.upgrade(f"sqlite:///{tmp_path}")


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnreachable, match="folder"):
        migrate.upgrade(f"sqlite:///{tmp_path}/file/results.db")


def test_tables_missing_say_upgrade(empty_url, backend):
    if backend == "sqlite":
        sqlite3.connect(str(empty_url.database)).execute("CREATE TABLE other (i integer)").connection.close()
    database = Database(empty_url)
    with pytest.raises(SchemaOutdated, match="eft db upgrade"):
        record_study(database, name="s", digest="a" * 64, spec={}, runs_asked=1)
    database.dispose()


@pytest.mark.parametrize(
    ("said", "problem", "word"),
    [
        ("database or disk is full", EnvironmentProblem, "disk space"),
        ("database is locked", EnvironmentProblem, "another writer"),
        ("attempt to write a readonly database", DatabaseReadOnly, "make it writable"),
        ("no such table: runs", SchemaOutdated, "eft db upgrade"),
        ("disk I/O error", DatabaseUnreachable, "check the file"),
    ],
)
def test_drivers_words_become_advice(said, problem, word):
    error = sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError(said))
    translated = problem_from(error, parse_url("sqlite:///results.db"))
    assert type(translated) is problem
    assert word in str(translated)
    assert "\n" not in str(translated)
