"""Recording stored results in the database; results that are recorded already are left unchanged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from db.schema.rows import study_claim
from db.session import Database
from db.settings import default_url
from db.writing import claims, repository
from eftcore.ensemble import Sample, attained, reached
from eftcore.ensemble.next_order import MeasuredNextOrder
from eftcore.identity import digest_of
from eftcore.precision import Precision
from eftcore.specs import AnySpec, MeasurementSpec, PredictionSpec
from eftcore.verdicts.widths import widths_of
from flows.study.expansion import Simulation, Study
from flows.work import computations
from flows.work.provenance import origin, timed
from flows.work.store import ResultStore
from flows.work.waiting import waits

Asked = PredictionSpec | Simulation | MeasurementSpec
"""What a run of a study is asked to compute."""


@waits
def sweep_stale() -> list[int]:
    """Mark as stale the runs whose process has ended or no longer renews its claim; returns their ids."""
    with _database() as db:
        claims.release_dead(db)
        return claims.sweep_stale(db)


@waits
def record_study(study: Mapping[str, Any]) -> int:
    """Record the study itself, as Study.record describes it; returns its id in the database."""
    with _database() as db:
        return repository.record_study(db, **study)


def record_digest(
    study: str, *, reference: str | None, predictions: Sequence[str], comparisons: Mapping[str, str]
) -> str:
    """Identity of a record: digests of the recorded results, of the study, and the address of the database."""
    what = {"study": study, "predictions": list(predictions), "comparisons": dict(comparisons), "reference": reference}
    return digest_of({"database": digest_of(default_url()), **what})


@waits
def record(
    store: ResultStore,
    *,
    study: Mapping[str, Any],
    reference: str | None,
    simulation: Mapping[str, Any] | None,
    predictions: Sequence[str],
    comparisons: Mapping[str, str],
) -> None:
    """Record predictions, the reference that they are compared with unless it failed, and the comparisons.

    Args:
        store: the store of the results.
        study: the study, as Study.record describes it.
        reference: digest of the stored sample or measurement, or of another stored prediction; None where it failed.
        simulation: for a sample, ``wanted``, the digest of the request (Simulation.digest) under which an earlier
            failure is recorded, and ``precision``, the target precision, None for a given number of networks. None
            where the reference is no sample.
        predictions: digests of the predictions.
        comparisons: digest of the stored comparison by digest of the prediction.
    """
    with _database() as db:
        study_id = repository.record_study(db, **study)
        recorded = {digest: _record_prediction(db, store, digest, study_id) for digest in predictions}
        if reference is None:
            return
        if simulation is None:
            reference_run_id = _record_reference(db, store, reference, study_id)
        else:
            reference_run_id = _record_simulation(db, store, reference, study_id, **simulation)
        for prediction, digest in comparisons.items():
            repository.record_comparison(
                db,
                prediction_run_id=recorded[prediction],
                reference_run_id=reference_run_id,
                comparison=computations.load_comparison(store, digest),
            )


def widths_digest(study: str, *, exact: str, predictions: Sequence[str], tolerances: Sequence[float]) -> str:
    """Identity of a record of widths, as record_digest."""
    what = {"study": study, "widths_by": exact, "predictions": list(predictions), "tolerances": list(tolerances)}
    return digest_of({"database": digest_of(default_url()), **what})


@waits
def record_widths(
    store: ResultStore, *, study: Mapping[str, Any], exact: str, predictions: Sequence[str], tolerances: Sequence[float]
) -> None:
    """Record predictions, and from which width on each of them holds.

    Args:
        exact: digest of the prediction of the next order from which this follows.
        predictions: digests of the predictions of the same network to be judged.
    """
    reference, _ = computations.load_theory(store, exact)
    with _database() as db:
        study_id = repository.record_study(db, **study)
        reference_run_id = _record_prediction(db, store, exact, study_id)
        for digest in predictions:
            widths = widths_of(computations.load_theory(store, digest)[0], reference, tolerances)
            run_id = _record_prediction(db, store, digest, study_id)
            repository.record_widths(db, prediction_run_id=run_id, reference_run_id=reference_run_id, widths=widths)


@waits
def has_widths(study: str, *, exact: str, predictions: Sequence[str], tolerances: Sequence[float]) -> bool:
    """Whether the database has these predictions for the study (digest), and their widths."""
    with _database(read_only=True) as db:
        ids = repository.succeeded_runs(db, study, [exact, *predictions])
        if not {exact, *predictions} <= set(ids):
            return False
        wanted = [ids[digest] for digest in predictions]
        judged = repository.judged_widths(db, reference_run_id=ids[exact], prediction_run_ids=wanted)
        return judged >= set(itertools.product(wanted, tolerances))


def _record_prediction(db: Database, store: ResultStore, digest: str, study_id: int) -> int:
    theory, provenance = computations.load_theory(store, digest)
    return repository.record_prediction(db, theory, provenance=provenance, study_id=study_id)


def _record_reference(db: Database, store: ResultStore, digest: str, study_id: int) -> int:
    """Record a measurement or a prediction."""
    result, provenance = computations.load_reference(store, digest)
    if isinstance(result, MeasuredNextOrder):
        return repository.record_measurement(db, result, provenance=provenance, study_id=study_id)
    return _record_prediction(db, store, digest, study_id)


def _record_simulation(
    db: Database, store: ResultStore, digest: str, study_id: int, *, wanted: str, precision: Mapping[str, Any] | None
) -> int:
    sample, provenance = computations.load_sample(store, digest)
    target = None if precision is None else Precision(**precision)
    return repository.record_simulation(
        db,
        sample,
        provenance=provenance,
        study_id=study_id,
        details=simulation_details(sample, target),
        announced=wanted,
        **_aims(sample, target),
    )


def simulation_details(sample: Sample, target: Precision | None) -> dict[str, Any]:
    """Further facts about a simulation for the database: precision reached, why it ended, random streams."""
    return {
        "precision_reached": reached(sample),
        "precision_target": None if target is None else target.identity(),
        "stopped": "sample count" if target is None else attained(sample, target).stopped,
        "random_streams": list(sample.streams),
    }


def _aims(sample: Sample, target: Precision | None) -> dict[str, Any]:
    """Target precision and why the simulation ended, as arguments of record_simulation."""
    if target is None:
        return {"stopped_because": "count"}
    now = attained(sample, target)
    kind = "relative" if target.absolute is None else "absolute"
    aim = repository.PrecisionTarget(quantity=target.quantity, kind=kind, target=target.bound, reached=now.error)
    return {"stopped_because": "met" if now.met else "cap", "targets": [aim]}


@waits
def is_recorded(
    study: str,
    reference: str | None,
    predictions: Sequence[str],
    compared: Sequence[str],
    tolerances: Sequence[float],
) -> bool:
    """Whether the database has these results for the study (digest).

    These are the predictions, the reference if there is one, with the quantiles of a simulation, and the windows of the
    ``compared`` predictions.
    """
    digests = [*predictions, *([reference] if reference else [])]
    with _database(read_only=True) as db:
        ids = repository.succeeded_runs(db, study, digests)
        if len(ids) < len(set(digests)):
            return False
        if reference is not None and repository.lacks_quantiles(db, ids[reference]):
            return False
        if reference is None or not compared:
            return True
        wanted = [ids[digest] for digest in compared]
        judged = repository.judged_windows(db, reference_run_id=ids[reference], prediction_run_ids=wanted)
        return judged >= set(itertools.product(wanted, tolerances))


@waits
def record_failure(study: Mapping[str, Any], what: Asked, cause: str) -> None:
    """Record that a run failed, and why."""
    with timed() as provenance, _database() as db:
        study_id = repository.record_study(db, **study)
        options: dict[str, Any] = {"provenance": provenance, "study_id": study_id, **_wanted(what)}
        repository.mark_failed(db, _spec(what), error=cause, **options)


@contextmanager
def under_way(plan: Study) -> Iterator[None]:
    """While the block runs, mark the study's runs as pending and renew the claims of those that are running.

    Claims of processes of this machine that have ended are given up first, so that their runs do not appear alive.
    """
    holder = claims.new_holder()
    with _database() as db, ExitStack() as at_the_end:
        at_the_end.callback(_shared.reset, _shared.set(db))
        at_the_end.callback(_holder.reset, _holder.set(holder))
        _holders.add(holder)
        at_the_end.callback(_holders.discard, holder)
        at_the_end.callback(_give_back, holder)  # called first at the end; it may fail
        sweep_stale()
        _announce(plan, holder)
        with claims.heartbeat(db, holder):
            yield


@waits
def _announce(plan: Study, holder: str) -> None:
    """Record the study and its runs, and claim the study for as long as it is executed."""
    with _database() as db:
        claims.claim(db, study_claim(plan.digest, holder), task=f"study {plan.name}", holder=holder, **origin())
        study_id = repository.record_study(db, **plan.record)
        for what in plan.runs:
            repository.mark_pending(db, _spec(what), study_id=study_id, **_wanted(what))


@waits
def _give_back(holder: str) -> None:
    """Give up the claims of a holder; its runs that are still marked running were interrupted and become stale."""
    with _database() as db:
        claims.release(db, holder)
        claims.sweep_stale(db)


def give_up() -> None:
    """Mark the runs of all studies in this process as stale, because the process ends now."""
    for holder in _holders:
        _give_back(holder)


@waits
def mark_running(study: Mapping[str, Any], what: Asked) -> None:
    """Mark a run as running, unless another process computes it. Call it within ``under_way``."""
    with timed() as provenance, _database() as db:
        options: dict[str, Any] = {"provenance": provenance, "study_id": repository.record_study(db, **study)}
        repository.mark_running(db, _spec(what), holder=_holder.get(), **options, **_wanted(what))


def _spec(what: Asked) -> AnySpec:
    return what.spec if isinstance(what, Simulation) else what


def _wanted(what: Asked) -> dict[str, Any]:
    return {"digest": what.digest, "samples": what.networks} if isinstance(what, Simulation) else {}


_shared: ContextVar[Database | None] = ContextVar("database", default=None)
_holder: ContextVar[str] = ContextVar("holder")
_holders: set[str] = set()
"""Holders of the claims of the studies that are executed in this process."""


@contextmanager
def _database(*, read_only: bool = False) -> Iterator[Database]:
    """The open database of the study that is executed in this context, or one opened for this block alone."""
    if (shared := _shared.get()) is not None:
        yield shared
        return
    db = Database(default_url(), read_only=read_only)
    try:
        yield db
    finally:
        db.dispose()
