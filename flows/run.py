"""The flow that runs a study: predict, simulate shard by shard, merge, compare, record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prefect import Task, flow

from eftcore.ensemble import Attained, attained, sample_digest
from eftcore.ensemble.sample import Shards
from eftcore.ensemble.shards import SHARD_WORK, next_round
from eftcore.errors import EftError
from eftcore.specs import EnsembleSpec
from flows import recording, tasks, work
from flows.progress import current
from flows.store import ResultStore, default_store
from flows.study import Simulation, Study, find_study, load_study

SMALL_WORK = SHARD_WORK / 32
"""What a task that simulates nothing counts for in the progress bar."""


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

    ``precision`` holds what each simulation that aimed at a precision attained, by its label.
    """

    study: str
    cached: int = 0
    computed: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    precision: dict[str, Attained] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.cached} tasks cached, {self.computed} computed"
        if self.failures:
            text += f", {len(self.failures)} failed, {self.skipped} skipped"
        return text


class StudyFailed(EftError):
    """Some tasks of a study failed; the others are finished and recorded."""

    def __init__(self, summary: Summary) -> None:
        super().__init__(f"study {summary.study!r}: {summary}")
        self.summary = summary


@flow(name="run-study", flow_run_name="{study}", persist_result=False)
def run_study(study: str, device: str = "auto") -> Summary:
    """Run a study, given by bundled name or path, into the database that EFT_DATABASE_URL names.

    Raises:
        InputError: the study file is wrong; nothing ran.
        StudyFailed: some tasks failed, after retries where those could help.
    """
    plan = load_study(find_study(study))
    run = _Run(plan, default_store(), device)
    run.execute()
    if run.summary.failures:
        raise StudyFailed(run.summary)
    return run.summary


def plan_study(study: str) -> list[Planned]:
    """The tasks of a study in the order in which ``run_study`` takes them; computes nothing.

    Raises InputError when the study file is wrong.
    """
    listing = _Listing(load_study(find_study(study)), default_store(), "auto")
    listing.execute()
    return listing.tasks


class _Run:
    def __init__(self, plan: Study, store: ResultStore, device: str) -> None:
        self.plan = plan
        self.store = store
        self.device = device
        self.summary = Summary(plan.name)
        self.tasks_in_all = 0

    def execute(self) -> None:
        simulations = self.plan.simulations.values()
        small = len(self.plan.predictions) + len(self.plan.comparisons) + 2 * len(simulations)
        self.tasks_in_all = small + sum(len(item.first_round) for item in simulations)
        work_in_all = sum(_work_of(item.spec, item.first_round) for item in simulations)
        current().start(self.tasks_in_all, small * SMALL_WORK + work_in_all)
        predicted = {digest for digest in self.plan.predictions if self._predict(digest)}
        for ensemble, simulation in self.plan.simulations.items():
            predictions = [p for p, other in self.plan.comparisons if other == ensemble and p in predicted]
            shards = self._simulate(simulation)
            comparisons = self._compare(simulation, shards, predictions) if shards else {}
            self._record(simulation, shards, predictions, comparisons)
        summary = self.summary
        summary.skipped = self.tasks_in_all - summary.cached - summary.computed - len(summary.failures)

    def _predict(self, digest: str) -> bool:
        spec = self.plan.predictions[digest]
        order = "" if spec.order is None else f" order {spec.order}"
        return self._do(
            tasks.predict,
            f"predict {spec.closure}{order}: {spec.model.activation}, {spec.kernel.label}",
            on_failure=lambda cause: recording.record_failure(self.plan.record, spec, cause),
            digest=digest,
            spec=spec.model_dump(mode="json"),
        )

    def _simulate(self, simulation: Simulation) -> Shards:
        """The shards of the merged sample, round by round where a precision is wanted; none after a failure."""
        shards, merged = simulation.first_round, 0
        purpose = "" if simulation.precision is None else f" for {simulation.precision}"
        while self._simulate_round(simulation, shards, merged, purpose):
            more, purpose = self._further(simulation, shards)
            if not more:
                return shards
            tasks_more = len(more) - len(shards) + 1
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
            "on_failure": lambda cause: recording.record_failure(self.plan.record, simulation, cause),
        }
        return all(
            self._do(
                tasks.simulate,
                f"simulate shard {index + 1} of {len(shards)}{purpose}, {count} networks: {_about(spec)}",
                work=_work_of(spec, ((index, count),)),
                digest=work.shard_digest(spec.digest, index, count),
                shard=index,
                samples=count,
                device=self.device,
                **shared,
            )
            for index, count in shards[merged:]
        ) and self._do(
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
        sample, _ = work.load_sample(self.store, sample_digest(simulation.spec, shards))
        now = attained(sample, target)
        self.summary.precision[_about(simulation.spec)] = now
        return next_round(sample, target), f" for {target}, now {target.shown(now.error)}"

    def _compare(self, simulation: Simulation, shards: Shards, predictions: list[str]) -> dict[str, str]:
        """Digest of the comparison by digest of the prediction, of those that succeed."""
        merged = sample_digest(simulation.spec, shards)
        tolerances = list(self.plan.tolerances)
        comparisons = {}
        for prediction in predictions:
            digest = work.comparison_digest(prediction, merged, tolerances)
            if self._do(
                tasks.compare,
                f"compare {self.plan.predictions[prediction].closure}: {_about(simulation.spec)}",
                digest=digest,
                prediction=prediction,
                merged=merged,
                tolerances=tolerances,
            ):
                comparisons[prediction] = digest
        return comparisons

    def _record(
        self, simulation: Simulation, shards: Shards, predictions: list[str], comparisons: dict[str, str]
    ) -> None:
        spec, target = simulation.spec, simulation.precision
        merged = sample_digest(spec, shards) if shards else None
        recordable: dict[str, Any] = {"merged": merged, "predictions": predictions, "comparisons": comparisons}
        self._do(
            tasks.record,
            f"record: {_about(spec)}",
            intact=recording.is_recorded(spec, shards, predictions, list(comparisons), self.plan.tolerances),
            digest=recording.record_digest(self.plan.digest, **recordable),
            study=self.plan.record,
            wanted=simulation.digest,
            precision=None if target is None else target.identity(),
            **recordable,
        )

    def _do(
        self,
        task: Task[..., str],
        label: str,
        *,
        digest: str,
        work: float = SMALL_WORK,
        intact: bool | None = None,
        on_failure: Callable[[str], None] | None = None,
        **inputs: Any,
    ) -> bool:
        """Run a task, or take its cached result if what it made is still there. Returns whether it succeeded."""
        reporter = current()
        reporter.begin(label, work)
        if intact is None:
            intact = self.store.is_intact(digest)
        state = task.with_options(refresh_cache=not intact)(digest=digest, **inputs, return_state=True)
        if state.is_completed():
            cached = state.name == "Cached"
            self.summary.cached += cached
            self.summary.computed += not cached
            reporter.end("cached" if cached else "computed")
            return True
        error = state.result(raise_on_failure=False)
        if _was_interrupted(error):
            raise KeyboardInterrupt
        cause = str(error) if isinstance(error, EftError) else f"{type(error).__name__}: {error}"
        self.summary.failures.append(Failure(label, cause))
        reporter.end("failed")
        if on_failure is not None:
            on_failure(cause)
        return False


class _Listing(_Run):
    """Goes the same way and does nothing on it."""

    def __init__(self, plan: Study, store: ResultStore, device: str) -> None:
        super().__init__(plan, store, device)
        self.tasks: list[Planned] = []

    def _do(
        self,
        task: Task[..., str],
        label: str,
        *,
        digest: str,
        work: float = 0.0,
        intact: bool | None = None,
        on_failure: Callable[[str], None] | None = None,
        **inputs: Any,
    ) -> bool:
        there = self.store.is_intact(digest) if intact is None else intact
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


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it; compiled code wraps what reaches it in an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _about(spec: EnsembleSpec) -> str:
    return f"{spec.model.activation}, width {spec.width}, {spec.kernel.label}"


def _work_of(spec: EnsembleSpec, shards: Shards) -> float:
    networks = sum(count for _, count in shards)
    return float(networks) * spec.model.depth * spec.width * spec.kernel.n_inputs
