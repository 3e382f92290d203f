"""What others take from the database while a study runs: they are refused, or the study says that its rows are gone."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from db.reading import queries
from db.session import Database
from db.upkeep import migrate, removal
from db.upkeep.exporting import export_archive
from db.upkeep.importing import import_archive
from db.writing import claims
from eftcore.errors import EnvironmentProblem
from flows.orchestration.server_access import AUTH_STRING
from tests.flows import paused, warm

ROWS = ({"prediction": 2, "simulation": 2}, 2 * (1 + 3) * 2)
"""Finished runs and windows of the whole study."""

RUNNING = r"database: results are being computed for it \(study tiny by \S+:{pid}:\w+ since \d{{4}}-.* UTC\); try again"

LOST = r"\neft: study = 'tiny': \d of 2 records were deleted from the database while it ran \(record: .*\); .* again\n$"


@dataclass
class Run:
    """A study that waits, if asked to, before its second record until its block ends."""

    pid: int
    code: int | None = None
    said: str = ""


@dataclass(frozen=True)
class Place:
    """Where studies run: their database, and what their processes are told."""

    db: Database
    study: Path
    environment: dict[str, str]

    @contextmanager
    def run(self, *, pause: bool = True) -> Iterator[Run]:
        processes = warm.processes()
        there, go, said = processes.Event(), processes.Event(), self.study.with_name("said")
        started = processes.Process(target=paused.run, args=(str(self.study), self.environment, said, there, go))
        started.start()
        assert started.pid is not None
        run = Run(started.pid)
        try:
            assert not pause or there.wait(120), said.read_text()
            yield run
        finally:
            go.set()
            started.join(120)
            run.code, run.said = started.exitcode, said.read_text()

    def rows(self) -> tuple[dict[str, int], int]:
        runs = queries.runs(self.db, study="tiny", status="succeeded")
        return runs["kind"].value_counts().to_dict(), len(queries.windows(self.db, study="tiny"))


@pytest.fixture
def place(prefect_api: str, url: str, environment: dict[str, str], tiny: Path) -> Iterator[Place]:
    told = {"EFT_DATABASE_URL": url, "PREFECT_API_URL": prefect_api, AUTH_STRING: os.environ[AUTH_STRING]}
    db = Database(url)
    yield Place(db, tiny, environment | told)
    db.dispose()


@pytest.mark.parametrize("url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.campaign)], indirect=True)
def test_a_study_that_runs_loses_nothing_to_deletions_downgrades_and_imports(place: Place, tmp_path: Path):
    db = place.db
    with place.run() as run:
        half = place.rows()
        some = queries.runs(db, status="succeeded")["run_id"].tolist()[:1]
        assert 0 < half[1] < ROWS[1]
        for take in (
            lambda: removal.delete_study(db, "tiny"),
            lambda: removal.delete_runs(db, some),
            lambda: removal.collect_garbage(db, unsuccessful=True),
            lambda: migrate.downgrade(db.url, "0001_first_tables"),
        ):
            with pytest.raises(EnvironmentProblem, match=RUNNING.format(pid=run.pid)):
                take()
        assert removal.delete_study(db, "tiny", dry_run=True)["runs"] == 4, "to be told is no harm"
        assert place.rows() == half
    assert run.code == 0, run.said
    assert place.rows() == ROWS
    assert removal.collect_garbage(db) == {}, "it has ended"

    export_archive(db, tmp_path / "same.zip")
    assert removal.delete_study(db, "tiny")["runs"] == 4
    with place.run() as run:
        assert import_archive(db, tmp_path / "same.zip")["comparisons"] == 2
        assert place.rows() == ROWS
    assert run.code == 0, run.said
    assert place.rows() == ROWS


def _delete(db: Database) -> None:
    removal.delete_study(db, "tiny")


def _delete_run(db: Database) -> None:
    removal.delete_runs(db, queries.runs(db, kind="simulation", status="succeeded")["run_id"].tolist())


def _down_and_up(db: Database) -> None:
    migrate.downgrade(db.url, "base")
    migrate.upgrade(db.url)


CAMPAIGN = pytest.mark.campaign


@pytest.mark.parametrize(
    ("url", "take"),
    [
        ("postgresql", _delete),
        ("sqlite", _down_and_up),
        pytest.param("sqlite", _delete, marks=CAMPAIGN),
        pytest.param("sqlite", _delete_run, marks=CAMPAIGN),
        pytest.param("postgresql", _delete_run, marks=CAMPAIGN),
        pytest.param("postgresql", _down_and_up, marks=CAMPAIGN),
    ],
    indirect=["url"],
)
def test_a_study_whose_rows_are_taken_all_the_same_says_so(place: Place, take: Callable[[Database], None]):
    """By somebody who does not see its claim, after a long silence or with SQL of their own."""
    with place.run() as run:
        with place.db.session() as session:
            session.execute(sa.text("DELETE FROM claims"))
        take(place.db)
    assert run.code == 1
    assert re.search(LOST, run.said), run.said
    with place.run(pause=False) as again:
        pass
    assert again.code == 0, again.said
    assert place.rows() == ROWS


def test_what_a_killed_process_of_this_machine_left_hinders_nobody(place: Place):
    gone = multiprocessing.get_context("spawn").Process(target=os.getpid)
    gone.start()
    gone.join()
    here, _, token = claims.new_holder().rsplit(":", 2)
    assert claims.claim(place.db, "a" * 64, task="study tiny", holder=f"{here}:{gone.pid}:{token}")
    assert removal.collect_garbage(place.db) == {}
    with place.db.reading() as session:
        assert session.scalars(sa.text("SELECT holder FROM claims")).all() == []
