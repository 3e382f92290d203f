"""Executing a study's task nodes as Prefect tasks. A task whose result is stored is shown as cached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from prefect import Task

from eftcore.ensemble import Attained
from eftcore.ensemble.sample import Shards
from eftcore.ensemble.shards import SHARD_WORK
from eftcore.errors import EnvironmentProblem
from eftcore.specs import EnsembleSpec
from flows.orchestration import tasks
from flows.orchestration.dispatch import Dispatcher
from flows.study import sizes
from flows.study.expansion import Study
from flows.study.requests import Resources
from flows.work import computations, recording, superseded
from flows.work.progress import current, stepping
from flows.work.store import ResultStore
from flows.work.walk import Item, Kind, Listing, Node, Walk, about_ensemble

SMALL_WORK = SHARD_WORK / 32
"""Neuron updates that a task without simulation counts as in the progress bar."""

TASKS: dict[Kind, Task[..., None]] = {
    "predict": tasks.predict,
    "simulate": tasks.simulate,
    "merge": tasks.merge,
    "measure": tasks.measure,
    "compare": tasks.compare,
    "record": tasks.record,
    "widths": tasks.record_widths,
}

ON_WORKERS: tuple[Kind, ...] = ("predict", "simulate")
"""Kinds of tasks that run on workers; the others are short and run in the process of the flow."""


@dataclass(frozen=True)
class Failure:
    """One task that failed: its label and the reason."""

    label: str
    cause: str


@dataclass
class Summary:
    """The outcomes of a study's tasks. ``skipped`` counts tasks that needed the result of a failed one.

    ``superseded`` counts predictions and simulations made by an older version of their algorithm. ``precision`` holds
    what each simulation with a target precision attained, by the digest of its ensemble.
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
        self._started: set[str] = set()
        self._records: list[Node] = []
        self._tasks_in_all = 0
        self._counting = threading.Lock()

    def execute(self) -> Summary:
        """Run every task whose result is missing; returns the summary, which lists failures."""
        plan = self.plan
        known = Listing(plan, self.store)
        known.go()
        self._tasks_in_all = len(known.nodes)
        current().start(self._tasks_in_all, sum(node.work or SMALL_WORK for node in known.nodes))
        if warning := sizes.warning(plan):
            current().note(lambda: warning)
        with recording.under_way(plan):
            self.go()
            self._require_records()
        summary = self._summary
        summary.precision = {digest: self.attained[digest] for digest in plan.simulations if digest in self.attained}
        summary.skipped = self._tasks_in_all - summary.cached - summary.computed - len(summary.failures)
        return summary

    def each(self, do: Callable[[Item], bool], items: Iterable[Item]) -> list[bool]:
        return self._dispatcher.each(do, items)

    def extended(self, nodes: int, work: float) -> None:
        with self._counting:
            self._tasks_in_all += nodes
        current().extend(nodes, SMALL_WORK + work)

    def simulated(self, spec: EnsembleSpec, shards: Shards) -> None:
        current().note(lambda: f"{about_ensemble(spec)}: {computations.precision_of(self.store, spec, shards)}")

    def perform(self, node: Node) -> bool:
        """Run a node's task unless its result is stored; returns whether the result is there now."""
        done = self.is_done(node)
        if node.run is not None and not done:
            self._starts(node.run)
        task = TASKS[node.kind]
        shown: dict[str, Any] = {"task_run_name": node.label.replace("{", "{{").replace("}", "}}")}
        with stepping(node.label, node.work or SMALL_WORK) as step:
            if done:
                outcome = self._dispatcher.here(tasks.known(task).with_options(**shown), {"digest": node.digest})
            else:
                carry_out = self._dispatcher.run if node.kind in ON_WORKERS else self._dispatcher.here
                named = task.with_options(**shown, timeout_seconds=self._resources.task_timeout)
                outcome = carry_out(named, {"digest": node.digest, **node.inputs})
            with self._counting:
                self._summary.cached += outcome.end == "cached"
                self._summary.computed += outcome.end == "computed"
                if outcome.end == "failed":
                    self._summary.failures.append(Failure(node.label, outcome.cause))
            step.end(outcome.end)
        succeeded = outcome.end != "failed"
        if not succeeded and node.run is not None:
            recording.record_failure(self.plan.record, node.run, outcome.cause)
        if succeeded and node.is_recorded is not None:
            self._records.append(node)
        return succeeded

    def _starts(self, run: recording.Asked) -> None:
        """Mark a run as running in the database, only once: a later shard must not do so after one has failed."""
        with self._counting:
            first = run.digest not in self._started
            self._started.add(run.digest)
        if first:
            recording.mark_running(self.plan.record, run)

    def _require_records(self) -> None:
        """Raise EnvironmentProblem where recorded results have disappeared from the database."""
        lost = [node.label for node in self._records if not self.is_done(node)]
        if lost:
            raise EnvironmentProblem(
                f"{len(lost)} of {len(self._records)} records were deleted from the database while it ran ({lost[0]})",
                place="study",
                value=self.plan.name,
                remedy="what was computed is kept, the same command records it again",
            )
