"""Studies that a page starts: a real command, a real database, and its end by SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from db.errors import SchemaOutdated
from db.reading import queries
from db.session import Database
from db.settings import default_url
from eftcore.errors import InputError
from ui import running

SMALL = """
name = "small"
widths = [8]
samples = 500
closures = ["mean"]

[model]
activation = "linear"
weight_variance = 2.0
epsilon = 0.5
depth = 4

[[kernel]]
kind = "explicit"
matrix = [[1.0]]
"""
PATIENCE_SECONDS = 120


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of results without a database, and no job of another test."""
    monkeypatch.setenv("EFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EFT_DATABASE_URL", "")
    monkeypatch.setattr(running, "newest_jobs", {})
    yield tmp_path / "home"
    for job in running.jobs():
        job.process.kill()
        job.process.wait()


def _until(job: running.Job, text: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(text in line for line in job.said):
        assert job.code is None, job.said
        assert time.monotonic() < deadline, job.said
        time.sleep(0.05)


def test_a_study_runs_into_a_database_that_was_not_there(home: Path, prefect_api: str) -> None:
    study = running.written("small", SMALL)
    job = running.run(study, title="small")
    assert job.process.wait(PATIENCE_SECONDS) == 0, job.said
    assert job.said[-1].startswith("Next: ")
    db = Database(default_url(), read_only=True)
    assert queries.runs(db, study="small", status="succeeded")["kind"].tolist() == ["simulation", "prediction"]
    assert queries.windows(db, study="small").shape[0] > 0
    db.dispose()


def test_a_job_ends_soon_after_it_is_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The explorer's server keeps the signals from its threads; a process would inherit that."""
    sleeping = "import time; print('asleep', flush=True); time.sleep(600)"
    unmasking = running.COMMAND[3].partition("sys.path")[0]
    monkeypatch.setattr(running, "COMMAND", (sys.executable, "-c", unmasking + sleeping))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        job = running.run("small.toml", title="small")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _until(job, "asleep")
    with pytest.raises(InputError, match="is running already"):
        running.run("small.toml", title="small")
    job.stop()
    assert job.process.wait(3) == -signal.SIGTERM
    job.stop()


def test_a_job_is_told_by_its_last_lines_and_started_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = "import sys; print('\\n'.join(map(str, range(3000))), *sys.argv[1:], file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(running, "COMMAND", (sys.executable, "-c", echo))
    for start in (partial(running.top_up, samples=2000), running.run):
        job = start("quick", title="quick")
        assert job.process.wait(PATIENCE_SECONDS) == job.code == 2
        assert running.jobs() == [job]
        assert job.said[-2:] == ["2998", " ".join(["2999", *job.arguments])]
    assert job.arguments == ("run", "quick")


def test_a_newer_database_is_left_alone(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "newer.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE eft_schema_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO eft_schema_version VALUES ('9999_from_the_future')")
        connection.commit()
    monkeypatch.setenv("EFT_DATABASE_URL", f"sqlite:///{path}")
    before = path.read_bytes()
    with pytest.raises(SchemaOutdated, match="update the program"):
        running.run("small.toml", title="small")
    assert path.read_bytes() == before
    assert running.jobs() == []
