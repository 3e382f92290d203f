"""The real flow on a tiny study: what is computed, cached, recorded and repaired."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.reading.study_queries import study_progress
from db.session import Database
from db.settings import data_home, default_url
from db.upkeep import migrate
from eftcore.errors import InputError, OutOfMemory
from flows.study.expansion import load_study
from flows.study.requests import StudyRequest
from flows.work import computations
from flows.work.store import default_store
from tests.flows.conftest import TINY

TASKS = 2 + 2 * (1 + 1 + 2 + 1)
"""Of the tiny study: two predictions; for each of two widths one shard, one merge, two comparisons, one record."""

TABLES = ("v_runs", "v_windows", "v_errors", "v_trajectories", "v_width_windows", "v_quantiles")


@pytest.fixture
def calls(results: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the computations that really ran, in order; results and task cache start empty."""
    made: list[str] = []
    for name in ("predict", "simulate", "merge", "compare"):
        monkeypatch.setattr(computations, name, _noting(made, name, getattr(computations, name)))
    return made


def _noting(made: list[str], name: str, function):
    def noted(*arguments, **options):
        made.append(name)
        return function(*arguments, **options)

    return noted


def run(path: Path):
    """Run a study; the summary, also when tasks failed."""
    from flows.run import StudyFailed, run_study

    try:
        return run_study(StudyRequest(study=str(path)))
    except StudyFailed as failed:
        return failed.summary


def counts() -> dict[str, int]:
    """Rows of every view."""
    db = Database(default_url(), read_only=True)
    found = {view: int(queries.select(db, f"SELECT COUNT(*) AS n FROM {view}")["n"].iloc[0]) for view in TABLES}
    db.dispose()
    return found


def test_a_second_run_computes_nothing_and_adds_no_row(calls: list[str], tiny: Path):
    first = run(tiny)
    assert (first.cached, first.computed, first.failures) == (0, TASKS, [])
    assert sorted(calls) == sorted(["predict"] * 2 + ["simulate", "merge", "compare", "compare"] * 2)
    rows = counts()
    layers, tolerances, widths = 5, 2, 2
    mean_and_g_only = 1 + 3
    assert rows["v_runs"] == 2 + widths
    assert rows["v_windows"] == widths * mean_and_g_only * tolerances
    assert rows["v_errors"] == widths * mean_and_g_only * layers
    assert rows["v_quantiles"] == widths * 2 * layers * 7

    calls.clear()
    second = run(tiny)
    assert (second.cached, second.computed, second.failures) == (TASKS, 0, [])
    assert calls == []
    assert counts() == rows


THEORY = TINY.replace("[8, 16]", "[8]").replace("[model]", 'reference = { name = "wick", order = "auto" }\n[model]')
"""Of it: three predictions, two comparisons and a record against the reference, five tasks of one width."""

THEORY_TASKS = 3 + (2 + 1) + 5


def theory_windows() -> list[tuple[Any, ...]]:
    """(closure, quantity, tolerance, status) of all, sorted."""
    db = Database(default_url(), read_only=True)
    frame = queries.windows(db, study="tiny", reference_closure="wick")
    db.dispose()
    return sorted(frame[["closure", "quantity", "tolerance", "status"]].itertuples(index=False, name=None))


def test_predictions_are_held_against_a_theory_too(calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]):
    from flows import launch
    from flows.run import plan_study

    tiny.write_text(THEORY)
    planned = plan_study(load_study(tiny))
    assert [task.label for task in planned if "with wick" in task.label] == [
        f"compare {closure} with wick auto: tanh, equicorrelated(N=2, K=1, rho=0.3)" for closure in ("mean", "g_only")
    ]
    assert len(planned) == THEORY_TASKS
    first = run(tiny)
    assert (first.cached, first.computed, first.failures, first.skipped) == (0, THEORY_TASKS, [], 0)
    assert len(theory_windows()) == (1 + 3) * 2
    simulated = counts()["v_windows"] - len(theory_windows())
    assert simulated == (1 + 3) * 2, "the reference is not itself held against the simulation"
    db = Database(default_url(), read_only=True)
    progress = study_progress(db)
    db.dispose()
    assert set(progress["status"]) == {"succeeded"}
    assert set(progress["runs_asked"]) == {progress["runs"].sum()} == {3 + 1}

    calls.clear()
    assert (run(tiny).computed, calls) == (0, [])
    assert all(task.cached for task in plan_study(load_study(tiny)))
    launch.report(first, as_json=False)
    said = capsys.readouterr().out
    assert "held against" in said
    assert "simulation" in said
    assert "wick " in said
    launch.report(first, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert Counter(row["reference_kind"] for row in told["windows"]) == {"simulation": 8, "theory": 8}


def test_a_study_may_simulate_nothing(calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]):
    from flows import launch

    tiny.write_text(THEORY.replace("samples = 4096\n", "").replace("widths = [8]\n", ""))
    launch.dry_run(StudyRequest(study=str(tiny)), as_json=False)
    assert "6 to compute; no simulation among them." in capsys.readouterr().out
    summary = run(tiny)
    assert (summary.computed, summary.failures) == (6, [])
    assert sorted(calls) == ["compare"] * 2 + ["predict"] * 3
    assert len(theory_windows()) == counts()["v_windows"] == 8
    launch.report(summary, as_json=False)
    assert "held against wick" in capsys.readouterr().out


def test_more_tolerances_are_compared_and_recorded_again(calls: list[str], tiny: Path):
    tiny.write_text(THEORY)
    run(tiny)
    calls.clear()
    tiny.write_text(THEORY.replace("[0.05, 0.2]", "[0.05, 0.2, 0.01]"))
    run(tiny)
    assert calls == ["compare"] * 4
    assert len(theory_windows()) == (1 + 3) * 3


def test_a_failed_reference_leaves_the_rest(calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch):
    real = computations.predict

    def fail_wick(store, spec):
        if spec.closure == "wick":
            raise RuntimeError("no series")
        return real(store, spec)

    tiny.write_text(THEORY)
    monkeypatch.setattr(computations, "predict", fail_wick)
    summary = run(tiny)
    assert [failure.cause for failure in summary.failures] == ["RuntimeError: no series"]
    assert (summary.skipped, summary.computed) == (2, THEORY_TASKS - 3)
    assert theory_windows() == []
    assert counts()["v_windows"] == 8
    monkeypatch.setattr(computations, "predict", real)
    repaired = run(tiny)
    assert (repaired.failures, repaired.computed) == ([], 1 + 2 + 1)
    assert len(theory_windows()) == 8


def test_the_next_order_that_a_study_asks_for_is_there_for_sql(calls: list[str], tiny: Path):
    closures = 'closures = ["g_only", "exact", { name = "exact", next_order = true, truncation = 0.01 }]'
    tiny.write_text(tiny.read_text().replace('closures = ["mean", "g_only"]', closures))
    assert run(tiny).failures == []
    spec = next(spec for spec in load_study(tiny).predictions.values() if spec.next_order)
    exact = eft.predict_spec(spec)
    db = Database(default_url(), read_only=True)
    found = queries.select(
        db,
        "SELECT width, component, predicted, closure, layer FROM v_trajectories WHERE next_order AND quantity = 'D'"
        " AND layer = depth ORDER BY width, component",
    )
    assert found.width.tolist() == [8] * 6 + [16] * 6
    last = exact.covariance_next[-1]
    assert found.predicted.tolist() == pytest.approx([*last[np.triu_indices(3)]] * 2, rel=1e-9)
    without = queries.select(db, "SELECT COUNT(*) AS n FROM v_trajectories WHERE closure = 'exact' AND NOT next_order")
    assert without.n.iloc[0] > 0
    sql = "SELECT numerical_error FROM kernel_trajectories WHERE quantity = 'K2' AND se IS NULL"
    stored = queries.select(db, sql)
    assert stored.numerical_error.tolist() == [pytest.approx(exact.relative_error("K2"), rel=1e-6)]

    from_theory = queries.width_windows(db, study="tiny", reference_kind="theory")
    mine = from_theory[(from_theory.closure == "exact") & from_theory.next_order]
    columns = ["quantity", "tolerance", "layer"]
    made = eft.width_windows(exact, tolerances=load_study(tiny).tolerances).rename(columns={"depth": "layer"})
    made = made.sort_values(columns)
    assert mine.sort_values(columns).status.tolist() == made.status.tolist()
    known = made.status == "from"
    assert mine.sort_values(columns).width.dropna().tolist() == pytest.approx(made.width[known].tolist(), rel=1e-6)
    assert set(from_theory.closure) == {"g_only", "exact"}
    assert len(from_theory) == 3 * len(mine), "of both predictions of the leading order, and of g_only"
    simulated = queries.width_windows(db, study="tiny", reference_kind="simulation")
    assert set(simulated.widths) == {2}
    db.dispose()


def test_lost_widths_are_recorded_again_without_computing_anything(calls: list[str], tiny: Path):
    closures = 'closures = ["g_only", { name = "exact", next_order = true, truncation = 0.05 }]'
    tiny.write_text(tiny.read_text().replace('closures = ["mean", "g_only"]', closures))
    first = run(tiny)
    assert (first.failures, first.computed) == ([], TASKS + 4)
    rows = counts()
    calls.clear()
    assert (run(tiny).cached, calls) == (TASKS + 4, [])
    db = Database(default_url())
    with db.session() as session:
        session.execute(sa.text("DELETE FROM width_windows WHERE tolerance = 0.05"))
    db.dispose()
    again = run(tiny)
    assert (again.cached, again.computed, calls) == (TASKS + 3, 1, [])
    assert counts() == rows


def test_a_study_that_was_recorded_before_there_were_quantiles_gets_them_without_computing_anything(
    calls: list[str], tiny: Path
):
    """The way back to the revision before and up again leaves a database as an older version of the program did."""
    from flows.run import plan_study

    run(tiny)
    rows = counts()
    migrate.downgrade(default_url(), "0011_measured_next_order")
    migrate.upgrade(default_url())
    assert counts() == {**rows, "v_quantiles": 0}
    assert [task.label.split(":")[0] for task in plan_study(load_study(tiny)) if not task.cached] == ["record"] * 2
    calls.clear()
    assert (run(tiny).computed, calls) == (2, [])
    assert counts() == rows
    assert run(tiny).cached == TASKS


def test_without_its_next_order_a_study_says_no_widths_and_goes_on(
    calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    closures = 'closures = ["g_only", { name = "exact", next_order = true }]'
    tiny.write_text(tiny.read_text().replace('closures = ["mean", "g_only"]', closures))
    predict = computations.predict

    def fails(store: Any, spec: eft.PredictionSpec) -> None:
        if spec.next_order:
            raise InputError("the next order does not converge")
        predict(store, spec)

    monkeypatch.setattr(computations, "predict", fails)
    found = run(tiny)
    assert [failure.cause for failure in found.failures] == ["the next order does not converge"]
    assert found.skipped == 1 + 2 + 3, "the widths, its comparisons, and what is measured"
    db = Database(default_url(), read_only=True)
    assert set(queries.width_windows(db).reference_kind) == {"simulation"}
    db.dispose()


def test_a_lost_database_is_filled_again_from_the_cache(calls: list[str], tiny: Path):
    run(tiny)
    rows = counts()
    for path in data_home().glob("results.db*"):
        path.unlink()
    migrate.upgrade(default_url())
    calls.clear()
    again = run(tiny)
    assert (again.cached, again.computed) == (TASKS - 2, 2)
    assert calls == []
    assert counts() == rows


def test_a_damaged_result_is_computed_again(calls: list[str], tiny: Path):
    run(tiny)
    rows = counts()
    damaged = default_store().path(next(iter(load_study(tiny).predictions)))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    calls.clear()
    again = run(tiny)
    assert calls == ["predict"]
    assert (again.cached, again.computed) == (TASKS - 1, 1)
    assert counts() == rows


def test_what_prefect_forgot_is_not_computed_again(calls: list[str], tiny: Path, tmp_path: Path):
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    run(tiny)
    calls.clear()
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "empty"}):
        assert (run(tiny).failures, run(tiny).cached) == ([], TASKS)
    assert calls == []


def test_a_dry_run_foretells_what_is_computed(calls: list[str], tiny: Path):
    from flows.run import plan_study

    before = plan_study(load_study(tiny))
    assert calls == []
    assert [task.cached for task in before] == [False] * TASKS
    run(tiny)
    assert all(task.cached for task in plan_study(load_study(tiny)))
    lost = next(iter(load_study(tiny).predictions))
    default_store().path(lost).unlink()
    assert [task.label for task in plan_study(load_study(tiny)) if not task.cached] == [before[0].label]


def test_a_dry_run_says_how_long_judging_by_earlier_runs(
    calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
):
    from flows import launch

    launch.dry_run(StudyRequest(study=str(tiny)), as_json=False)
    assert f"0 tasks cached, {TASKS} to compute; no simulation is recorded yet" in capsys.readouterr().out
    run(tiny)
    launch.dry_run(StudyRequest(study=str(tiny)), as_json=False)
    assert f"{TASKS} tasks cached, 0 to compute; nothing to compute." in capsys.readouterr().out
    tiny.write_text(TINY.replace("seed = 7", "seed = 8"))
    capsys.readouterr()
    launch.dry_run(StudyRequest(study=str(tiny)), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [task["task"].split()[0] for task in told["tasks"] if task["cached"]] == ["predict", "predict"]
    db = Database(default_url(), read_only=True)
    spent = queries.runs(db, kind="simulation")
    db.dispose()
    speeds = spent["worker_seconds"] / (spent["samples"] * spent["depth"] * spent["width"] * spent["n_inputs"])
    work_left = 4096 * 4 * (8 + 16) * 2
    assert told["expected_seconds"] == pytest.approx(speeds.median() * work_left)


def test_more_samples_keep_the_full_shards(calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("eftcore.ensemble.shards.SHARD_WORK", 1)
    tiny.write_text(TINY.replace("samples = 4096", "samples = 160").replace("[8, 16]", "[8]"))
    run(tiny)
    assert calls.count("simulate") == 3
    calls.clear()
    tiny.write_text(tiny.read_text().replace("samples = 160", "samples = 256"))
    run(tiny)
    assert calls.count("simulate") == 2
    db = Database(default_url(), read_only=True)
    assert sorted(queries.runs(db, kind="simulation")["samples"]) == [160, 256]
    db.dispose()


TARGET = (
    TINY.replace("samples = 4096\n", "").replace("[8, 16]", "[8]")
    + """
[precision]
quantity = "V4"
relative = 0.1
max_samples = 2000
"""
)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch):
    """64 networks each, and 128 of them to begin with."""
    monkeypatch.setattr("eftcore.ensemble.shards.SHARD_WORK", 1)
    monkeypatch.setattr("eftcore.ensemble.shards.FIRST_NETWORKS", 128)


def simulations() -> list[dict[str, Any]]:
    """samples and details of the recorded simulations, by samples."""
    db = Database(default_url(), read_only=True)
    frame = queries.select(db, "SELECT samples, status, details FROM runs WHERE kind = 'simulation' ORDER BY samples")
    db.dispose()
    return [row | {"details": json.loads(row["details"] or "null")} for row in frame.to_dict("records")]


@pytest.mark.usefixtures("small_shards")
def test_shards_are_added_until_the_target_is_met(calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]):
    from flows import launch
    from flows.run import plan_study

    tiny.write_text(TARGET)
    before = plan_study(load_study(tiny))
    assert [task.at_most for task in before].count(True) == 1
    assert "at most 30 more shards for V4 to 10 % (at most 2000 networks), 1872 networks" in str(before)
    summary = run(tiny)
    assert (summary.failures, summary.skipped) == ([], 0)
    (attained,) = summary.precision.values()
    assert attained.met
    assert 128 < attained.samples < 2000
    assert calls.count("simulate") == -(-attained.samples // 64)
    (row,) = simulations()
    assert row["samples"] == attained.samples
    assert row["details"]["stopped"] == "target met"
    assert row["details"]["precision_target"]["relative"] == 0.1
    assert row["details"]["precision_reached"]["V4"]["relative"] == attained.error
    assert row["details"]["random_streams"][0].startswith("xoshiro128++")

    calls.clear()
    again = run(tiny)
    assert calls == []
    assert again.computed == 0
    assert again.precision == summary.precision
    assert not [task for task in plan_study(load_study(tiny)) if task.at_most or not task.cached]

    launch.report(summary, as_json=True)
    (told,) = json.loads(capsys.readouterr().out)["precision"]
    assert (told["quantity"], told["target"], told["reached"]) == ("V4", 0.1, attained.error)
    assert (told["samples"], told["stopped"]) == (attained.samples, "target met")
    launch.report(summary, as_json=False)
    assert "target met" in capsys.readouterr().out


@pytest.mark.usefixtures("small_shards")
def test_a_tighter_target_reuses_shards_and_a_cap_is_told(
    calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
):
    from flows import launch

    tiny.write_text(TARGET)
    first = next(iter(run(tiny).precision.values()))
    calls.clear()
    tiny.write_text(TARGET.replace("0.1\nmax", "0.01\nmax"))
    summary = run(tiny)
    (capped,) = summary.precision.values()
    assert (capped.samples, capped.stopped) == (2000, "cap reached")
    assert calls.count("simulate") == 32 - first.samples // 64
    assert [row["details"]["stopped"] for row in simulations()] == ["target met", "cap reached"]
    launch.report(summary, as_json=False)
    assert "raise max_samples" in capsys.readouterr().out


@pytest.mark.usefixtures("small_shards")
def test_precision_is_told_for_every_point_of_a_grid(calls: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]):
    from flows import launch

    tiny.write_text(TARGET.replace("epsilon = 0.5", "epsilon = [0.5, 0.25]"))
    summary = run(tiny)
    launch.report(summary, as_json=True)
    told = json.loads(capsys.readouterr().out)["precision"]
    assert [row["epsilon"] for row in told] == [0.5, 0.25]
    assert [row["samples"] for row in told] == [row["samples"] for row in told if row["stopped"] == "target met"]


@pytest.mark.usefixtures("small_shards")
def test_a_failed_round_is_taken_up_again(calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch):
    real = computations.simulate

    def fail_at_2(store, spec, **options):
        if options["shard"] == 2:
            raise RuntimeError("the device is on fire")
        return real(store, spec, **options)

    tiny.write_text(TARGET)
    monkeypatch.setattr(computations, "simulate", fail_at_2)
    summary = run(tiny)
    assert [failure.cause for failure in summary.failures] == ["RuntimeError: the device is on fire"]
    assert [(row["samples"], row["status"]) for row in simulations()] == [(2000, "failed")]
    monkeypatch.setattr(computations, "simulate", real)
    done = calls.count("simulate")
    calls.clear()
    repaired = run(tiny)
    assert repaired.failures == []
    (attained,) = repaired.precision.values()
    assert attained.met
    assert calls.count("simulate") == attained.samples // 64 - done
    assert [(row["samples"], row["status"]) for row in simulations()] == [(attained.samples, "succeeded")]


def test_failed_work_is_recorded_with_its_cause_and_done_later(
    calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    real = computations.simulate

    def fail_at_16(store, spec, **options):
        if spec.width == 16:
            raise RuntimeError("the device is on fire")
        return real(store, spec, **options)

    monkeypatch.setattr(computations, "simulate", fail_at_16)
    summary = run(tiny)
    assert [failure.cause for failure in summary.failures] == ["RuntimeError: the device is on fire"]
    assert summary.skipped == 3
    assert summary.computed == TASKS - 4
    db = Database(default_url(), read_only=True)
    failed = queries.runs(db, status="failed")
    assert failed["error_message"].tolist() == ["RuntimeError: the device is on fire"]
    assert failed["width"].tolist() == [16]
    assert queries.runs(db, status="succeeded")["kind"].value_counts().to_dict() == {"prediction": 2, "simulation": 1}

    monkeypatch.setattr(computations, "simulate", real)
    repaired = run(tiny)
    assert repaired.failures == []
    assert (repaired.cached, repaired.computed) == (TASKS - 5, 5)
    assert queries.runs(db, status="failed").empty
    db.dispose()


def test_passing_trouble_is_retried_and_wrong_input_is_not(
    calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    from flows.orchestration import tasks

    monkeypatch.setattr(tasks.predict, "retry_delay_seconds", 0)
    real, troubles = computations.predict, [ConnectionResetError("gone"), OutOfMemory("another program has it")]

    def troubled(store, spec):
        if troubles:
            raise troubles.pop()
        return real(store, spec)

    monkeypatch.setattr(computations, "predict", troubled)
    assert run(tiny).failures == []

    attempts: list[str] = []

    def wrong(store, spec):
        attempts.append(spec.closure)
        raise ValueError("never right")

    monkeypatch.setattr(computations, "predict", wrong)
    tiny.write_text(tiny.read_text().replace("[model]", "[model]\nbias_variance = 0.1"))
    assert len(run(tiny).failures) == 2
    assert sorted(attempts) == ["g_only", "mean"]
