"""The work of a study as Prefect tasks: predict, simulate shard by shard, merge, compare, record."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prefect import Task

from eftcore.ensemble import Attained, attained, sample_digest
from eftcore.ensemble.sample import Shards
from eftcore.ensemble.shards import SHARD_WORK, next_round
from eftcore.errors import EnvironmentProblem
from eftcore.specs import EnsembleSpec, PredictionSpec
from eftcore.words import spec_name
from flows.orchestration import tasks
from flows.orchestration.dispatch import Dispatcher
from flows.study import sizes
from flows.study.expansion import Simulation, Study
from flows.study.requests import DEFAULT, Resources
from flows.work import computations, recording, superseded
from flows.work.progress import current, stepping
from flows.work.store import ResultStore

SMALL_WORK = SHARD_WORK / 32
"""What a task that simulates nothing counts for in the progress bar."""

_ON_WORKERS = (tasks.predict, tasks.simulate)
"""Tasks that are worth a trip to a worker; the others are short, and done where the flow runs."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Failure:
    """One task that failed: what it was and why."""

    label: str
    cause: str


@dataclass(frozen=True)
class Planned:
    """One task that a run would go through: what it is, its work in neuron-input-layers, whether its result is there.

    ``work`` counts simulation alone. ``at_most`` marks work of which part may turn out not to be needed.
    """

    label: str
    work: float
    cached: bool
    at_most: bool = False


@dataclass
class Summary:
    """What became of a study's tasks. ``skipped`` ones needed the result of a failed one.

    ``superseded`` counts the predictions and simulations that an older version of their algorithm made. ``precision``
    holds what each simulation that aimed at a precision attained, by the ensemble's digest.
    """

    study: str
    cached: int = 0
    computed: int = 0
    skipped: int = 0
    superseded: int = 0
    failures: list[Failure] = field(default_factory=list)
    precision: dict[str, Attained] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.cached} tasks cached, {self.computed} computed"
        if self.failures:
            text += f", {len(self.failures)} failed, {self.skipped} skipped"
        if self.superseded:
            text += f"; {superseded.in_words(self.superseded)}"
        return text


class Execution:
    """One study from start to end; several of its configurations are under way at a time."""

    def __init__(self, plan: Study, store: ResultStore, resources: Resources, dispatcher: Dispatcher | None) -> None:
        self.plan = plan
        self.store = store
        self.resources = resources
        self.dispatcher = dispatcher
        self.summary = Summary(plan.name, superseded=plan.superseded)
        self.predicted: set[str] = set()
        self.started: set[str] = set()
        self.records: list[tuple[str, Callable[[], bool]]] = []
        self.tasks_in_all = 0
        self.counting = threading.Lock()

    def execute(self) -> Summary:
        """Do what is not done; failures are in the summary."""
        plan, simulations = self.plan, self.plan.simulations.values()
        small = len(plan.predictions) + len(plan.comparisons) + 2 * len(simulations)
        small += len(plan.theory_comparisons) + len(plan.references)
        self.tasks_in_all = small + sum(len(item.first_round) for item in simulations)
        work_in_all = sum(_work_of(item.spec, item.first_round) for item in simulations)
        current().start(self.tasks_in_all, small * SMALL_WORK + work_in_all)
        if warning := sizes.warning(plan):
            current().note(lambda: warning)
        with self._under_way():
            predictions = list(plan.predictions)
            done = self._each(self._predict, predictions)
            self.predicted = {digest for digest, succeeded in zip(predictions, done, strict=True) if succeeded}
            self._each(self._against_theory, plan.references)
            self._each(self._configuration, plan.simulations)
            self._require_records()
        summary = self.summary
        attained_in_order = {digest: summary.precision.get(digest) for digest in self.plan.simulations}
        summary.precision = {digest: now for digest, now in attained_in_order.items() if now is not None}
        summary.skipped = self.tasks_in_all - summary.cached - summary.computed - len(summary.failures)
        return summary

    def _require_records(self) -> None:
        """Raise EnvironmentProblem where what was recorded is in the database no more."""
        lost = [label for label, is_there in self.records if not is_there()]
        if lost:
            raise EnvironmentProblem(
                f"study {self.plan.name!r}: {len(lost)} of {len(self.records)} records were deleted from the database"
                f" while it ran ({lost[0]}); what was computed is kept, the same command records it again"
            )

    def _predict(self, digest: str) -> bool:
        spec = self.plan.predictions[digest]
        return self._do(
            tasks.predict,
            f"predict {spec_name(spec)}: {spec.model.activation}, {spec.kernel.label}{_version(spec)}",
            on_start=lambda: self._starts(spec),
            on_failure=lambda cause: recording.record_failure(self.plan.record, spec, cause),
            digest=digest,
            spec=spec.model_dump(mode="json"),
        )

    def _against_theory(self, reference: str) -> bool:
        """Compare one configuration's predictions with its reference, and record them; returns whether they are."""
        spec = self.plan.predictions[reference]
        predictions = [p for p in self.plan.references[reference] if p in self.predicted]
        known = reference in self.predicted
        about = f"{spec.model.activation}, {spec.kernel.label}"
        comparisons = self._compare(reference, f"with {spec_name(spec)}: {about}", predictions) if known else {}
        recordable: dict[str, Any] = {"reference": reference if known else None, "predictions": predictions}
        recordable["comparisons"] = comparisons
        return self._do(
            tasks.record_theory,
            f"record: {about}",
            is_there=lambda: recording.is_theory_recorded(
                self.plan.digest, recordable["reference"], predictions, list(comparisons), self.plan.tolerances
            ),
            digest=recording.record_digest(self.plan.digest, **recordable),
            study=self.plan.record,
            **recordable,
        )

    def _configuration(self, ensemble: str) -> bool:
        """Simulate, compare and record one configuration at one width; returns whether it is recorded."""
        simulation = self.plan.simulations[ensemble]
        predictions = [p for p in self.plan.compared.get(ensemble, ()) if p in self.predicted]
        shards = self._simulate(simulation)
        comparisons = {}
        if shards:
            merged = sample_digest(simulation.spec, shards)
            comparisons = self._compare(merged, f"with the simulation: {_about(simulation.spec)}", predictions)
        return self._record(simulation, shards, predictions, comparisons)

    def _simulate(self, simulation: Simulation) -> Shards:
        """The shards of the merged sample, round by round where a precision is wanted; none after a failure."""
        shards, merged = simulation.first_round, 0
        purpose = "" if simulation.precision is None else f" for {simulation.precision}"
        while self._simulate_round(simulation, shards, merged, purpose):
            more, purpose = self._further(simulation, shards)
            if not more:
                return shards
            tasks_more = len(more) - len(shards) + 1
            with self.counting:
                self.tasks_in_all += tasks_more
            current().extend(tasks_more, SMALL_WORK + _work_of(simulation.spec, more[len(shards) :]))
            shards, merged = more, len(shards)
        return ()

    def _simulate_round(self, simulation: Simulation, shards: Shards, merged: int, purpose: str) -> bool:
        """Simulate all shards but the first ``merged``, and add up all; whether that succeeded.

        The first failure ends it, since the sum is then out of reach.
        """
        spec = simulation.spec
        shared: dict[str, Any] = {
            "spec": spec.model_dump(mode="json"),
            "on_start": lambda: self._starts(simulation),
            "on_failure": lambda cause: recording.record_failure(self.plan.record, simulation, cause),
        }
        failed = threading.Event()
        held = list(shards[:merged])

        def simulated(shard: tuple[int, int]) -> bool:
            index, count = shard
            digest = computations.shard_digest(spec.digest, index, count)
            fresh = not self.store.is_intact(digest)
            succeeded = not failed.is_set() and self._do(
                tasks.simulate,
                f"simulate shard {index + 1} of {len(shards)}{purpose}, {count} networks: {_about(spec)}",
                work=_work_of(spec, (shard,)),
                digest=digest,
                shard=index,
                samples=count,
                device=self.resources.device,
                **shared,
            )
            if not succeeded:
                failed.set()
                return False
            with self.counting:
                held.append(shard)
                sum_of = tuple(held) if len(held).bit_count() == 1 or len(held) == len(shards) else ()
            if fresh and sum_of:
                current().note(lambda: f"{_about(spec)}: {computations.precision_of(self.store, spec, sum_of)}")
            return True

        return all(self._each(simulated, shards[merged:])) and self._do(
            tasks.merge,
            f"merge {len(shards)} shards: {_about(spec)}",
            digest=sample_digest(spec, shards),
            shards=shards,
            **shared,
        )

    def _further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        """All shards of the next round, none where these are enough; and what more of them are for."""
        target = simulation.precision
        if target is None:
            return (), ""
        sample, _ = computations.load_sample(self.store, sample_digest(simulation.spec, shards))
        now = attained(sample, target)
        self.summary.precision[simulation.spec.digest] = now
        return next_round(sample, target), f" for {target}, now {target.shown(now.error)}"

    def _compare(self, reference: str, label: str, predictions: list[str]) -> dict[str, str]:
        """Digest of the comparison by digest of the prediction, of those that succeed."""
        tolerances = list(self.plan.tolerances)
        comparisons = {}
        for prediction in predictions:
            digest = computations.comparison_digest(prediction, reference, tolerances)
            if self._do(
                tasks.compare,
                f"compare {spec_name(self.plan.predictions[prediction])} {label}",
                digest=digest,
                prediction=prediction,
                reference=reference,
                tolerances=tolerances,
            ):
                comparisons[prediction] = digest
        return comparisons

    def _record(
        self, simulation: Simulation, shards: Shards, predictions: list[str], comparisons: dict[str, str]
    ) -> bool:
        spec, target = simulation.spec, simulation.precision
        merged = sample_digest(spec, shards) if shards else None
        recordable: dict[str, Any] = {"merged": merged, "predictions": predictions, "comparisons": comparisons}
        return self._do(
            tasks.record,
            f"record: {_about(spec)}",
            is_there=lambda: recording.is_recorded(
                self.plan.digest, spec, shards, predictions, list(comparisons), self.plan.tolerances
            ),
            digest=recording.record_digest(self.plan.digest, **recordable),
            study=self.plan.record,
            wanted=simulation.digest,
            precision=None if target is None else target.identity(),
            **recordable,
        )

    def _starts(self, what: PredictionSpec | Simulation) -> None:
        """Show it as running, once: another shard must not bring it back after one has failed."""
        with self.counting:
            first = what.digest not in self.started
            self.started.add(what.digest)
        if first:
            recording.mark_running(self.plan.record, what)

    def _under_way(self) -> AbstractContextManager[None]:
        return recording.under_way(self.plan)

    def _each(self, do: Callable[[Item], bool], items: Iterable[Item]) -> list[bool]:
        assert self.dispatcher is not None
        return self.dispatcher.each(do, items)

    def _do(
        self,
        task: Task[..., None],
        label: str,
        *,
        digest: str,
        work: float = SMALL_WORK,
        is_there: Callable[[], bool] | None = None,
        on_start: Callable[[], None] | None = None,
        on_failure: Callable[[str], None] | None = None,
        **inputs: Any,
    ) -> bool:
        """Run a task unless what it made is still there. Returns whether it succeeded.

        Args:
            is_there: for what the database keeps, whether it does; else the store knows.
        """
        assert self.dispatcher is not None
        intact = self.store.is_intact(digest) if is_there is None else is_there()
        if on_start is not None and not intact:
            on_start()
        shown: dict[str, Any] = {"task_run_name": label.replace("{", "{{").replace("}", "}}")}
        with stepping(label, work) as step:
            if intact:
                outcome = self.dispatcher.here(tasks.known(task).with_options(**shown), {"digest": digest})
            else:
                carry_out = self.dispatcher.run if task in _ON_WORKERS else self.dispatcher.here
                named = task.with_options(**shown, timeout_seconds=self.resources.task_timeout)
                outcome = carry_out(named, {"digest": digest, **inputs})
            with self.counting:
                self.summary.cached += outcome.end == "cached"
                self.summary.computed += outcome.end == "computed"
                if outcome.end == "failed":
                    self.summary.failures.append(Failure(label, outcome.cause))
            step.end(outcome.end)
        if outcome.end == "failed" and on_failure is not None:
            on_failure(outcome.cause)
        if outcome.end != "failed" and is_there is not None:
            self.records.append((label, is_there))
        return outcome.end != "failed"


class Planning(Execution):
    """Goes the same way and does nothing on it."""

    def __init__(self, plan: Study, store: ResultStore) -> None:
        super().__init__(plan, store, DEFAULT, None)
        self.tasks: list[Planned] = []

    def _under_way(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _each(self, do: Callable[[Item], bool], items: Iterable[Item]) -> list[bool]:
        return [do(item) for item in items]

    def _do(
        self,
        task: Task[..., None],
        label: str,
        *,
        digest: str,
        work: float = 0.0,
        is_there: Callable[[], bool] | None = None,
        on_start: Callable[[], None] | None = None,
        on_failure: Callable[[str], None] | None = None,
        **inputs: Any,
    ) -> bool:
        there = self.store.is_intact(digest) if is_there is None else is_there()
        self.tasks.append(Planned(label, work, there))
        return True

    def _further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        """As the run goes while its sums are stored; what follows then is known by its cap alone."""
        target, spec = simulation.precision, simulation.spec
        if target is None or self.store.is_intact(sample_digest(spec, shards)):
            return super()._further(simulation, shards)
        rest = simulation.all_shards[len(shards) :]
        if rest:
            networks = sum(count for _, count in rest)
            label = f"simulate at most {len(rest)} more shards for {target}, {networks} networks: {_about(spec)}"
            self.tasks.append(Planned(label, _work_of(spec, rest), cached=False, at_most=True))
        return (), ""


def _about(spec: EnsembleSpec) -> str:
    return f"{spec.model.activation}, width {spec.width}, {spec.kernel.label}{_version(spec)}"


def _version(spec: PredictionSpec | EnsembleSpec) -> str:
    return f", version {spec.version} of the algorithm" if spec.superseded else ""


def _work_of(spec: EnsembleSpec, shards: Shards) -> float:
    networks = sum(count for _, count in shards)
    return float(networks) * spec.model.depth * spec.width * spec.kernel.n_inputs
