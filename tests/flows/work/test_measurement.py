"""A study that simulates a network at two widths and predicts it exactly ends with its measured next order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from db.reading import queries
from db.reading.study_queries import study_progress
from db.session import Database
from db.settings import default_url
from eftcore.specs import ALGORITHM_VERSION, newest_version
from eftcore.verdicts.windows import compare
from eftcore.words import window_text
from flows.run import plan_study
from flows.study.expansion import load_study
from flows.study.requests import StudyRequest
from flows.work import computations
from flows.work.store import default_store
from tests.flows.studies import run

pytestmark = pytest.mark.usefixtures("without_prefect")

STUDY = """
name = "measured"
widths = [16, 64]
samples = 20000
seed = 5
closures = ["g_only", { name = "exact", next_order = true }]
tolerances = [0.2, 0.5]
recorded_depths = 4

[model]
activation = "linear"
weight_variance = 2.0
epsilon = 0.5
total_time = 1.0

[[kernel]]
kind = "explicit"
matrix = [[1.0]]
"""

TASKS = 2 + 1 + 2 * (1 + 1 + 2 + 1) + (1 + 1 + 1)
"""Two predictions, the widths; for each width a shard, a merge, two comparisons, a record; a measurement, its
comparison with the prediction, a record."""


@pytest.fixture
def study(stored: Path, tmp_path: Path) -> Path:
    """The study file; results and database start empty."""
    path = tmp_path / "measured.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def db(stored: Path):
    database = Database(default_url(), read_only=True)
    yield database
    database.dispose()


def measurements(db: Database) -> pd.DataFrame:
    return queries.runs(db, kind="measurement")


def test_the_measured_next_order_is_recorded_and_agrees_with_theory(study: Path, calls: list[str], db: Database):
    """For a linear network, whose D is known in closed form: all values at once, at a level of 1e-3 (Bonferroni)."""
    study.write_text(STUDY.replace("widths = [16, 64]", "widths = [8, 32]").replace("20000", "800_000"))
    summary = run(study)
    assert (summary.cached, summary.failures, summary.skipped) == (0, [], 0)
    assert calls.count("measure") == 1
    (row,) = measurements(db).itertuples()
    assert (row.status, row.superseded, row.algorithm_version) == ("succeeded", False, newest_version("measurement"))
    assert pd.isna(row.width)
    assert (row.widths, row.samples) == ("8, 32", 1_600_000)
    assert row.closure is None

    found = queries.measurements(db, study="measured")
    assert found.quantity.value_counts().to_dict() == {"D": 5, "K2": 5}
    assert set(found.measurement_run_id) == {row.run_id}
    assert found.predicted.notna().all()
    noisy = found[found.measured_se > 0]
    z = (noisy.measured - noisy.predicted) / noisy.measured_se
    assert np.abs(z).max() < 4.1, "p = 1e-3 of ten"
    last = found[(found.quantity == "D") & (found.layer == found.layer.max())].iloc[0]
    assert 0 < last.measured_se < 0.03 * last.predicted, "the agreement says something"

    windows = queries.windows(db, reference_kind="measurement", study="measured")
    assert set(windows.quantity) == {"D", "K2"}
    assert set(windows.reference_run_id) == {row.run_id}
    assert set(windows.closure) == {"exact"}
    assert windows.simulation_run_id.isna().all()
    assert set(windows.reference_widths) == {"8, 32"}
    store = default_store()
    plan = load_study(study)
    exact = next(digest for digest, spec in plan.predictions.items() if spec.next_order)
    stored, _ = computations.load_reference(store, row.digest)
    made = compare(computations.load_theory(store, exact)[0], stored, plan.tolerances)
    assert windows.status.tolist() == made.windows.status.tolist()
    errors = queries.errors(db, reference_kind="measurement")
    np.testing.assert_array_equal(errors.absolute_error, made.errors.absolute_error)
    assert [window_text(window) for window in windows.to_dict("records")]

    progress = study_progress(db)
    assert progress.runs_asked.iloc[0] == progress.runs.sum() == 5
    assert len(queries.windows(db, reference_kind="simulation")) == 2 * 2 * 3 * 2, "as without it"


def test_an_intact_measurement_is_not_made_again(study: Path, calls: list[str], db: Database):
    assert [task.cached for task in plan_study(load_study(study))] == [False] * TASKS
    run(study)
    (row,) = measurements(db).itertuples()
    calls.clear()
    assert all(task.cached for task in plan_study(load_study(study)))
    again = run(study)
    assert (again.cached, again.computed, calls) == (TASKS, 0, [])
    default_store().path(row.digest).unlink()
    labels = [task.label for task in plan_study(load_study(study)) if not task.cached]
    assert labels == ["measure the next order: linear, widths 16, 64, explicit"]
    assert (run(study).computed, calls) == (1, ["measure"])
    assert measurements(db).digest.tolist() == [row.digest]


def test_more_networks_are_measured_anew(study: Path, calls: list[str], db: Database):
    run(study)
    calls.clear()
    study.write_text(STUDY.replace("samples = 20000", "samples = 40000"))
    run(study)
    assert calls.count("measure") == 1
    assert measurements(db).digest.nunique() == 2
    new, old = (queries.measurements(db, measurement_run_id=run_id) for run_id in measurements(db).run_id)
    assert (new.measured_se[new.layer > 0] < 0.85 * old.measured_se[old.layer > 0]).all(), "by about 0.71"


def test_without_one_of_the_simulations_nothing_is_measured(
    study: Path, calls: list[str], db: Database, monkeypatch: pytest.MonkeyPatch
):
    simulate = computations.simulate

    def fails(store, spec, **options):
        if spec.width == 64:
            raise RuntimeError("out of order")
        simulate(store, spec, **options)

    monkeypatch.setattr(computations, "simulate", fails)
    summary = run(study)
    assert [failure.cause for failure in summary.failures] == ["RuntimeError: out of order"]
    assert summary.skipped == 1 + 2 + 3, "merge and comparisons, and what is measured"
    assert measurements(db).empty
    monkeypatch.setattr(computations, "simulate", simulate)
    assert run(study).failures == []
    assert measurements(db).status.tolist() == ["succeeded"]


def test_a_failed_measurement_is_recorded_as_one(
    study: Path, calls: list[str], db: Database, monkeypatch: pytest.MonkeyPatch
):
    measure = computations.measure

    def fails(store, spec):
        raise RuntimeError("no line")

    monkeypatch.setattr(computations, "measure", fails)
    summary = run(study)
    assert [failure.cause for failure in summary.failures] == ["RuntimeError: no line"]
    assert measurements(db)[["status", "error_message"]].to_numpy().tolist() == [["failed", "RuntimeError: no line"]]
    monkeypatch.setattr(computations, "measure", measure)
    assert run(study).failures == []
    assert measurements(db).status.tolist() == ["succeeded"]


def test_a_measurement_is_superseded_with_any_of_its_parts(
    study: Path, calls: list[str], db: Database, monkeypatch: pytest.MonkeyPatch
):
    from flows.run import run_study

    run(study)
    monkeypatch.setitem(ALGORITHM_VERSION, "simulation", ALGORITHM_VERSION["simulation"] + 1)
    calls.clear()
    assert run(study).cached == TASKS
    assert calls == []
    run_study(StudyRequest(study=str(study), renew=True))
    assert calls.count("measure") == 1
    new, old = measurements(db).itertuples()
    assert (new.superseded, old.superseded) == (False, True)
    windows = queries.windows(db, reference_kind="measurement")
    assert windows.groupby("reference_run_id").superseded.first().to_dict() == {new.run_id: False, old.run_id: True}
    found = queries.measurements(db)
    assert found.groupby("measurement_run_id").superseded.first().to_dict() == {new.run_id: False, old.run_id: True}
