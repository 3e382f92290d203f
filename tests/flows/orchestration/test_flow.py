"""The flow of a tiny study as Prefect runs it: what is computed and cached, retried, and recorded of failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.reading import queries
from db.session import Database
from db.settings import default_url
from eftcore.errors import OutOfMemory
from flows.work import computations
from tests.flows.studies import TASKS, counts, run

pytestmark = pytest.mark.usefixtures("prefect_api")


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


def test_what_prefect_forgot_is_not_computed_again(calls: list[str], tiny: Path, tmp_path: Path):
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    run(tiny)
    calls.clear()
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "empty"}):
        assert (run(tiny).failures, run(tiny).cached) == ([], TASKS)
    assert calls == []


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
