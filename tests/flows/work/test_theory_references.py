"""Predictions that a study holds against a better theory."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from db.reading import queries
from db.reading.study_queries import study_progress
from db.session import Database
from db.settings import default_url
from flows.study.expansion import load_study
from flows.study.requests import StudyRequest
from flows.work import computations
from tests.flows.studies import THEORY, counts, run

pytestmark = pytest.mark.usefixtures("without_prefect")

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
