"""The work of a study as data: task nodes, and the order in which a run or a dry run goes through them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from eftcore.ensemble import Attained, attained, sample_digest
from eftcore.ensemble.sample import Shards
from eftcore.ensemble.shards import next_round
from eftcore.specs import EnsembleSpec, PredictionSpec
from eftcore.words import spec_name
from flows.study.expansion import Simulation, Study
from flows.work import computations, recording
from flows.work.store import ResultStore

Item = TypeVar("Item")

Kind = Literal["predict", "simulate", "merge", "compare", "record"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One task of a study.

    Attributes:
        kind: the task.
        label: what it does, for people.
        digest: identity of what it makes.
        inputs: its further arguments: digests and JSON-able specs.
        work: neuron updates of a simulation; 0 for the other kinds.
        run: the prediction or simulation whose run in the database it carries on, if it does.
        is_recorded: for what the database keeps, whether it does; the store knows of the rest.
    """

    kind: Kind
    label: str
    digest: str
    inputs: dict[str, Any] = field(default_factory=dict)
    work: float = 0.0
    run: PredictionSpec | Simulation | None = None
    is_recorded: Callable[[], bool] | None = None


class Walk(ABC):
    """Goes through the nodes of a study: predictions first, then what is held against what, configuration by
    configuration; a node is left out where one that it needs did not succeed.
    """

    def __init__(self, plan: Study, store: ResultStore, device: str = "auto") -> None:
        self.plan = plan
        self.store = store
        self.device = device
        self.attained: dict[str, Attained] = {}
        self._predicted: set[str] = set()

    @abstractmethod
    def perform(self, node: Node) -> bool:
        """Do one node; whether it succeeded, or its result was there."""

    @abstractmethod
    def each(self, do: Callable[[Item], bool], items: Iterable[Item]) -> list[bool]:
        """``do`` of every item, in any order."""

    @abstractmethod
    def extended(self, nodes: int, work: float) -> None:
        """There are more nodes than were known: further shards, and their merge."""

    @abstractmethod
    def simulated(self, spec: EnsembleSpec, shards: Shards) -> None:
        """A new shard is there, besides others of its ensemble."""

    def is_done(self, node: Node) -> bool:
        """Whether what a node makes is there."""
        return self.store.is_intact(node.digest) if node.is_recorded is None else node.is_recorded()

    def go(self) -> None:
        """Perform all nodes."""
        predictions = list(self.plan.predictions)
        done = self.each(self._predict, predictions)
        self._predicted = {digest for digest, succeeded in zip(predictions, done, strict=True) if succeeded}
        self.each(self._against_theory, self.plan.references)
        self.each(self._configuration, self.plan.simulations)

    def further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        """All shards of the next round, none where these are enough; and what more of them are for."""
        target = simulation.precision
        if target is None:
            return (), ""
        sample, _ = computations.load_sample(self.store, sample_digest(simulation.spec, shards))
        now = self.attained[simulation.spec.digest] = attained(sample, target)
        return next_round(sample, target), f" for {target}, now {target.shown(now.error)}"

    def _predict(self, digest: str) -> bool:
        spec = self.plan.predictions[digest]
        label = f"predict {spec_name(spec)}: {spec.model.activation}, {spec.kernel.label}{_version(spec)}"
        inputs = {"spec": spec.model_dump(mode="json")}
        return self.perform(Node(kind="predict", label=label, digest=digest, inputs=inputs, run=spec))

    def _against_theory(self, reference: str) -> bool:
        """Hold the predictions of one configuration against a better theory, and record them."""
        spec = self.plan.predictions[reference]
        about = f"{spec.model.activation}, {spec.kernel.label}"
        known = reference if reference in self._predicted else None
        return self._hold(self.plan.references[reference], known, about, against=f"{spec_name(spec)}: {about}")

    def _configuration(self, ensemble: str) -> bool:
        """Simulate one configuration at one width, hold its predictions against that, and record them."""
        simulation = self.plan.simulations[ensemble]
        shards = self._simulate(simulation)
        merged = sample_digest(simulation.spec, shards) if shards else None
        about = about_ensemble(simulation.spec)
        compared = self.plan.compared.get(ensemble, [])
        return self._hold(compared, merged, about, against=f"the simulation: {about}", simulation=simulation)

    def _hold(
        self,
        predictions: list[str],
        reference: str | None,
        about: str,
        *,
        against: str,
        simulation: Simulation | None = None,
    ) -> bool:
        """Compare predictions with a reference, unless that failed, and record what there is."""
        there = [prediction for prediction in predictions if prediction in self._predicted]
        comparisons = {} if reference is None else self._compare(there, reference, against)
        recordable: dict[str, Any] = {"reference": reference, "predictions": there, "comparisons": comparisons}
        aim = None
        if simulation is not None:
            target = simulation.precision
            aim = {"wanted": simulation.digest, "precision": None if target is None else target.identity()}
        return self.perform(
            Node(
                kind="record",
                label=f"record: {about}",
                digest=recording.record_digest(self.plan.digest, **recordable),
                inputs={"study": self.plan.record, "simulation": aim, **recordable},
                is_recorded=lambda: recording.is_recorded(
                    self.plan.digest, reference, there, list(comparisons), self.plan.tolerances
                ),
            )
        )

    def _simulate(self, simulation: Simulation) -> Shards:
        """The shards of the merged sample, round by round where a precision is wanted; none after a failure."""
        shards, merged = simulation.first_round, 0
        purpose = "" if simulation.precision is None else f" for {simulation.precision}"
        while self._simulate_round(simulation, shards, merged, purpose):
            more, purpose = self.further(simulation, shards)
            if not more:
                return shards
            self.extended(len(more) - len(shards) + 1, work_of(simulation.spec, more[len(shards) :]))
            shards, merged = more, len(shards)
        return ()

    def _simulate_round(self, simulation: Simulation, shards: Shards, merged: int, purpose: str) -> bool:
        """Simulate all shards but the first ``merged``, and add up all; whether that succeeded.

        The first failure ends it, since the sum is then out of reach.
        """
        spec = simulation.spec
        described = spec.model_dump(mode="json")
        failed, adding = threading.Event(), threading.Lock()
        held = list(shards[:merged])

        def simulate(shard: tuple[int, int]) -> bool:
            index, count = shard
            node = Node(
                kind="simulate",
                label=f"simulate shard {index + 1} of {len(shards)}{purpose}, {count} networks: {about_ensemble(spec)}",
                digest=computations.shard_digest(spec.digest, index, count),
                inputs={"spec": described, "shard": index, "samples": count, "device": self.device},
                work=work_of(spec, (shard,)),
                run=simulation,
            )
            fresh = not self.is_done(node)
            if failed.is_set() or not self.perform(node):
                failed.set()
                return False
            with adding:
                held.append(shard)
                sum_of = tuple(held) if len(held).bit_count() == 1 or len(held) == len(shards) else ()
            if fresh and sum_of:
                self.simulated(spec, sum_of)
            return True

        merge = Node(
            kind="merge",
            label=f"merge {len(shards)} shards: {about_ensemble(spec)}",
            digest=sample_digest(spec, shards),
            inputs={"spec": described, "shards": shards},
            run=simulation,
        )
        return all(self.each(simulate, shards[merged:])) and self.perform(merge)

    def _compare(self, predictions: list[str], reference: str, against: str) -> dict[str, str]:
        """Digest of the comparison by digest of the prediction, of those that succeed."""
        tolerances = list(self.plan.tolerances)
        comparisons = {}
        for prediction in predictions:
            node = Node(
                kind="compare",
                label=f"compare {spec_name(self.plan.predictions[prediction])} with {against}",
                digest=computations.comparison_digest(prediction, reference, tolerances),
                inputs={"prediction": prediction, "reference": reference, "tolerances": tolerances},
            )
            if self.perform(node):
                comparisons[prediction] = node.digest
        return comparisons


@dataclass(frozen=True)
class Planned:
    """One task that a run would go through: what it is, its work in neuron updates, whether its result is there.

    ``at_most`` marks work of which part may turn out not to be needed.
    """

    label: str
    work: float
    cached: bool
    at_most: bool = False


class DryRun(Walk):
    """Goes the same way and does nothing on it; ``tasks`` are those that a run would go through."""

    def __init__(self, plan: Study, store: ResultStore) -> None:
        super().__init__(plan, store)
        self.tasks: list[Planned] = []

    def perform(self, node: Node) -> bool:
        self.tasks.append(Planned(node.label, node.work, self.is_done(node)))
        return True

    def each(self, do: Callable[[Item], bool], items: Iterable[Item]) -> list[bool]:
        return [do(item) for item in items]

    def extended(self, nodes: int, work: float) -> None:
        pass  # they are among the tasks

    def simulated(self, spec: EnsembleSpec, shards: Shards) -> None:
        pass  # nothing is

    def further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        """As the run goes while its sums are stored; what follows then is known by its cap alone."""
        target, spec = simulation.precision, simulation.spec
        if target is None or self.store.is_intact(sample_digest(spec, shards)):
            return super().further(simulation, shards)
        rest = simulation.all_shards[len(shards) :]
        if rest:
            networks = sum(count for _, count in rest)
            label = (
                f"simulate at most {len(rest)} more shards for {target}, {networks} networks: {about_ensemble(spec)}"
            )
            self.tasks.append(Planned(label, work_of(spec, rest), cached=False, at_most=True))
        return (), ""


def about_ensemble(spec: EnsembleSpec) -> str:
    """Which ensemble it is, in labels."""
    return f"{spec.model.activation}, width {spec.width}, {spec.kernel.label}{_version(spec)}"


def _version(spec: PredictionSpec | EnsembleSpec) -> str:
    return f", version {spec.version} of the algorithm" if spec.superseded else ""


def work_of(spec: EnsembleSpec, shards: Shards) -> float:
    """Neuron updates: networks times layers, neurons and inputs."""
    networks = sum(count for _, count in shards)
    return float(networks) * spec.model.depth * spec.width * spec.kernel.n_inputs
