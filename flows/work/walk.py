"""The work of a study as data: task nodes, and the order in which a run or a dry run goes through them.

A study is gone through configuration by configuration, several at a time where they are small. What belongs to one of
them is done close together: it is predicted, simulated, compared and recorded before the walk is far ahead. So a run
that is killed leaves finished configurations in the database, and memory does not grow with their number.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from db.settings import default_url
from eftcore.ensemble import Attained, attained, sample_digest
from eftcore.ensemble.sample import Shards
from eftcore.ensemble.shards import next_round
from eftcore.identity import digest_of
from eftcore.specs import EnsembleSpec, MeasurementSpec, PredictionSpec
from eftcore.words import network_text, spec_name
from flows.study.expansion import Configuration, Simulation, Study
from flows.work import computations, costs, recording
from flows.work.store import ResultStore

Item = TypeVar("Item")

Kind = Literal["predict", "simulate", "merge", "measure", "compare", "record", "widths"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One piece of the work of a study.

    Attributes:
        kind: the kind of work.
        label: a text that says what it does.
        digest: identity of its result.
        spec: what is predicted, simulated or measured, for the kinds that need it.
        given: its other arguments: digests and plain values.
        work: neuron updates of a simulation; 0 for the other kinds.
        seconds: what it is expected to take, roughly.
        run: the prediction, simulation or measurement to whose run in the database it belongs, if any.
        recorded: for results in the database, what must be there; None for results in the store.
        at_most: whether it stands for work of which a part may turn out not to be needed.
    """

    kind: Kind
    label: str
    digest: str
    spec: PredictionSpec | EnsembleSpec | MeasurementSpec | None = None
    given: dict[str, Any] = field(default_factory=dict)
    work: float = 0.0
    seconds: float = 0.0
    run: recording.Asked | None = None
    recorded: recording.Recorded | None = None
    at_most: bool = False

    @property
    def inputs(self) -> dict[str, Any]:
        """Its arguments, JSON-able; the identity of the result is not among them."""
        return self.given if self.spec is None else {"spec": self.spec.model_dump(mode="json"), **self.given}


@dataclass(frozen=True)
class _Judged:
    """Predictions that are held against a reference and recorded with it; it has no digest where it failed."""

    predictions: Sequence[str]
    reference: str | None
    about: str
    against: str
    simulation: Simulation | None = None


class Walk(ABC):
    """Goes through the nodes of a study, some configurations at a time: of these first the predictions, then what they
    say of widths, references and comparisons, last the measurements for which simulations of several widths are needed.

    A node is left out where a node that it needs did not succeed.
    """

    def __init__(self, plan: Study, store: ResultStore, device: str = "auto") -> None:
        self.plan = plan
        self.store = store
        self.device = device
        self.attained: dict[str, Attained] = {}
        self._database = digest_of(default_url())

    @abstractmethod
    def perform(self, nodes: Sequence[Node]) -> list[bool]:
        """Perform nodes of which none needs another; returns for each whether its result exists, made now or before."""

    @abstractmethod
    def each(self, do: Callable[[Item], Any], items: Iterable[Item]) -> list[Any]:
        """Call ``do`` for every item, in any order; the results are in the order of the items."""

    @abstractmethod
    def extended(self, nodes: int, work: float) -> None:
        """Take note of further nodes that were not known before: more shards and their merge."""

    @abstractmethod
    def simulated(self, spec: EnsembleSpec, shards: Shards) -> None:
        """Take note that these shards of an ensemble, one of them new, are simulated."""

    def are_done(self, nodes: Sequence[Node]) -> list[bool]:
        """Whether the result of each node exists."""
        recorded = [node.recorded for node in nodes if node.recorded is not None]
        there = iter(recording.are_recorded(self.plan.digest, recorded, self.plan.tolerances) if recorded else ())
        stored = self.store.intact([node.digest for node in nodes if node.recorded is None])
        return [node.digest in stored if node.recorded is None else next(there) for node in nodes]

    def go(self) -> None:
        """Perform all nodes."""
        self.each(self._together, costs.batched(self.plan.configurations, self._seconds, costs.CHUNK))

    def further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        """All shards of the next round, none if no more are needed; and a text with the precision that they aim at."""
        target = simulation.precision
        if target is None:
            return (), ""
        sample, _ = computations.load_sample(self.store, sample_digest(simulation.spec, shards))
        now = self.attained[simulation.spec.digest] = attained(sample, target)
        return next_round(sample, target), f" for {target}, now {target.shown(now.error)}"

    def _seconds(self, configuration: Configuration) -> float:
        """Estimated seconds of everything that a configuration asks for."""
        predictions = sum(costs.of_prediction(self.plan.predictions[each]) for each in configuration.predictions)
        shards = sum(costs.of_neurons(self.plan.simulations[each].size.work) for each in configuration.simulations)
        judged = len(configuration.predictions) * (1 + len(configuration.simulations))
        return predictions + shards + judged * (costs.COMPARED + costs.RECORDED)

    def _together(self, configurations: Sequence[Configuration]) -> None:
        """Go through some configurations, from their predictions to their measurements."""
        asked = [digest for configuration in configurations for digest in configuration.predictions]
        done = self.perform([self._prediction(digest) for digest in asked])
        known = {digest for digest, succeeded in zip(asked, done, strict=True) if succeeded}
        widths = self.plan.width_references
        self.perform([self._widths(exact, known) for exact in asked if exact in widths and exact in known])
        self._judge([self._against_theory(digest, known) for digest in asked if digest in self.plan.references], known)

        simulations = [
            self.plan.simulations[digest] for configuration in configurations for digest in configuration.simulations
        ]
        sampled: dict[str, Shards] = {}
        self.each(
            lambda some: self._simulated(some, known, sampled),
            costs.batched(simulations, lambda item: costs.of_neurons(item.size.work), costs.CHUNK),
        )
        self._measured([digest for digest in asked if digest in self.plan.measured], known, sampled)

    def _prediction(self, digest: str) -> Node:
        spec = self.plan.predictions[digest]
        label = f"predict {spec_name(spec)}: {network_text(spec.model)}, {spec.kernel.label}{_version(spec)}"
        return Node(kind="predict", label=label, digest=digest, spec=spec, seconds=costs.of_prediction(spec), run=spec)

    def _widths(self, exact: str, known: set[str]) -> Node:
        """Record from which width on the predictions of one network hold, by its next order in 1/n."""
        spec = self.plan.predictions[exact]
        there = [prediction for prediction in self.plan.width_references[exact] if prediction in known]
        recorded = recording.Widths(exact=exact, predictions=tuple(there))
        return Node(
            kind="widths",
            label=f"record widths: {network_text(spec.model)}, {spec.kernel.label}",
            digest=recorded.digest(self.plan.digest, self._database, self.plan.tolerances),
            given={"exact": exact, "predictions": there, "tolerances": list(self.plan.tolerances)},
            seconds=len(there) * costs.RECORDED,
            recorded=recorded,
        )

    def _against_theory(self, reference: str, known: set[str]) -> _Judged:
        """The predictions of one configuration beside a better theory."""
        spec = self.plan.predictions[reference]
        about = f"{network_text(spec.model)}, {spec.kernel.label}"
        there = reference if reference in known else None
        return _Judged(self.plan.references[reference], there, about, f"{spec_name(spec)}: {about}")

    def _simulated(self, simulations: Sequence[Simulation], known: set[str], sampled: dict[str, Shards]) -> None:
        """Simulate ensembles, compare the predictions with the samples, and record them."""
        made = self._simulate(simulations)
        sampled |= {digest: shards for digest, shards in made.items() if shards}
        judged = []
        for simulation in simulations:
            ensemble, about = simulation.spec.digest, about_ensemble(simulation.spec)
            merged = sample_digest(simulation.spec, made[ensemble]) if made[ensemble] else None
            compared, against = self.plan.compared.get(ensemble, []), f"the simulation: {about}"
            judged.append(_Judged(compared, merged, about, against, simulation))
        self._judge(judged, known)

    def _measured(self, leading: Sequence[str], known: set[str], sampled: dict[str, Shards]) -> None:
        """Measure the next order in 1/n of networks, compare their predictions with it, and record them."""
        ready = [exact for exact in leading if exact in known and sampled.keys() >= set(self.plan.measured[exact])]
        specs = [
            MeasurementSpec.of(
                self.plan.predictions[exact], [self._sample(each, sampled[each]) for each in self.plan.measured[exact]]
            )
            for exact in ready
        ]
        abouts = [
            f"{network_text(spec.model)}, widths {', '.join(map(str, spec.widths))}, {spec.kernel.label}"
            for spec in specs
        ]
        nodes = [
            Node(
                kind="measure",
                label=f"measure the next order: {about}",
                digest=spec.digest,
                spec=spec,
                seconds=costs.MERGED * len(spec.samples),
                run=spec,
            )
            for spec, about in zip(specs, abouts, strict=True)
        ]
        measured = zip(ready, specs, abouts, self.perform(nodes), strict=True)
        self._judge(
            [
                _Judged(
                    [digest for digest in self.plan.alike[exact] if self.plan.predictions[digest].next_order],
                    spec.digest if succeeded else None,
                    about,
                    f"the measurement: {about}",
                )
                for exact, spec, about, succeeded in measured
            ],
            known,
        )

    def _sample(self, ensemble: str, shards: Shards) -> tuple[EnsembleSpec, int, str]:
        """The merged sample of an ensemble: what was simulated, its number of networks, its digest."""
        spec = self.plan.simulations[ensemble].spec
        return spec, sum(count for _, count in shards), sample_digest(spec, shards)

    def _judge(self, judged: Sequence[_Judged], known: set[str]) -> None:
        """Compare predictions with each reference that did not fail, and record the results that exist."""
        there = [[prediction for prediction in each.predictions if prediction in known] for each in judged]
        nodes = [
            self._comparison(prediction, each.reference, each.against)
            for each, predictions in zip(judged, there, strict=True)
            if each.reference is not None
            for prediction in predictions
        ]
        done = {
            (node.given["prediction"], node.given["reference"]): node.digest
            for node, succeeded in zip(nodes, self.perform(nodes), strict=True)
            if succeeded
        }
        records = []
        for each, predictions in zip(judged, there, strict=True):
            compared = {
                prediction: done[prediction, each.reference]
                for prediction in predictions
                if (prediction, each.reference) in done
            }
            records.append(self._record(each, predictions, compared))
        self.perform(records)

    def _comparison(self, prediction: str, reference: str, against: str) -> Node:
        tolerances = list(self.plan.tolerances)
        return Node(
            kind="compare",
            label=f"compare {spec_name(self.plan.predictions[prediction])} with {against}",
            digest=computations.comparison_digest(prediction, reference, tolerances),
            given={"prediction": prediction, "reference": reference, "tolerances": tolerances},
            seconds=costs.COMPARED,
        )

    def _record(self, judged: _Judged, predictions: Sequence[str], comparisons: dict[str, str]) -> Node:
        aim = None
        if judged.simulation is not None:
            target = judged.simulation.precision
            aim = {"wanted": judged.simulation.digest, "precision": None if target is None else target.identity()}
        recorded = recording.Record(
            reference=judged.reference, predictions=tuple(predictions), compared=tuple(comparisons)
        )
        return Node(
            kind="record",
            label=f"record: {judged.about}",
            digest=recorded.digest(self.plan.digest, self._database, comparisons),
            given={
                "reference": judged.reference,
                "simulation": aim,
                "predictions": list(predictions),
                "comparisons": comparisons,
            },
            seconds=(1 + len(predictions)) * costs.RECORDED,
            recorded=recorded,
        )

    def _simulate(self, simulations: Sequence[Simulation]) -> dict[str, Shards]:
        """Simulate, in rounds for a target precision; the shards of each merged sample, none after a failure."""
        made: dict[str, Shards] = {}
        rounds = [
            _Round(
                simulation,
                simulation.first_round,
                0,
                "" if simulation.precision is None else f" for {simulation.precision}",
            )
            for simulation in simulations
        ]
        while rounds:
            following = []
            for now, succeeded in zip(rounds, self._simulate_round(rounds), strict=True):
                more, purpose = self.further(now.simulation, now.shards) if succeeded else ((), "")
                if more:
                    spec, new = now.simulation.spec, more[len(now.shards) :]
                    self.extended(len(new) + 1, costs.neuron_updates(spec, new))
                    following.append(_Round(now.simulation, more, len(now.shards), purpose))
                else:
                    made[now.simulation.spec.digest] = now.shards if succeeded else ()
            rounds = following
        return made

    def _simulate_round(self, rounds: Sequence[_Round]) -> list[bool]:
        """Simulate the new shards of each ensemble and add up all of its shards; returns whether this succeeded."""
        small = [now for now in rounds if now.is_small]
        done = iter(self.perform([now.shard(*now.new[0], self.device) for now in small]))
        large = iter(self.each(self._simulate_shards, [now for now in rounds if not now.is_small]))
        whole = [next(done if now.is_small else large) for now in rounds]
        merged = iter(self.perform([now.merge() for now, succeeded in zip(rounds, whole, strict=True) if succeeded]))
        return [succeeded and next(merged) for succeeded in whole]

    def _simulate_shards(self, now: _Round) -> bool:
        """Simulate the shards of one ensemble, each by itself; returns whether all succeeded.

        After the first failure no further shard is simulated, since the sum cannot be computed any more.
        """
        failed, adding = threading.Event(), threading.Lock()
        held = list(now.shards[: now.merged])

        def simulate(shard: tuple[int, int]) -> bool:
            node = now.shard(*shard, self.device)
            fresh = not self.store.is_intact(node.digest)
            if failed.is_set() or not self.perform([node])[0]:
                failed.set()
                return False
            with adding:
                held.append(shard)
                sum_of = tuple(held) if len(held).bit_count() == 1 or len(held) == len(now.shards) else ()
            if fresh and sum_of:
                self.simulated(now.simulation.spec, sum_of)
            return True

        return all(self.each(simulate, now.new))


@dataclass(frozen=True)
class _Round:
    """A round of the simulation of one ensemble: all shards, of which the first ``merged`` were there before."""

    simulation: Simulation
    shards: Shards
    merged: int
    purpose: str

    @property
    def new(self) -> Shards:
        """The shards of this round."""
        return self.shards[self.merged :]

    @property
    def is_small(self) -> bool:
        """Whether it is a single shard that is simulated together with those of other ensembles."""
        return len(self.new) == 1 and costs.of_shards(self.simulation.spec, self.new) <= costs.TOGETHER

    def shard(self, index: int, count: int, device: str) -> Node:
        """The simulation of one shard."""
        spec = self.simulation.spec
        number = f"simulate shard {index + 1} of {len(self.shards)}{self.purpose}, {count} networks"
        return Node(
            kind="simulate",
            label=f"{number}: {about_ensemble(spec)}",
            digest=computations.shard_digest(spec.digest, index, count),
            spec=spec,
            given={"shard": index, "samples": count, "device": device},
            work=costs.neuron_updates(spec, ((index, count),)),
            seconds=costs.of_shards(spec, ((index, count),)),
            run=self.simulation,
        )

    def merge(self) -> Node:
        """The sum of all shards."""
        spec = self.simulation.spec
        return Node(
            kind="merge",
            label=f"merge {len(self.shards)} shards: {about_ensemble(spec)}",
            digest=sample_digest(spec, self.shards),
            spec=spec,
            given={"shards": self.shards},
            seconds=len(self.shards) * costs.MERGED,
            run=self.simulation,
        )


def about_ensemble(spec: EnsembleSpec) -> str:
    """The description of an ensemble in labels of tasks."""
    return f"{network_text(spec.model)}, width {spec.width}, {spec.kernel.label}{_version(spec)}"


def _version(spec: PredictionSpec | EnsembleSpec) -> str:
    return f", version {spec.version} of the algorithm" if spec.superseded else ""
