"""What is recorded twice, shared, replaced, deleted, or breaks half-way."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.reading.study_queries import study_progress
from db.schema.models import (
    Kernel,
    KernelTrajectory,
    Run,
    Study,
    StudyRun,
    TrajectoryValue,
)
from db.session import Database
from db.writing.repository import (
    find_run,
    mark_failed,
    record_prediction,
    record_simulation,
    record_study,
)


def test_recording_twice_adds_nothing(db, record_all, count_rows):
    first = record_all(db)
    before = count_rows(db)
    assert record_all(db) == first
    assert count_rows(db) == before
    assert before["runs"] == 4
    assert before["comparisons"] == 3


def test_two_studies_share_a_run(db, record_all, count_rows):
    first, second = record_all(db, "first"), record_all(db, "second")
    assert first.study_id != second.study_id
    assert first.predictions == second.predictions
    assert count_rows(db)["study_runs"] == 8
    assert set(queries.runs(db, study="second").run_id) == set(queries.runs(db, study="first").run_id)


def test_first_label_of_a_kernel_stays(db, make_theory, provenance):
    theory = make_theory()
    record_prediction(db, theory, provenance=provenance)
    renamed = theory.spec.model_copy(
        update={"kernel": eft.InputKernel.explicit(theory.spec.kernel.matrix, label="new")}
    )
    other = eft.predict_spec(eft.PredictionSpec(model=renamed.model, kernel=renamed.kernel, closure="mean"))
    record_prediction(db, other, provenance=provenance)
    with db.reading() as session:
        assert session.scalars(sa.select(Kernel.label)).all() == [theory.spec.kernel.label]


def test_failure_is_replaced_by_success_and_not_the_reverse(db, make_theory, provenance):
    theory = make_theory()
    failed = mark_failed(db, theory.spec, error="out of memory", provenance=provenance)
    run = find_run(db, theory.spec.digest)
    assert run is not None
    assert (run.status, run.error_message) == ("failed", "out of memory")

    assert record_prediction(db, theory, provenance=provenance) == failed
    run = find_run(db, theory.spec.digest)
    assert run is not None
    assert (run.status, run.error_message, run.converged) == ("succeeded", None, True)
    assert run.updated_at >= run.created_at
    np.testing.assert_array_equal(queries.arrays(db, failed)["V4"], theory.covariance)

    assert mark_failed(db, theory.spec, error="late", provenance=provenance) == failed
    again = find_run(db, theory.spec.digest)
    assert again is not None
    assert (again.status, again.updated_at) == ("succeeded", run.updated_at)


def test_failed_simulation_needs_its_identity(db, make_sample, provenance):
    sample = make_sample()
    with pytest.raises(eft.InputError, match="digest"):
        mark_failed(db, sample.spec, error="killed", provenance=provenance)
    failed = mark_failed(db, sample.spec, error="killed", provenance=provenance, digest=sample.digest, samples=128)
    assert record_simulation(db, sample, provenance=provenance) == failed


def test_nothing_is_half_written_when_recording_breaks(db, make_theory, provenance, count_rows):
    def fail(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "INSERT INTO trajectory_values" in statement:
            raise OSError("the machine stopped here")

    before = count_rows(db)
    sa.event.listen(db.engine, "before_cursor_execute", fail)
    with pytest.raises(OSError, match="stopped here"):
        record_prediction(db, make_theory(), provenance=provenance)
    sa.event.remove(db.engine, "before_cursor_execute", fail)
    assert count_rows(db) == before
    record_prediction(db, make_theory(), provenance=provenance)
    assert count_rows(db)["runs"] == 1


def test_deleting_a_run_takes_everything_below_it(db, record_all, count_rows):
    recorded = record_all(db)
    with db.session() as session:
        session.execute(sa.delete(Run).where(Run.id == recorded.simulation))
    left = count_rows(db)
    assert (left["runs"], left["comparisons"], left["error_metrics"], left["validity_windows"]) == (3, 0, 0, 0)
    with db.reading() as session:
        for table in (TrajectoryValue, KernelTrajectory, StudyRun):
            assert session.scalar(sa.select(sa.func.count()).where(table.run_id == recorded.simulation)) == 0


def test_ids_are_not_used_twice(db, make_theory, provenance):
    first = record_prediction(db, make_theory(), provenance=provenance)
    with db.session() as session:
        session.execute(sa.delete(Run))
    assert record_prediction(db, make_theory(), provenance=provenance) > first


def test_threads_recording_the_same_end_with_one_row(url, record_all, count_rows):
    start = threading.Barrier(4)
    outcomes: list[Any] = []

    def work() -> None:
        database = Database(url)
        try:
            start.wait()
            outcomes.append(record_all(database))
        except BaseException as error:
            outcomes.append(error)
        finally:
            database.dispose()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [outcomes[0]] * 4
    database = Database(url)
    counts = count_rows(database)
    database.dispose()
    assert (counts["studies"], counts["runs"], counts["comparisons"]) == (1, 4, 3)
    # components of the simulation and of g_only (3 K0, 6 V4, 3 K1, 3 U1, 6 Sigma), source_only (no K1, U1), mean (K0)
    assert counts["trajectory_values"] == 9 * (21 + 21 + 15 + 3)


def test_study_of_the_same_name_and_other_contents_is_another(db):
    first = record_study(db, name="quick", digest="1" * 64, spec={"widths": [64]}, runs_asked=1)
    assert record_study(db, name="quick", digest="1" * 64, spec={"widths": [64]}, runs_asked=1) == first
    assert record_study(db, name="quick", digest="2" * 64, spec={"widths": [128]}, runs_asked=1) != first
    assert queries.studies(db).name.tolist() == ["quick", "quick"]


def test_a_study_recorded_again_says_how_many_runs_it_asks_for(db):
    study = {"name": "quick", "digest": "1" * 64, "spec": {}}
    first = record_study(db, **study, runs_asked=2)
    with db.session() as session:
        session.execute(sa.update(Study).values(runs_asked=None))  # as an older version of the program left it
    assert study_progress(db).runs_asked.isna().all()
    for asked in (2, 3):
        assert record_study(db, **study, runs_asked=asked) == first
        assert study_progress(db).runs_asked.tolist() == [asked]
    with pytest.raises(sa.exc.IntegrityError, match="asks_for_runs"):
        record_study(db, **study, runs_asked=0)
