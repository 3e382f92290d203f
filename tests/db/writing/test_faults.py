"""What goes wrong while results are recorded: many processes, a killed one, a full disk, a lost connection."""

from __future__ import annotations

import random
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

import eftcore as eft
from db.errors import DatabaseUnreachable
from db.reading import queries
from db.schema.models import KernelTrajectory, Run, TrajectoryValue
from db.session import Database
from db.upkeep import maintenance
from db.writing import claims
from db.writing.repository import find_run, mark_running, record_prediction
from eftcore.errors import EnvironmentProblem
from tests.db import workers

PROCESSES = 8
ROWS_OF_A_RUN = 9 * (6 + 21 + 6 + 6 + 21)
"""Recorded layers times components of K0, V4, K1, U1 and Sigma for three inputs."""


def _address(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


def _nothing_is_half_there(db: Database) -> None:
    """Every run that is there is there with all that belongs to it."""
    with db.reading() as session:
        for run_id in session.scalars(sa.select(Run.id)):
            blobs = session.scalar(sa.select(sa.func.count()).where(KernelTrajectory.run_id == run_id))
            rows = session.scalar(sa.select(sa.func.count()).where(TrajectoryValue.run_id == run_id))
            assert (blobs, rows) == (5, ROWS_OF_A_RUN)


@pytest.fixture(scope="module")
def theory(make_theory) -> eft.Theory:
    """Three inputs."""
    return make_theory(n_inputs=3)


def _holds(check: Callable[[], None]) -> bool:
    """Whether a check passes, for the log."""
    try:
        check()
    except AssertionError:
        return False
    return True


def test_eight_processes_record_into_one_database(url, db, theory, count_rows, backend, fault_log):
    """Each its own study and simulation, all the same prediction and one simulation in common."""
    given = [(_address(url), theory, f"study {k}", (8, 16 + k)) for k in range(PROCESSES)]
    answers = workers.run_together(workers.record_study_of, given)
    sound = _holds(lambda: _nothing_is_half_there(db)) and count_rows(db)["runs"] == PROCESSES + 2
    for number, (code, answer) in enumerate(answers):
        moment, completes = f"study {number}, exit code {code}", code == 0 and len(answer) == 3
        fault_log.note(f"{PROCESSES} processes at once", backend, moment, consistent=sound, completes=completes)
    assert [code for code, _ in answers] == [0] * PROCESSES
    ids = [answer for _, answer in answers]
    assert len({found[:2] for found in ids}) == 1, "what they share has one id"
    assert len({found[2] for found in ids}) == PROCESSES
    _nothing_is_half_there(db)
    assert maintenance.check(url) == []
    counts = count_rows(db)
    assert (counts["studies"], counts["runs"], counts["study_runs"]) == (PROCESSES, PROCESSES + 2, 3 * PROCESSES)
    assert (counts["comparisons"], counts["input_kernels"], counts["model_configurations"]) == (PROCESSES + 1, 1, 1)
    assert counts["simulation_precision"] == 4 * (PROCESSES + 1)
    alone = len(queries.windows(db, reference_run_id=ids[0][1]))
    assert counts["validity_windows"] == alone * (PROCESSES + 1)


def test_eight_processes_record_the_same_at_once(url, db, theory, count_rows):
    answers = workers.run_together(workers.record_study_of, [(_address(url), theory, "same", (16,))] * PROCESSES)
    assert answers == [(0, answers[0][1])] * PROCESSES
    counts = count_rows(db)
    assert (counts["studies"], counts["runs"], counts["comparisons"]) == (1, 2, 1)
    _nothing_is_half_there(db)


def test_eight_processes_want_the_same_work_and_one_gets_it(url, db, theory):
    answers = workers.run_together(workers.start, [(_address(url), theory.spec)] * PROCESSES)
    assert [code for code, _ in answers] == [0] * PROCESSES
    assert sorted(answer is not None for _, answer in answers) == [False] * (PROCESSES - 1) + [True]
    assert queries.runs(db).status.tolist() == ["running"]


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.campaign)])
def test_killed_at_many_moments_of_recording(url, db, theory, count_rows, backend, fault_log, kills):
    """Before and after statements and around commits; each time the database is sound and the re-run goes on."""
    ((code, steps),) = workers.run_together(workers.die_recording, [(_address(url), theory, 0)])
    assert code == 0
    complete = count_rows(db)
    _nothing_is_half_there(db)
    moments = random.Random(20261124).sample(range(1, len(steps) + 1), kills)
    for moment in moments:
        with db.session() as session:
            for table in ("studies", "runs", "model_configurations", "input_kernels"):
                session.execute(sa.text(f"DELETE FROM {table}"))
        ((code, answer),) = workers.run_together(workers.die_recording, [(_address(url), theory, moment)])
        sound = _holds(lambda: _nothing_is_half_there(db))
        workers.record_study_of(_address(url), theory, "killed", (16, 32))
        whole = count_rows(db) == complete
        said = f"step {moment} of {len(steps)}, {steps[moment - 1]}"
        fault_log.note("kill -9 while recording", backend, said, consistent=sound, completes=whole)
        assert (code, answer) == (-signal.SIGKILL, "died"), moment
        assert sound, moment
        assert whole, moment
    assert maintenance.check(url) == []


def test_run_of_a_killed_worker_is_swept_and_done_by_another(url, db, theory, provenance):
    ((code, _),) = workers.run_together(workers.die_computing, [(_address(url), theory.spec)])
    assert code == -signal.SIGKILL
    run = find_run(db, theory.spec.digest)
    assert run is not None
    assert run.status == "running"
    assert claims.sweep_stale(db) == [run.id], "its claim lasted no time at all"
    assert mark_running(db, theory.spec, holder="another", provenance=provenance) == run.id
    assert record_prediction(db, theory, provenance=provenance) == run.id
    assert queries.runs(db).status.tolist() == ["succeeded"]


def test_full_disk_leaves_nothing_half_written(db, make_theory, provenance, count_rows, backend, fault_log):
    """SQLite's own page limit gives the error of a full disk; PostgreSQL is made to raise its own."""
    if backend == "sqlite":

        def cramp(connection: sqlite3.Connection, *_rest: object) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")

        sa.event.listen(db.engine, "connect", cramp)
        loosen = "PRAGMA max_page_count = 1000000"
    else:
        with db.session() as session:
            session.execute(
                sa.text(
                    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
                    " 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$"
                )
            )
            session.execute(
                sa.text(
                    "CREATE TRIGGER full_disk BEFORE INSERT ON trajectory_values"
                    " FOR EACH STATEMENT EXECUTE FUNCTION full_disk()"
                )
            )
        loosen = "DROP TRIGGER full_disk ON trajectory_values"
    before = count_rows(db)
    theory = make_theory(n_inputs=4)
    with pytest.raises(EnvironmentProblem, match="free some disk space") as told:
        record_prediction(db, theory, provenance=provenance)
    sound = count_rows(db) == before
    with db.session() as session:
        session.execute(sa.text(loosen))
    record_prediction(db, theory, provenance=provenance)
    whole = count_rows(db)["runs"] == 1
    moment = f"at an insert; the error says: {told.value.remedy}"
    fault_log.note("disk full", backend, moment, consistent=sound, completes=whole)
    assert sound
    assert whole
    assert before["runs"] == 0


def test_lost_connection_leaves_nothing_half_written(db, make_theory, provenance, count_rows, backend, fault_log):
    """PostgreSQL ends the session between two statements; SQLite has no connection, so its file cannot be read."""
    theory = make_theory()
    before = count_rows(db)
    other = Database(db.url)

    def cut(connection: sa.Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "INSERT INTO trajectory_values" not in statement:
            return
        if backend == "sqlite":
            raise sa.exc.OperationalError(statement, None, sqlite3.OperationalError("disk I/O error"))
        pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        with other.session() as session:
            session.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    sa.event.listen(db.engine, "before_cursor_execute", cut)
    with pytest.raises(DatabaseUnreachable, match="cannot be used") as told:
        record_prediction(db, theory, provenance=provenance)
    sa.event.remove(db.engine, "before_cursor_execute", cut)
    sound = count_rows(db) == before
    record_prediction(db, theory, provenance=provenance)
    whole = count_rows(db)["runs"] == 1
    moment = f"before INSERT INTO trajectory_values; the error says: {told.value.remedy}"
    fault_log.note("lost connection", backend, moment, consistent=sound, completes=whole)
    assert sound, "and the same Database goes on with a new connection"
    assert whole
    other.dispose()
