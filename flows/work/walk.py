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
from eftcore.specs import EnsembleSpec, MeasurementSpec, PredictionSpec
from eftcore.words import network_text, spec_name
from flows.study.expansion import Simulation, Study
from flows.work import computations, recording
from flows.work.store import ResultStore

Item = TypeVar("Item")

Kind = Literal["predict", "simulate", "merge", "measure", "compare", "record", "widths"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One task of a study.

    Attributes:
        kind: the kind of task.
        label: a text that says what the task does.
        digest: identity of the task's result.
        inputs: further arguments of the task: digests and JSON-able specs.
        work: neuron updates of a simulation; 0 for the other kinds.
        run: the prediction, simulation or measurement to whose run in the database the task belongs, if any.
        is_recorded: for results in the database, a function that says whether they are there; None for results in the
            store.
        at_most: whether it stands for work of which a part may turn out not to be needed.
    """

    kind: Kind
    label: str
    digest: str
    inputs: dict[str, Any] = field(default_factory=dict)
    work: float = 0.0
    run: recording.Asked | None = None
    is_recorded: Callable[[], bool] | None = None
    at_most: bool = False


class Walk(ABC):
    """Goes through the nodes of a study: first predictions, then what they say of widths, references and comparisons,
    last the measurements for which simulations of several widths are needed.

    A node is left out where a node that it needs did not succeed.
    """

    def __init__(self, plan: Study, store: ResultStore, device: str = "auto") -> None:
        self.plan = plan
        self.store = store
        self.device = device
        self.attained: dict[str, Attained] = {}
        self._predicted: set[str] = set()
        self._sampled: dict[str, Shards] = {}

    @abstractmethod
    def perform(self, node: Node) -> bool:
        """Perform one node; returns whether its result exists, computed now or before."""

    @abstractmethod
    def each(self, do: Callable[[Item], bool], items: Iterable[Item]) -> list[bool]:
        """Call ``do`` for every item, in any order; the results are in the order of the items."""

    @abstractmethod
    def extended(self, nodes: int, work: float) -> None:
        """Take note of further nodes that were not known before: more shards and their merge."""

    @abstractmethod
    def simulated(self, spec: EnsembleSpec, shards: Shards) -> None:
        """Take note that these shards of an ensemble, one of them new, are simulated."""

    def is_done(self, node: Node) -> bool:
        """Whether the result of a node exists."""
        return self.store.is_intact(node.digest) if node.is_recorded is None else node.is_recorded()

    def go(self) -> None:
        """Perform all nodes."""
        predictions = list(self.plan.predictions)
        done = self.each(self._predict, predictions)
        self._predicted = {digest for digest, succeeded in zip(predictions, done, strict=True) if succeeded}
        self.each(self._widths, self.plan.width_references)
        self.each(self._against_theory, self.plan.references)
        self.each(self._configuration, self.plan.simulations)
        self.each(self._measured, self.plan.measured)

    def further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        """All shards of the next round, none if no more are needed; and a text with the precision that they aim at."""
        target = simulation.precision
        if target is None:
            return (), ""
        sample, _ = computations.load_sample(self.store, sample_digest(simulation.spec, shards))
        now = self.attained[simulation.spec.digest] = attained(sample, target)
        return next_round(sample, target), f" for {target}, now {target.shown(now.error)}"

    def _predict(self, digest: str) -> bool:
        spec = self.plan.predictions[digest]
        label = f"predict {spec_name(spec)}: {network_text(spec.model)}, {spec.kernel.label}{_version(spec)}"
        inputs = {"spec": spec.model_dump(mode="json")}
        return self.perform(Node(kind="predict", label=label, digest=digest, inputs=inputs, run=spec))

    def _widths(self, exact: str) -> bool:
        """Record from which width on the predictions of one network hold, by its next order in 1/n."""
        if exact not in self._predicted:
            return False
        spec = self.plan.predictions[exact]
        there = [prediction for prediction in self.plan.width_references[exact] if prediction in self._predicted]
        judged: dict[str, Any] = {"exact": exact, "predictions": there, "tolerances": list(self.plan.tolerances)}
        return self.perform(
            Node(
                kind="widths",
                label=f"record widths: {network_text(spec.model)}, {spec.kernel.label}",
                digest=recording.widths_digest(self.plan.digest, **judged),
                inputs={"study": self.plan.record, **judged},
                is_recorded=lambda: recording.has_widths(self.plan.digest, **judged),
            )
        )

    def _against_theory(self, reference: str) -> bool:
        """Compare the predictions of one configuration with a better theory, and record them."""
        spec = self.plan.predictions[reference]
        about = f"{network_text(spec.model)}, {spec.kernel.label}"
        known = reference if reference in self._predicted else None
        against = f"{spec_name(spec)}: {about}"
        return self._compare_and_record(self.plan.references[reference], known, about, against=against)

    def _configuration(self, ensemble: str) -> bool:
        """Simulate one configuration at one width, compare its predictions with the sample, and record them."""
        simulation = self.plan.simulations[ensemble]
        shards = self._simulate(simulation)
        merged = sample_digest(simulation.spec, shards) if shards else None
        if shards:
            self._sampled[ensemble] = shards
        about = about_ensemble(simulation.spec)
        compared = self.plan.compared.get(ensemble, [])
        against = f"the simulation: {about}"
        return self._compare_and_record(compared, merged, about, against=against, simulation=simulation)

    def _measured(self, exact: str) -> bool:
        """Measure the next order in 1/n of one network, compare its predictions with it, and record them."""
        ensembles = self.plan.measured[exact]
        if exact not in self._predicted or not self._sampled.keys() >= set(ensembles):
            return False
        leading = self.plan.predictions[exact]
        spec = MeasurementSpec.of(leading, [self._sample(each) for each in ensembles])
        widths = ", ".join(map(str, spec.widths))
        about = f"{network_text(leading.model)}, widths {widths}, {leading.kernel.label}"
        measure = Node(
            kind="measure",
            label=f"measure the next order: {about}",
            digest=spec.digest,
            inputs={"spec": spec.model_dump(mode="json")},
            run=spec,
        )
        known = spec.digest if self.perform(measure) else None
        predictions = [
            digest
            for digest, other in self.plan.predictions.items()
            if other.next_order and other.of_same_network(leading)
        ]
        return self._compare_and_record(predictions, known, about, against=f"the measurement: {about}")

    def _sample(self, ensemble: str) -> tuple[EnsembleSpec, int, str]:
        """The merged sample of an ensemble: what was simulated, its number of networks, its digest."""
        spec, shards = self.plan.simulations[ensemble].spec, self._sampled[ensemble]
        return spec, sum(count for _, count in shards), sample_digest(spec, shards)

    def _compare_and_record(
        self,
        predictions: list[str],
        reference: str | None,
        about: str,
        *,
        against: str,
        simulation: Simulation | None = None,
    ) -> bool:
        """Compare predictions with a reference, unless the reference failed, and record the results that exist."""
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
        """Simulate, in rounds for a target precision; returns the shards of the merged sample, none after a failure."""
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
        """Simulate all shards but the first ``merged``, and add up all shards; returns whether this succeeded.

        After the first failure no further shard is simulated, since the sum cannot be computed any more.
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
        """Compare predictions with a reference; digests of successful comparisons by digest of the prediction."""
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


class Listing(Walk):
    """Lists the nodes of a study without performing them: those that are known before anything runs."""

    def __init__(self, plan: Study, store: ResultStore) -> None:
        super().__init__(plan, store)
        self.nodes: list[Node] = []

    def perform(self, node: Node) -> bool:
        self.nodes.append(node)
        return True

    def each(self, do: Callable[[Item], bool], items: Iterable[Item]) -> list[bool]:
        return [do(item) for item in items]

    def further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        return (), ""

    def extended(self, nodes: int, work: float) -> None:
        pass  # ``perform`` lists them

    def simulated(self, spec: EnsembleSpec, shards: Shards) -> None:
        pass  # nothing is simulated


@dataclass(frozen=True)
class Planned:
    """One task of a dry run: its label, its work in neuron updates, and whether its result exists already.

    ``at_most`` marks work of which a part may turn out not to be needed.
    """

    label: str
    work: float
    cached: bool
    at_most: bool = False


class DryRun(Listing):
    """Lists the nodes of a study with the further rounds that stored results call for, or work that may be needed."""

    @property
    def tasks(self) -> list[Planned]:
        """What a run would do with each node."""
        return [Planned(node.label, node.work, self.is_done(node), node.at_most) for node in self.nodes]

    def further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        """The next round as in a run, as long as the sum of the present shards is stored.

        Otherwise the precision reached is not known, and all further shards are listed as work that may be needed.
        """
        target, spec = simulation.precision, simulation.spec
        if target is None or self.store.is_intact(sample_digest(spec, shards)):
            return Walk.further(self, simulation, shards)
        rest = simulation.all_shards[len(shards) :]
        if rest:
            networks = sum(count for _, count in rest)
            label = (
                f"simulate at most {len(rest)} more shards for {target}, {networks} networks: {about_ensemble(spec)}"
            )
            work = work_of(spec, rest)
            self.nodes.append(Node(kind="simulate", label=label, digest=simulation.digest, work=work, at_most=True))
        return (), ""


def about_ensemble(spec: EnsembleSpec) -> str:
    """The description of an ensemble in labels of tasks."""
    return f"{network_text(spec.model)}, width {spec.width}, {spec.kernel.label}{_version(spec)}"


def _version(spec: PredictionSpec | EnsembleSpec) -> str:
    return f", version {spec.version} of the algorithm" if spec.superseded else ""


def work_of(spec: EnsembleSpec, shards: Shards) -> float:
    """Number of neuron updates of these shards: networks times layers, neurons and inputs."""
    networks = sum(count for _, count in shards)
    return float(networks) * spec.model.depth * spec.width * spec.kernel.n_inputs
