"""Stored results into the database, idempotently: what is there already stays as it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from db import queries, repository
from db.session import Database, default_url
from eftcore.ensemble import Sample, attained, reached, sample_digest
from eftcore.specs import EnsembleSpec, Precision, PredictionSpec, digest_of
from flows import work
from flows.provenance import timed
from flows.store import ResultStore
from flows.study import Simulation


def record_study(study: Mapping[str, Any]) -> int:
    """Record the study itself (name, digest, spec); returns its id in the database."""
    with _database() as db:
        return repository.record_study(db, **study)


def record_digest(study: str, *, merged: str | None, predictions: Sequence[str], comparisons: Mapping[str, str]) -> str:
    """Identity of a record: what is recorded, for which study, in which database."""
    what = {"study": study, "merged": merged, "predictions": list(predictions), "comparisons": dict(comparisons)}
    return digest_of({"database": digest_of(default_url()), **what})


def record(
    store: ResultStore,
    *,
    study: Mapping[str, Any],
    merged: str | None,
    wanted: str,
    precision: Precision | None,
    predictions: Sequence[str],
    comparisons: Mapping[str, str],
) -> None:
    """Record predictions and, when it succeeded, the simulation that they are compared with.

    Args:
        store: where the results lie.
        study: name, digest and spec.
        merged: digest of the stored sample.
        wanted: Simulation.digest, under which an earlier failure lies.
        precision: what the simulation aimed at, unless a number of networks was given.
        predictions: digests.
        comparisons: digest of the stored comparison, by digest of the prediction.
    """
    with _database() as db:
        study_id = repository.record_study(db, **study)
        predicted = {}
        for digest in predictions:
            theory, provenance = work.load_theory(store, digest)
            predicted[digest] = repository.record_prediction(db, theory, provenance=provenance, study_id=study_id)
        if merged is None:
            return
        sample, provenance = work.load_sample(store, merged)
        simulated = repository.record_simulation(
            db,
            sample,
            provenance=provenance,
            study_id=study_id,
            details=simulation_details(sample, precision),
            announced=wanted,
        )
        for prediction, digest in comparisons.items():
            repository.record_comparison(
                db,
                prediction_run_id=predicted[prediction],
                simulation_run_id=simulated,
                comparison=work.load_comparison(store, digest),
            )


def simulation_details(sample: Sample, target: Precision | None) -> dict[str, Any]:
    """What the database keeps of a simulation beside its numbers: precision reached, why it ended, random streams."""
    return {
        "precision_reached": reached(sample),
        "precision_target": None if target is None else target.identity(),
        "stopped": "sample count" if target is None else attained(sample, target).stopped,
        "random_streams": list(sample.streams),
    }


def is_recorded(
    spec: EnsembleSpec,
    shards: Sequence[tuple[int, int]],
    predictions: Sequence[str],
    compared: Sequence[str],
    tolerances: Sequence[float],
) -> bool:
    """Whether the database holds these predictions and, unless there are no shards, this simulation and the windows
    of the predictions that were compared with it."""
    with _database(read_only=True) as db:
        digests = [*predictions, *([sample_digest(spec, shards)] if shards else [])]
        runs = {digest: repository.find_run(db, digest) for digest in digests}
        if any(run is None or run.status != "succeeded" for run in runs.values()):
            return False
        ids = {digest: run.id for digest, run in runs.items() if run is not None}
        if not shards or not compared:
            return True
        wanted = [ids[digest] for digest in compared]
        frame = queries.windows(db, simulation_run_id=ids[digests[-1]], prediction_run_id=wanted)
        found = set(zip(frame["prediction_run_id"], frame["tolerance"], strict=True))
        return found >= set(itertools.product(wanted, tolerances))


def record_failure(study: Mapping[str, Any], what: PredictionSpec | Simulation, cause: str) -> None:
    """Record that a prediction or a simulation failed, and why."""
    simulated: dict[str, Any] = {}
    if isinstance(what, Simulation):
        simulated = {"digest": what.digest, "samples": what.networks}
    spec = what.spec if isinstance(what, Simulation) else what
    with timed() as provenance:
        pass
    with _database() as db:
        study_id = repository.record_study(db, **study)
        repository.mark_failed(db, spec, error=cause, provenance=provenance, study_id=study_id, **simulated)


@contextmanager
def _database(*, read_only: bool = False) -> Iterator[Database]:
    db = Database(default_url(), read_only=read_only)
    try:
        yield db
    finally:
        db.dispose()
