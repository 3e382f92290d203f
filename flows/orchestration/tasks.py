"""Prefect tasks: thin functions that are retried and that compute a result only if it is not stored.

Inputs are digests and JSON-able specs, never arrays. Each task's first input is the digest of its result, which does
not depend on the ``device``. Only failures that may be temporary are retried. Tasks return nothing, because Prefect
keeps every result in memory until the flow run ends, which would grow over a long sweep. Prefect does not store results
either: its files may be pickles, so that anybody who can write to the folder could run code here. Whether a result
exists already is decided by our own store and the database.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect import Task, task
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from eftcore.ensemble.engines import resolve_device
from eftcore.specs import EnsembleSpec, MeasurementSpec, PredictionSpec
from eftcore.verdicts.checks import theorem_table
from eftcore.verdicts.theorems import check_theorems
from flows.orchestration import gpu
from flows.study.requests import TheoremRequest
from flows.tables import records
from flows.work import computations, recording
from flows.work.once import compute_missing
from flows.work.provenance import made_by
from flows.work.store import ResultStore, default_store
from flows.work.waiting import may_pass, patient_worker
from flows.work.walk import Kind


def _worth_retrying(task: Any, run: Any, state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    return state.name != "TimedOut" and isinstance(error, BaseException) and may_pass(error)


UNSTORED: dict[str, Any] = {"persist_result": False, "cache_result_in_memory": False}
"""Task options by which Prefect neither stores results nor looks for stored ones, whatever its settings."""

_settings: dict[str, Any] = {
    **UNSTORED,
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(1),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _worth_retrying,
    "task_run_name": "{digest:.12}",
}


def _found(what: str) -> State[None]:
    return Completed(name="Cached", message=f"{what} there already")


def known(kind: Kind) -> Task[..., Any]:
    """A task for results of this kind that are stored already: it does nothing, and Prefect shows it as cached."""
    return Task(fn=_found, name=TASKS[kind].name, **UNSTORED)


def _unless_stored(digest: str, compute: Callable[[ResultStore], None]) -> None:
    """Compute a result unless it is stored, or wait for the process that is computing it now.

    A result that was stored just before a crash is not computed again, although Prefect did not record the task's end.
    """
    store = default_store()
    with patient_worker(), linked():
        failures = compute_missing(store, {digest: lambda: compute(store)})
    for failure in failures.values():
        raise failure


def linked() -> AbstractContextManager[None]:
    """Results made within the block have this task run in their provenance."""
    context = TaskRunContext.get()
    if context is None:
        return nullcontext()
    run = context.task_run
    flow_run_id = None if run.flow_run_id is None else str(run.flow_run_id)
    return made_by(flow_run_id=flow_run_id, task_run_id=str(run.id))


@task(name="predict", **_settings)
def predict(digest: str, spec: dict[str, Any]) -> None:
    """Compute a theory prediction."""
    _unless_stored(digest, lambda store: computations.predict(store, PredictionSpec(**spec)))


@task(name="simulate", **_settings)
def simulate(digest: str, spec: dict[str, Any], shard: int, samples: int, device: str) -> None:
    """Simulate one shard of an ensemble."""
    options: dict[str, Any] = {"shard": shard, "samples": samples, "device": device}

    def compute(store: ResultStore) -> None:
        with gpu.alone(resolve_device(device)):
            computations.simulate(store, EnsembleSpec(**spec), **options)

    _unless_stored(digest, compute)


@task(name="merge", **_settings)
def merge(digest: str, spec: dict[str, Any], shards: list[tuple[int, int]]) -> None:
    """Add up the shards of an ensemble."""
    _unless_stored(digest, lambda store: computations.merge(store, EnsembleSpec(**spec), shards))


@task(name="measure", **_settings)
def measure(digest: str, spec: dict[str, Any]) -> None:
    """Measure the next order in 1/n from simulations of several widths."""
    _unless_stored(digest, lambda store: computations.measure(store, MeasurementSpec(**spec)))


@task(name="compare", **_settings)
def compare(digest: str, prediction: str, reference: str, tolerances: list[float]) -> None:
    """Compare a prediction with a simulation, a measurement or a better prediction."""
    _unless_stored(digest, lambda store: computations.compare(store, prediction, reference, tolerances))


@task(name="record", **_settings)
def record(
    digest: str,
    study: dict[str, Any],
    reference: str | None,
    simulation: dict[str, Any] | None,
    predictions: list[str],
    comparisons: dict[str, str],
) -> None:
    """Record predictions, their reference and the comparisons in the database."""
    results = {"predictions": predictions, "comparisons": comparisons, "reference": reference, "simulation": simulation}
    recording.record(default_store(), study=study, records=[results])


@task(name="record widths", **_settings)
def record_widths(
    digest: str, study: dict[str, Any], exact: str, predictions: list[str], tolerances: list[float]
) -> None:
    """Record from which width on predictions hold, by the next order in 1/n of one of them."""
    recording.record_widths(default_store(), study=study, exact=exact, predictions=predictions, tolerances=tolerances)


TASKS: dict[Kind, Task[..., None]] = {
    "predict": predict,
    "simulate": simulate,
    "merge": merge,
    "measure": measure,
    "compare": compare,
    "record": record,
    "widths": record_widths,
}


@task(name="verify", task_run_name="five exact statements", **UNSTORED)
def verify(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Check the exact statements on one network; records with name, statistic, law, p_value, bound, level, passed."""
    wanted = TheoremRequest(**request)
    options = {"width": wanted.width, "samples": wanted.samples, "seed": wanted.seed}
    return records(theorem_table(check_theorems(wanted.model(), wanted.kernel(), **options)))
