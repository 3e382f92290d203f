"""Small configurations are computed together: each keeps its own result, cause of failure, and place in the counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from db.reading import queries
from db.session import Database
from db.settings import data_home, default_url
from flows.orchestration import groups, tasks
from flows.study.expansion import load_study
from flows.work import computations, costs, recording
from flows.work.store import default_store
from tests.flows.studies import TINY, run

pytestmark = pytest.mark.usefixtures("without_prefect")

MANY = TINY.replace("[8, 16]", "[8]").replace("4096", "64").replace("weight_variance = 2.0", "weight_variance = {}")
FOUR = MANY.format([1.0, 1.5, 2.0, 2.5])
TASKS = 4 * (2 + 1 + 1 + 2 + 1)
"""Two predictions, a shard, a merge, two comparisons and a record of each of four configurations."""


def statuses() -> dict[str, int]:
    """Runs by status."""
    db = Database(default_url(), read_only=True)
    counted = queries.runs(db)["status"].value_counts().to_dict()
    db.dispose()
    return counted


def rows() -> list[tuple[Any, ...]]:
    """Every number that is recorded, in an order of its own."""
    db = Database(default_url(), read_only=True)
    with db.reading() as session:
        columns = "closure, weight_variance, quantity, layer, error, absolute_error, absolute_error_se"
        found = session.execute(sa.text(f"SELECT {columns} FROM v_errors")).all()
    db.dispose()
    return sorted((tuple(row) for row in found), key=repr)


def test_one_that_fails_has_its_own_cause_and_its_neighbours_succeed(
    calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    real, failing = computations.predict, 1.5

    def fails(store: Any, spec: Any) -> None:
        if spec.model.weight_variance == failing and spec.closure == "g_only":
            raise RuntimeError("no such weights")
        real(store, spec)

    def cannot(store: Any, specs: Any) -> None:
        raise ValueError("one of these")

    tiny.write_text(FOUR)
    with monkeypatch.context() as patched:
        patched.setattr(computations, "predict", fails)
        patched.setattr(computations, "predict_alike", cannot)
        summary = run(tiny)
    assert [(failure.label, failure.cause) for failure in summary.failures] == [
        ("predict g_only: tanh, equicorrelated(N=2, K=1, rho=0.3)", "RuntimeError: no such weights")
    ]
    assert (summary.computed, summary.cached, summary.skipped) == (TASKS - 2, 0, 1)
    assert statuses() == {"succeeded": 4 * 3 - 1, "failed": 1}
    repaired = run(tiny)
    assert (repaired.failures, repaired.computed) == ([], 1 + 1 + 1)
    assert statuses() == {"succeeded": 4 * 3}


def test_a_record_that_fails_leaves_its_neighbours_alone(calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """A stored result that cannot be read when its turn comes."""
    real = computations.load_sample

    def unreadable(store: Any, digest: str) -> Any:
        sample, provenance = real(store, digest)
        if sample.spec.model.weight_variance == 2.5 and recorded:
            raise RuntimeError("unreadable")
        return sample, provenance

    recorded: list[int] = []
    record = recording.record

    def noting(*given: Any, **named: Any) -> None:
        recorded.append(len(named["records"]))
        record(*given, **named)

    tiny.write_text(FOUR)
    monkeypatch.setattr(recording, "record", noting)
    monkeypatch.setattr(computations, "load_sample", unreadable)
    summary = run(tiny)
    assert recorded == [4, 1, 1, 1, 1], "together, and then one by one"
    assert [failure.cause for failure in summary.failures] == ["RuntimeError: unreadable"]
    assert (summary.computed, summary.skipped) == (TASKS - 1, 0)
    assert statuses() == {"succeeded": 4 * 3 - 1 - 2, "pending": 1 + 2}


def test_what_may_pass_is_done_again_in_a_task_of_its_own(
    calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    real, troubles = computations.simulate, [ConnectionResetError("gone")]

    def troubled(*given: Any, **options: Any) -> None:
        if troubles:
            raise troubles.pop()
        real(*given, **options)

    tiny.write_text(FOUR)
    monkeypatch.setattr(computations, "simulate", troubled)
    summary = run(tiny)
    assert (summary.failures, summary.computed) == ([], TASKS)


def test_the_first_is_recorded_before_the_last_begins(calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """And nothing is computed twice where configurations are gone through one by one."""
    seen: list[int] = []
    real = computations.predict

    def looking(store: Any, spec: Any) -> None:
        seen.append(statuses().get("succeeded", 0))
        real(store, spec)

    tiny.write_text(FOUR)
    monkeypatch.setattr(costs, "CHUNK", 0.0)
    monkeypatch.setattr(computations, "predict", looking)
    assert run(tiny).failures == []
    assert seen == [0, 0, 3, 3, 6, 6, 9, 9]


def _wrapped() -> Exception:
    """An interrupt as compiled code passes it on."""
    error = SystemError("returned a result with an exception set")
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, _wrapped])
def test_interrupted_among_its_pieces_it_goes_on_with_the_missing_ones(
    interrupt: Callable[[], BaseException], calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    tiny.write_text(FOUR)
    assert run(tiny).failures == []
    undisturbed = rows()
    for path in (data_home() / "arrays").glob("*/*.npz"):
        path.unlink()
    db = Database(default_url())
    with db.session() as session:
        for table in ("comparisons", "runs"):
            session.execute(sa.text(f"DELETE FROM {table}"))
    db.dispose()

    real, done = computations.simulate, []

    def killed(*given: Any, **options: Any) -> None:
        if len(done) == 2:
            raise interrupt()
        done.append(1)
        real(*given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(computations, "simulate", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tiny)
    assert "failed" not in statuses()
    calls.clear()
    again = run(tiny)
    assert (again.failures, again.cached) == ([], 8 + 2)
    assert calls.count("simulate") == 2
    assert rows() == undisturbed
    assert (run(tiny).cached, statuses()) == (TASKS, {"succeeded": 4 * 3})


def test_pieces_are_put_together_by_what_they_cost():
    assert [len(some) for some in costs.batched([0.125] * 40, float)] == [16, 16, 8]
    assert [len(some) for some in costs.batched([0.0] * 250, float)] == [100, 100, 50]
    assert list(costs.batched([5.0, 0.1, 5.0], float)) == [[5.0], [0.1], [5.0]]


@pytest.mark.timeout(0)  # it would use the alarm itself
def test_a_piece_that_takes_too_long_fails_alone(stored: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """In the main thread the time is kept by an alarm, as in a worker process."""
    tiny.write_text(FOUR)
    spec, other, *_ = load_study(tiny).predictions.values()
    real = computations.predict

    def hangs(store: Any, asked: Any) -> None:
        if asked == spec:
            time.sleep(60)
        real(store, asked)

    monkeypatch.setattr(computations, "predict", hangs)
    real(default_store(), other)
    pieces = [{"digest": each.digest, "spec": each.model_dump(mode="json")} for each in (spec, other)]
    with pytest.raises(groups.SomeFailed, match="1 of 2 did not succeed") as some:
        groups.together.fn("predict", pieces, {}, 0.5)
    assert [end.end for end in some.value.ends] == ["failed", "computed"]
    assert "timed out" in some.value.ends[0].cause
    assert tasks.TASKS["predict"].fn(**pieces[1]) is None
