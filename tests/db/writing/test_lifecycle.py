"""Runs on their way: the state machine, claims and heartbeats, the stale sweep, top-ups, superseded results."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.schema.models import RUN_STATUSES, Claim, Run, SimulationPrecision
from db.session import Database
from db.upkeep import removal
from db.writing import claims
from db.writing.lifecycle import COMES_FROM
from db.writing.repository import (
    PrecisionTarget,
    find_run,
    mark_failed,
    mark_pending,
    mark_running,
    record_prediction,
    record_simulation,
)
from eftcore.errors import EnvironmentProblem
from eftcore.specs import ALGORITHM_VERSION


def _status(db: Database, digest: str) -> str | None:
    run = find_run(db, digest)
    return None if run is None else run.status


def _expire(db: Database) -> None:
    """As if every holder had been silent for longer than its claims last."""
    with db.session() as session:
        long_ago = sa.text("UPDATE claims SET expires_at = '2001-01-01 00:00:00.000000'")
        session.execute(long_ago)


@pytest.fixture(scope="module")
def enter(make_theory):
    """Bring the run of one prediction to a status."""
    theory = make_theory()

    def enter(db: Database, status: str, provenance: dict) -> None:
        match status:
            case "pending":
                mark_pending(db, theory.spec)
            case "running":
                mark_running(db, theory.spec, holder="me", provenance=provenance)
            case "succeeded":
                record_prediction(db, theory, provenance=provenance)
            case "failed":
                mark_failed(db, theory.spec, error="no", provenance=provenance)
            case "stale":
                _expire(db)
                claims.sweep_stale(db)

    return enter


WAYS = {
    "pending": ("pending",),
    "running": ("running",),
    "succeeded": ("succeeded",),
    "failed": ("failed",),
    "stale": ("running", "stale"),
}


@pytest.mark.parametrize("old", RUN_STATUSES)
def test_every_move_is_allowed_or_leaves_the_run_as_it_was(db, make_theory, provenance, enter, old):
    digest = make_theory().spec.digest
    for new in RUN_STATUSES:
        with db.session() as session:
            session.execute(sa.delete(Run))
            session.execute(sa.delete(Claim))
        for step in WAYS[old]:
            enter(db, step, provenance)
        assert _status(db, digest) == old
        enter(db, new, provenance)
        expected = new if new == old or old in COMES_FROM[new] else old
        assert _status(db, digest) == expected, (old, new)
        assert len(queries.runs(db)) == 1


def test_a_run_that_succeeded_is_not_started_again(db, make_theory, provenance):
    theory = make_theory()
    record_prediction(db, theory, provenance=provenance)
    before = find_run(db, theory.spec.digest)
    assert mark_running(db, theory.spec, holder="me", provenance=provenance) is None
    mark_pending(db, theory.spec)
    after = find_run(db, theory.spec.digest)
    assert before is not None
    assert after is not None
    assert (after.status, after.updated_at) == ("succeeded", before.updated_at)
    with db.reading() as session:
        assert session.scalars(sa.select(Claim)).all() == []


def test_one_holder_at_a_time(db, make_theory, provenance):
    theory = make_theory()
    run_id = mark_running(db, theory.spec, holder="first", provenance=provenance)
    assert run_id is not None
    assert mark_running(db, theory.spec, holder="second", provenance=provenance) is None
    assert mark_running(db, theory.spec, holder="first", provenance=provenance) == run_id
    _expire(db)
    assert mark_running(db, theory.spec, holder="second", provenance=provenance) == run_id, "taken over"
    assert claims.renew(db, "first") == set()
    assert claims.renew(db, "second") == {theory.spec.digest}


def test_running_work_shows_who_does_it_and_when_it_last_lived(db, make_theory, provenance):
    theory = make_theory()
    ids = {"flow_run_id": "flow-1", "task_run_id": "task-1"}
    mark_running(db, theory.spec, holder="me", provenance={**provenance, **ids})
    row = queries.runs(db, status="running").iloc[0]
    assert (row.flow_run_id, row.task_run_id, row.host) == ("flow-1", "task-1", "bench")
    assert abs((row.heartbeat_at - row.created_at).total_seconds()) < 60
    record_prediction(db, theory, provenance={**provenance, **ids})
    row = queries.runs(db, status="succeeded").iloc[0]
    assert row.flow_run_id == "flow-1"
    assert row.isna().heartbeat_at
    with db.reading() as session:
        assert session.scalars(sa.select(Claim)).all() == []


def test_sweep_takes_the_silent_and_never_the_living(db, make_theory, provenance):
    silent, living = make_theory("mean"), make_theory("g_only")
    silent_id = mark_running(db, silent.spec, holder="silent", provenance=provenance)
    assert claims.sweep_stale(db) == []
    _expire(db)
    mark_running(db, living.spec, holder="living", provenance=provenance)
    assert claims.sweep_stale(db) == [silent_id]
    assert _status(db, silent.spec.digest) == "stale"
    assert _status(db, living.spec.digest) == "running"
    assert claims.sweep_stale(db) == []


def test_run_whose_claim_is_gone_is_stale(db, make_theory, provenance):
    run_id = mark_running(db, make_theory().spec, holder="me", provenance=provenance)
    claims.release(db, "me")
    assert claims.sweep_stale(db) == [run_id]


def test_slow_worker_comes_back_by_its_next_heartbeat(db, make_theory, provenance):
    theory = make_theory()
    mark_running(db, theory.spec, holder="slow", provenance=provenance)
    _expire(db)
    claims.sweep_stale(db)
    assert claims.renew(db, "slow") == {theory.spec.digest}
    assert _status(db, theory.spec.digest) == "running"
    assert claims.sweep_stale(db) == []


def test_late_finisher_completes_a_stale_run(db, make_theory, provenance):
    theory = make_theory()
    run_id = mark_running(db, theory.spec, holder="slow", provenance=provenance)
    _expire(db)
    claims.sweep_stale(db)
    assert record_prediction(db, theory, provenance=provenance) == run_id
    assert _status(db, theory.spec.digest) == "succeeded"
    np.testing.assert_array_equal(queries.arrays(db, run_id)["V4"], theory.covariance)


def test_late_finisher_ends_the_work_of_whoever_took_over(db, make_theory, provenance):
    theory = make_theory()
    run_id = mark_running(db, theory.spec, holder="slow", provenance=provenance)
    _expire(db)
    mark_running(db, theory.spec, holder="eager", provenance=provenance)
    record_prediction(db, theory, provenance=provenance)
    assert claims.renew(db, "eager") == set(), "the eager one sees that nothing is left to do"
    assert record_prediction(db, theory, provenance=provenance) == run_id
    assert _status(db, theory.spec.digest) == "succeeded"


def test_claims_on_parts_of_a_result(db):
    """Shards have no row in runs; they are claimed all the same."""
    assert claims.claim(db, "a" * 64, task="simulate", holder="first")
    assert not claims.claim(db, "a" * 64, task="simulate", holder="second")
    assert claims.claim(db, "b" * 64, task="simulate", holder="second")
    claims.release(db, "first", "a" * 64)
    assert claims.claim(db, "a" * 64, task="simulate", holder="second")
    assert claims.renew(db, "second") == {"a" * 64, "b" * 64}
    claims.release(db, "second")
    assert claims.renew(db, "second") == set()


def test_results_that_are_computed_are_claimed_together_and_beside_their_runs(db, make_theory, provenance):
    theory = make_theory()
    ours, theirs = claims.new_holder(), claims.new_holder()
    mark_running(db, theory.spec, holder=ours, provenance=provenance)
    wanted = [theory.spec.digest, *(f"{number:064x}" for number in range(1200))]
    assert claims.claim_computing(db, wanted[:3], holder=theirs, origin={}) == set(wanted[:3]), (
        "the run is not in the way"
    )
    assert claims.claim_computing(db, wanted, holder=ours, origin={}) == set(wanted[3:])
    assert claims.claim_computing(db, wanted[:5], holder=ours, origin={}) == set(wanted[3:5]), "asked again"
    with pytest.raises(EnvironmentProblem, match=r"\(.* by .* since") as refused:
        removal.collect_garbage(db)
    assert str(refused.value).count(" since ") == 1, "one for each process"
    claims.release(db, theirs)
    assert claims.claim_computing(db, wanted[:5], holder=ours, origin={}, lease_seconds=-1) == set(wanted[:5])
    assert claims.claim_computing(db, wanted[:5], holder=theirs, origin={}) == set(wanted[:5]), "they had expired"


def test_heartbeat_renews_from_a_thread_that_ends(db, make_theory, provenance):
    theory = make_theory()
    holder = claims.new_holder()
    renewed = threading.Event()

    def note(_connection, _cursor, statement, *_rest) -> None:
        if statement.startswith("UPDATE claims"):
            renewed.set()

    with claims.heartbeat(db, holder, every=0.01):
        mark_running(db, theory.spec, holder=holder, provenance=provenance)
        _expire(db)
        sa.event.listen(db.engine, "after_cursor_execute", note)
        assert renewed.wait(30)
        sa.event.remove(db.engine, "after_cursor_execute", note)
    assert not [thread for thread in threading.enumerate() if thread.name == "eft-heartbeat"]


def test_only_processes_of_this_machine_are_known_by_their_number():
    assert claims.process_of(claims.new_holder()) == os.getpid()
    for other in ("me", "", "host:12:ab", "host:boot-7:12:ab"):
        assert claims.process_of(other) is None


def test_a_process_of_a_container_with_the_same_host_name_does_not_void_our_claims(db, postgresql_server, tmp_path):
    """It sees other processes than we do, so that ours seem to be no more."""
    apart = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespaces can be made here (unshare)")
    holder = claims.new_holder()
    assert claims.claim(db, "a" * 64, task="simulate", holder=holder)
    release = f"claims.release_dead(Database({str(db.url)!r}))"
    there = f"from db.writing import claims; from db.session import Database; {release}"
    subprocess.run([*apart, sys.executable, "-c", there], check=True)
    assert claims.renew(db, holder) == {"a" * 64}


def test_top_up_says_what_it_extends_and_keeps_it(db, make_sample, provenance):
    first = make_sample(shards=((0, 64), (1, 32)))
    more = make_sample(shards=((0, 64), (1, 64), (2, 64)))
    other = make_sample(shards=((0, 64), (5, 256)))
    ids = [record_simulation(db, sample, provenance=provenance) for sample in (first, more, other)]
    frame = queries.runs(db, kind="simulation").set_index("run_id")
    assert len(frame) == 3
    assert frame.extends_run_id.isna()[ids[0]]
    assert frame.extends_run_id[ids[1]] == ids[0]
    assert frame.extends_run_id.isna()[ids[2]], "other networks, no more of the same"
    with db.session() as session:
        session.execute(sa.delete(Run).where(Run.id == ids[0]))
    assert queries.runs(db, run_id=ids[1]).extends_run_id.isna().all()


def test_older_algorithm_stays_and_is_shown_as_superseded(db, record_all, make_theory, monkeypatch, provenance):
    recorded = record_all(db)
    assert not queries.runs(db).superseded.any()
    versions = {**ALGORITHM_VERSION, "prediction": ALGORITHM_VERSION["prediction"] + 1}
    monkeypatch.setattr("eftcore.specs.ALGORITHM_VERSION", versions)
    theory = make_theory("g_only")
    renewed = replace(theory, spec=eft.PredictionSpec(**theory.spec.model_dump()))
    new = record_prediction(db, renewed, provenance=provenance)
    frame = queries.runs(db).set_index("run_id")
    assert new not in recorded.predictions.values()
    assert set(frame.index[frame.superseded]) == set(recorded.predictions.values())
    assert queries.windows(db).superseded.all()
    assert len(queries.windows(db)) == 18, "nothing is lost"


def test_precision_of_a_simulation_and_its_target(db, make_sample, provenance):
    sample = make_sample()
    targets = [PrecisionTarget(quantity="V4", kind="relative_se", target=0.01, reached=0.02)]
    run_id = record_simulation(db, sample, provenance=provenance, targets=targets, stopped_because="cap")
    frame = queries.precision(db, simulation_run_id=run_id).set_index("quantity")
    last = np.linalg.norm(sample.covariance_se[-1]) / np.linalg.norm(sample.covariance[-1])
    assert frame.relative_se["V4"] == pytest.approx(last, rel=1e-12)
    upper = np.triu_indices(2)
    ratios = [np.linalg.norm(se[upper]) / np.linalg.norm(k[upper]) for se, k in zip(sample.mean_se, sample.mean)]  # noqa: B905
    assert frame.largest_relative_se["K0"] == pytest.approx(max(ratios), rel=1e-12)
    assert (frame.target["V4"], frame.reached["V4"], frame.met["V4"]) == (0.01, 0.02, False)
    assert frame.met.isna()["K0"]
    assert set(frame.stopped_because) == {"cap"}

    again = [PrecisionTarget(quantity="V4", kind="relative_se", target=0.05, reached=0.02)]
    assert record_simulation(db, sample, provenance=provenance, targets=again, stopped_because="met") == run_id
    assert queries.precision(db, met=True).quantity.tolist() == ["V4"]
    assert record_simulation(db, sample, provenance=provenance) == run_id
    assert queries.precision(db, met=True).quantity.tolist() == ["V4"], "recording again forgets nothing"


def test_precision_of_nothing_and_of_what_diverged(db, make_sample, provenance):
    sample = make_sample()
    source, mean_se = np.zeros_like(sample.source), sample.mean_se.copy()
    mean_se[-1] = np.inf
    sample = replace(sample, source=source, mean_se=mean_se)
    frame = queries.precision(db, simulation_run_id=record_simulation(db, sample, provenance=provenance))
    by_quantity = frame.set_index("quantity").relative_se
    assert np.isnan(by_quantity["U1"])
    assert np.isposinf(by_quantity["K0"])
    with db.reading() as session:
        stored = sa.select(SimulationPrecision.relative_se_nonfinite).where(SimulationPrecision.quantity == "U1")
        assert session.scalar(stored) is None, "absent, not a number gone wrong"


@pytest.mark.parametrize(
    ("targets", "stopped"),
    [([("V4", 0.1), ("V4", 0.2)], None), ([("V5", 0.1)], None), ([], "tired")],
)
def test_wrong_targets_are_refused(db, make_sample, provenance, count_rows, targets, stopped):
    made = [PrecisionTarget(quantity=name, kind="relative_se", target=target, reached=1.0) for name, target in targets]
    with pytest.raises(eft.InputError):
        record_simulation(db, make_sample(), provenance=provenance, targets=made, stopped_because=stopped)
    assert count_rows(db)["runs"] == 0


def test_simulation_announced_before_its_shards_are_known(db, make_sample, provenance):
    sample, announced = make_sample(), "f" * 64
    run_id = mark_running(db, sample.spec, holder="me", provenance=provenance, digest=announced, samples=10_000)
    assert record_simulation(db, sample, provenance=provenance, announced=announced) == run_id
    assert _status(db, announced) is None
    assert _status(db, sample.digest) == "succeeded"
    mark_running(db, sample.spec, holder="me", provenance=provenance, digest=announced, samples=10_000)
    assert record_simulation(db, sample, provenance=provenance, announced=announced) == run_id
    assert len(queries.runs(db)) == 1, "the announcement goes when the result is there already"
    with db.reading() as session:
        assert session.scalars(sa.select(Claim)).all() == []
