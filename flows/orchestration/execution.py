"""Executing a study's nodes as Prefect tasks: small ones together, large ones by themselves, stored ones as cached."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.settings import default_url
from eftcore.ensemble import Attained
from eftcore.ensemble.sample import Shards
from eftcore.ensemble.shards import SHARD_WORK
from eftcore.errors import EnvironmentProblem
from eftcore.specs import EnsembleSpec, PredictionSpec
from flows.orchestration import groups, tasks
from flows.orchestration.dispatch import Dispatcher, Outcome
from flows.study import sizes
from flows.study.expansion import Study
from flows.study.requests import Resources
from flows.work import computations, costs, recording, superseded
from flows.work.listing import Listing
from flows.work.progress import current, stepping
from flows.work.store import ResultStore
from flows.work.walk import Item, Kind, Node, Walk, about_ensemble

SMALL_WORK = SHARD_WORK / 32
"""Neuron updates that a task without simulation counts as in the progress bar."""

ON_WORKERS: tuple[Kind, ...] = ("predict", "simulate")
"""Kinds of work that are done on workers; others are too short for it, unless many of them are done together."""

RECORDING: tuple[Kind, ...] = ("record", "widths")
"""Kinds of work that write to the database. Workers do them where it is a server, which lets many write at once."""


@dataclass(frozen=True)
class Failure:
    """One piece of work that failed: its label and the reason."""

    label: str
    cause: str


@dataclass
class Summary:
    """The outcomes of the pieces of a study's work, which are called tasks, though small ones share a task of Prefect.

    ``skipped`` counts those that needed the result of a failed one. ``superseded`` counts predictions and simulations
    made by an older version of their algorithm. ``precision`` holds what each simulation with a target precision
    attained, by the digest of its ensemble.
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


class Execution(Walk):
    """The execution of one study; several of its configurations are computed at a time."""

    def __init__(self, plan: Study, store: ResultStore, resources: Resources, dispatcher: Dispatcher) -> None:
        super().__init__(plan, store, resources.device)
        self._resources = resources
        self._dispatcher = dispatcher
        self._summary = Summary(plan.name, superseded=plan.superseded)
        self._alone_records = resources.runner == "threads" or default_url().startswith("sqlite")
        self._started: set[str] = set()
        self._records: list[tuple[str, recording.Recorded]] = []
        self._tasks_in_all = 0
        self._counting = threading.Lock()

    def execute(self) -> Summary:
        """Do everything whose result is missing; returns the summary, which lists failures."""
        plan = self.plan
        self._start()
        if warning := sizes.warning(plan):
            current().note(lambda: warning)
        with recording.under_way(plan):
            self.go()
            self._require_records()
        summary = self._summary
        summary.precision = {digest: self.attained[digest] for digest in plan.simulations if digest in self.attained}
        summary.skipped = self._tasks_in_all - summary.cached - summary.computed - len(summary.failures)
        return summary

    def _start(self) -> None:
        """Count what is known to be done."""
        work = 0.0

        def count(nodes: Sequence[Node]) -> None:
            nonlocal work
            self._tasks_in_all += len(nodes)
            work += _work(nodes)

        Listing(self.plan, self.store, count).go()
        current().start(self._tasks_in_all, work)

    def each(self, do: Callable[[Item], Any], items: Iterable[Item]) -> list[Any]:
        wanted = list(items)
        return self._dispatcher.each(do, wanted) if len(wanted) > 1 else [do(item) for item in wanted]

    def extended(self, nodes: int, work: float) -> None:
        with self._counting:
            self._tasks_in_all += nodes
        current().extend(nodes, SMALL_WORK + work)

    def simulated(self, spec: EnsembleSpec, shards: Shards) -> None:
        current().note(lambda: f"{about_ensemble(spec)}: {computations.precision_of(self.store, spec, shards)}")

    def perform(self, nodes: Sequence[Node]) -> list[bool]:
        """Do what is not stored, small pieces together; returns for each node whether its result is there now."""
        succeeded = self.are_done(nodes)
        there = [node for node, done in zip(nodes, succeeded, strict=True) if done]
        if there:
            self._found(there)
        missing = [number for number, done in enumerate(succeeded) if not done]
        if missing and nodes[missing[0]].kind == "predict":
            missing.sort(key=lambda number: _alike(nodes[number]))
        batches = list(costs.batched(missing, lambda number: nodes[number].seconds))
        made = self.each(lambda batch: self._compute([nodes[number] for number in batch]), batches)
        for batch, ends in zip(batches, made, strict=True):
            for number, succeeds in zip(batch, ends, strict=True):
                succeeded[number] = succeeds
        with self._counting:
            self._records += [
                (node.label, node.recorded)
                for node, succeeds in zip(nodes, succeeded, strict=True)
                if succeeds and node.recorded is not None
            ]
        return succeeded

    def _found(self, nodes: Sequence[Node]) -> None:
        """Show results that are stored as cached."""
        label, kind = _label(nodes), nodes[0].kind
        what = f"{nodes[0].digest} is" if len(nodes) == 1 else f"{len(nodes)} results are"
        with stepping(label, _work(nodes), len(nodes)) as step:
            self._dispatcher.here(tasks.known(kind).with_options(**_shown(label)), {"what": what})
            self._count(nodes, [Outcome("cached")] * len(nodes))
            step.end({"cached": len(nodes)})

    def _compute(self, nodes: Sequence[Node]) -> list[bool]:
        """Compute results that are missing; returns for each whether it is there now."""
        if len(nodes) == 1:
            return [self._compute_alone(nodes[0])]
        ends = self._compute_together(nodes)
        return [
            self._compute_alone(node) if end.end == "again" else end.end == "computed"
            for node, end in zip(nodes, ends, strict=True)
        ]

    def _compute_alone(self, node: Node) -> bool:
        if node.run is not None:
            self._starts(node.run)
        with stepping(node.label, _work([node])) as step:
            carry_out = self._dispatcher.run if node.kind in ON_WORKERS else self._dispatcher.here
            named = tasks.TASKS[node.kind].with_options(
                **_shown(node.label), timeout_seconds=self._resources.task_timeout
            )
            outcome = carry_out(named, {"digest": node.digest, **node.inputs, **self._shared(node.kind)})
            self._count([node], [outcome])
            step.end({outcome.end: 1})
        return outcome.end != "failed"

    def _compute_together(self, nodes: Sequence[Node]) -> Sequence[groups.End]:
        """Compute in one task; what ended "again" is not counted yet."""
        label, kind = _label(nodes), nodes[0].kind
        with stepping(label, _work(nodes), len(nodes)) as step:
            inputs = {
                "kind": kind,
                "pieces": [{"digest": node.digest, **node.inputs} for node in nodes],
                "shared": self._shared(kind),
                "seconds": self._resources.task_timeout,
            }
            named = groups.together.with_options(name=tasks.TASKS[kind].name, **_shown(label))
            known = self._dispatcher.together(named, inputs, here=kind in RECORDING and self._alone_records)
            ends = known or [groups.End("computed" if done else "again") for done in self.are_done(nodes)]
            certain = [(node, end) for node, end in zip(nodes, ends, strict=True) if end.end != "again"]
            self._count([node for node, _ in certain], [Outcome(end.end, end.cause) for _, end in certain])  # type: ignore[arg-type]
            step.end(Counter(end.end for _, end in certain))
        return ends

    def _shared(self, kind: Kind) -> dict[str, Any]:
        """The arguments that all pieces of a kind have in common."""
        return {"study": self.plan.record} if kind in RECORDING else {}

    def _count(self, nodes: Sequence[Node], outcomes: Sequence[Outcome]) -> None:
        """Count outcomes, and record failures."""
        failed = [
            (node, outcome.cause) for node, outcome in zip(nodes, outcomes, strict=True) if outcome.end == "failed"
        ]
        counts = Counter(outcome.end for outcome in outcomes)
        with self._counting:
            self._summary.cached += counts["cached"]
            self._summary.computed += counts["computed"]
            self._summary.failures += [Failure(node.label, cause) for node, cause in failed]
        for node, cause in failed:
            if node.run is not None:
                recording.record_failure(self.plan.record, node.run, cause)

    def _starts(self, run: recording.Asked) -> None:
        """Mark a run as running in the database, only once: a later shard must not do so after one has failed.

        Runs of small pieces that are computed together stay pending until they are recorded.
        """
        with self._counting:
            first = run.digest not in self._started
            self._started.add(run.digest)
        if first:
            recording.mark_running(self.plan.record, run)

    def _require_records(self) -> None:
        """Raise EnvironmentProblem where recorded results have disappeared from the database."""
        lost = []
        for some in costs.batched(self._records, lambda _: 0.0):
            there = recording.are_recorded(self.plan.digest, [record for _, record in some], self.plan.tolerances)
            lost += [label for (label, _), done in zip(some, there, strict=True) if not done]
        if lost:
            raise EnvironmentProblem(
                f"{len(lost)} of {len(self._records)} records were deleted from the database while it ran ({lost[0]})",
                place="study",
                value=self.plan.name,
                remedy="what was computed is kept, the same command records it again",
            )


def _label(nodes: Sequence[Node]) -> str:
    return nodes[0].label if len(nodes) == 1 else f"{nodes[0].label} and {len(nodes) - 1} more"


def _shown(label: str) -> dict[str, Any]:
    """Options of a task that Prefect shows under this label."""
    return {"task_run_name": label.replace("{", "{{").replace("}", "}}")}


def _work(nodes: Sequence[Node]) -> float:
    """Neuron updates that nodes count as in the progress bar."""
    return sum(node.work or SMALL_WORK for node in nodes)


def _alike(node: Node) -> tuple[Any, ...]:
    """Predictions that can be computed together have the same."""
    assert isinstance(node.spec, PredictionSpec)
    return computations.alike(node.spec)
