"""Stored results into the database, idempotently: what is there already stays as it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from db.session import Database
from db.settings import default_url
from db.writing import claims, repository
from eftcore.ensemble import Sample, attained, reached
from eftcore.specs import EnsembleSpec, Precision, PredictionSpec, digest_of
from flows.study.expansion import Simulation, Study
from flows.work import computations
from flows.work.provenance import origin, timed
from flows.work.store import ResultStore
from flows.work.waiting import waits


@waits
def sweep_stale() -> list[int]:
    """Mark the runs as stale whose process is no more, or gave no sign of life; returns their ids."""
    with _database() as db:
        claims.release_dead(db)
        return claims.sweep_stale(db)


@waits
def record_study(study: Mapping[str, Any]) -> int:
    """Record the study itself (name, digest, spec); returns its id in the database."""
    with _database() as db:
        return repository.record_study(db, **study)


def record_digest(
    study: str, *, reference: str | None, predictions: Sequence[str], comparisons: Mapping[str, str]
) -> str:
    """Identity of a record: what is recorded, for which study, in which database."""
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
    """Record predictions and, when it succeeded, the reference that they are compared with.

    Args:
        store: where the results lie.
        study: name, digest and spec.
        reference: digest of the stored sample, or of another stored prediction; None where it failed.
        simulation: of a sample: ``wanted``, Simulation.digest, under which an earlier failure lies, and ``precision``,
            what it aimed at, unless a number of networks was given; None where the reference is a prediction.
        predictions: digests.
        comparisons: digest of the stored comparison, by digest of the prediction.
    """
    with _database() as db:
        study_id = repository.record_study(db, **study)
        recorded = {digest: _record_prediction(db, store, digest, study_id) for digest in predictions}
        if reference is None:
            return
        if simulation is None:
            reference_run_id = _record_prediction(db, store, reference, study_id)
        else:
            reference_run_id = _record_simulation(db, store, reference, study_id, **simulation)
        for prediction, digest in comparisons.items():
            repository.record_comparison(
                db,
                prediction_run_id=recorded[prediction],
                reference_run_id=reference_run_id,
                comparison=computations.load_comparison(store, digest),
            )


def _record_prediction(db: Database, store: ResultStore, digest: str, study_id: int) -> int:
    theory, provenance = computations.load_theory(store, digest)
    return repository.record_prediction(db, theory, provenance=provenance, study_id=study_id)


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
    """What the database keeps of a simulation beside its numbers: precision reached, why it ended, random streams."""
    return {
        "precision_reached": reached(sample),
        "precision_target": None if target is None else target.identity(),
        "stopped": "sample count" if target is None else attained(sample, target).stopped,
        "random_streams": list(sample.streams),
    }


def _aims(sample: Sample, target: Precision | None) -> dict[str, Any]:
    """The same for SQL: columns of the run and of its precision."""
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
    """Whether the study (digest) has these predictions in the database, the reference, unless there is none, and the
    windows of the predictions that were compared with it.
    """
    digests = [*predictions, *([reference] if reference else [])]
    with _database(read_only=True) as db:
        ids = repository.succeeded_runs(db, study, digests)
        if len(ids) < len(set(digests)):
            return False
        if reference is None or not compared:
            return True
        wanted = [ids[digest] for digest in compared]
        judged = repository.judged_windows(db, reference_run_id=ids[reference], prediction_run_ids=wanted)
        return judged >= set(itertools.product(wanted, tolerances))


@waits
def record_failure(study: Mapping[str, Any], what: PredictionSpec | Simulation, cause: str) -> None:
    """Record that a prediction or a simulation failed, and why."""
    with timed() as provenance, _database() as db:
        study_id = repository.record_study(db, **study)
        options: dict[str, Any] = {"provenance": provenance, "study_id": study_id, **_wanted(what)}
        repository.mark_failed(db, _spec(what), error=cause, **options)


@contextmanager
def under_way(plan: Study) -> Iterator[None]:
    """Show a study's runs as pending, and those that are marked running as alive, while the block does its work.

    Claims of processes on this machine that are no more are given up first, so that their runs do not seem alive.
    """
    holder = claims.new_holder()
    with _database() as db, ExitStack() as at_the_end:
        at_the_end.callback(_shared.reset, _shared.set(db))
        at_the_end.callback(_holder.reset, _holder.set(holder))
        _holders.add(holder)
        at_the_end.callback(_holders.discard, holder)
        at_the_end.callback(_give_back, holder)  # the first to be done, which may fail
        sweep_stale()
        _announce(plan, holder)
        with claims.heartbeat(db, holder):
            yield


@waits
def _announce(plan: Study, holder: str) -> None:
    """The study and its runs, and a claim for as long as it is under way, whether or not a run of it is at work."""
    with _database() as db:
        mine = digest_of({"study": plan.digest, "holder": holder})
        claims.claim(db, mine, task=f"study {plan.name}", holder=holder, **origin())
        study_id = repository.record_study(db, **plan.record)
        whole: list[PredictionSpec | Simulation] = [*plan.predictions.values(), *plan.simulations.values()]
        for what in whole:
            repository.mark_pending(db, _spec(what), study_id=study_id, **_wanted(what))


@waits
def _give_back(holder: str) -> None:
    """What a holder has left running was interrupted: it is stale now."""
    with _database() as db:
        claims.release(db, holder)
        claims.sweep_stale(db)


def give_up() -> None:
    """What is under way in this process ends now: its runs are stale."""
    for holder in _holders:
        _give_back(holder)


@waits
def mark_running(study: Mapping[str, Any], what: PredictionSpec | Simulation) -> None:
    """Say that this is being computed now, unless somebody else does. Within ``under_way``."""
    with timed() as provenance, _database() as db:
        options: dict[str, Any] = {"provenance": provenance, "study_id": repository.record_study(db, **study)}
        repository.mark_running(db, _spec(what), holder=_holder.get(), **options, **_wanted(what))


def _spec(what: PredictionSpec | Simulation) -> PredictionSpec | EnsembleSpec:
    return what.spec if isinstance(what, Simulation) else what


def _wanted(what: PredictionSpec | Simulation) -> dict[str, Any]:
    return {"digest": what.digest, "samples": what.networks} if isinstance(what, Simulation) else {}


_shared: ContextVar[Database | None] = ContextVar("database", default=None)
_holder: ContextVar[str] = ContextVar("holder")
_holders: set[str] = set()
"""Of the studies that are under way in this process."""


@contextmanager
def _database(*, read_only: bool = False) -> Iterator[Database]:
    """The database of the study that is under way in this context, or one for this block alone."""
    if (shared := _shared.get()) is not None:
        yield shared
        return
    db = Database(default_url(), read_only=read_only)
    try:
        yield db
    finally:
        db.dispose()
