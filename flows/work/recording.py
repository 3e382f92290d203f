"""Recording stored results in the database; results that are recorded already are left unchanged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from db.schema.rows import study_claim
from db.session import Database
from db.settings import default_url
from db.writing import claims, finished, repository
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

ANNOUNCED_TOGETHER = 500
"""Runs that are marked as pending in one transaction."""

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


@dataclass(frozen=True, slots=True)
class Record:
    """What the database must have of predictions and what they are held against, by the digests of the results.

    Attributes:
        reference: the sample, measurement or better prediction; None where it failed.
        predictions: those that are recorded.
        compared: those of them that are compared with the reference.
    """

    reference: str | None
    predictions: tuple[str, ...]
    compared: tuple[str, ...]

    def digest(self, study: str, database: str, comparisons: Mapping[str, str]) -> str:
        """Identity of the record, from the digests of the study, the address of the database, and the comparisons."""
        what = {"study": study, "predictions": self.predictions, "comparisons": comparisons}
        return digest_of({"database": database, **what, "reference": self.reference})


@dataclass(frozen=True, slots=True)
class Widths:
    """From which width on predictions hold, by the next order of one of them, ``exact``; by their digests."""

    exact: str
    predictions: tuple[str, ...]

    def digest(self, study: str, database: str, tolerances: Sequence[float]) -> str:
        """Identity of the record, as that of Record."""
        what = {"study": study, "widths_by": self.exact, "predictions": self.predictions, "tolerances": tolerances}
        return digest_of({"database": database, **what})


Recorded = Record | Widths
"""What the database must have so that a piece of work counts as recorded."""


@waits
def record(store: ResultStore, *, study: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Record predictions, the references that they are compared with unless those failed, and the comparisons.

    Args:
        store: the store of the results.
        study: the study, as Study.record describes it.
        records: of each configuration ``reference``, the digest of the stored sample or measurement, or of another
            stored prediction, None where it failed; ``simulation``, for a sample, its ``wanted``, the digest of the
            request (Simulation.digest) under which an earlier failure is recorded, and ``precision``, the target
            precision, None for a given number of networks; ``predictions``, their digests; and ``comparisons``, the
            digest of the stored comparison by digest of the prediction.
    """
    results: dict[str, finished.Finished] = {}
    compared = []
    for each in records:
        results |= {digest: _prediction(store, digest) for digest in each["predictions"] if digest not in results}
        reference = each["reference"]
        if reference is not None and reference not in results:
            aim = each["simulation"]
            results[reference] = _reference(store, reference) if aim is None else _sample(store, reference, **aim)
        compared += [
            finished.Compared(
                prediction=prediction, reference=reference, comparison=computations.load_comparison(store, digest)
            )
            for prediction, digest in each["comparisons"].items()
        ]
    with _database() as db:
        study_id = repository.record_study(db, **study)
        finished.record_results(db, list(results.values()), compared, study_id=study_id)


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


def _record_prediction(db: Database, store: ResultStore, digest: str, study_id: int) -> int:
    return finished.record_results(db, [_prediction(store, digest)], study_id=study_id)[digest]


def _prediction(store: ResultStore, digest: str) -> finished.Finished:
    return finished.prediction(*computations.load_theory(store, digest))


def _reference(store: ResultStore, digest: str) -> finished.Finished:
    """A measurement or a prediction."""
    result, provenance = computations.load_reference(store, digest)
    if isinstance(result, MeasuredNextOrder):
        return finished.measurement(result, provenance)
    return _prediction(store, digest)


def _sample(store: ResultStore, digest: str, *, wanted: str, precision: Mapping[str, Any] | None) -> finished.Finished:
    sample, provenance = computations.load_sample(store, digest)
    target = None if precision is None else Precision(**precision)
    details = simulation_details(sample, target)
    return finished.simulation(sample, provenance, details=details, announced=wanted, **_aims(sample, target))


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
def are_recorded(study: str, records: Sequence[Recorded], tolerances: Sequence[float]) -> list[bool]:
    """Whether the database has each of these records for the study (digest).

    Of a record these are the predictions, the reference if there is one, with the quantiles of a simulation, and the
    windows of the compared predictions; of widths the predictions, and from which width on each of them holds.
    """
    wanted = [_results(record) for record in records]
    references = [record.reference for record in records if isinstance(record, Record) and record.reference]
    with _database(read_only=True) as db:
        ids = repository.succeeded_runs(db, study, list({digest for digests in wanted for digest in digests}))
        lacking = repository.lacking_quantiles(db, [ids[digest] for digest in references if digest in ids])
        judged = repository.judged_windows(db, [ids[digest] for digest in references if digest in ids])
        exact = [record.exact for record in records if isinstance(record, Widths)]
        widths = repository.judged_widths(db, [ids[digest] for digest in exact if digest in ids])

    def is_recorded(record: Recorded, digests: Sequence[str]) -> bool:
        if not ids.keys() >= set(digests):
            return False
        if isinstance(record, Widths):
            pairs = itertools.product([ids[record.exact]], (ids[each] for each in record.predictions), tolerances)
            return widths >= set(pairs)
        if record.reference is None:
            return True
        pairs = itertools.product([ids[record.reference]], (ids[each] for each in record.compared), tolerances)
        return ids[record.reference] not in lacking and judged >= set(pairs)

    return [is_recorded(record, digests) for record, digests in zip(records, wanted, strict=True)]


def _results(record: Recorded) -> Sequence[str]:
    """Digests of the runs that a record needs."""
    if isinstance(record, Widths):
        return [record.exact, *record.predictions]
    return [*record.predictions, *([record.reference] if record.reference else [])]


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
        for start in range(0, len(plan.runs), ANNOUNCED_TOGETHER):
            some = plan.runs[start : start + ANNOUNCED_TOGETHER]
            wanted = [repository.Wanted(spec=_spec(what), **_wanted(what)) for what in some]
            repository.mark_all_pending(db, wanted, study_id=study_id)


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
