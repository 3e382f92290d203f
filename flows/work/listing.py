"""What a study would do, without doing it: the nodes that are known before anything runs, and dry runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eftcore.ensemble import sample_digest
from eftcore.ensemble.sample import Shards
from eftcore.specs import EnsembleSpec
from flows.study.expansion import Simulation, Study
from flows.work import costs
from flows.work.store import ResultStore
from flows.work.walk import Item, Node, Walk, about_ensemble


class Listing(Walk):
    """Shows the nodes of a study to ``see`` without performing them: those that are known before anything runs."""

    def __init__(self, plan: Study, store: ResultStore, see: Callable[[Sequence[Node]], None]) -> None:
        super().__init__(plan, store)
        self.see = see

    def perform(self, nodes: Sequence[Node]) -> list[bool]:
        self.see(nodes)
        return [True] * len(nodes)

    def each(self, do: Callable[[Item], Any], items: Iterable[Item]) -> list[Any]:
        return [do(item) for item in items]

    def further(self, simulation: Simulation, shards: Shards) -> tuple[Shards, str]:
        return (), ""

    def extended(self, nodes: int, work: float) -> None:
        pass  # ``perform`` lists them

    def simulated(self, spec: EnsembleSpec, shards: Shards) -> None:
        pass  # nothing is simulated


def nodes_of(plan: Study, store: ResultStore) -> list[Node]:
    """The nodes of a study that are known before anything runs."""
    nodes: list[Node] = []
    Listing(plan, store, nodes.extend).go()
    return nodes


@dataclass(frozen=True, slots=True)
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

    def __init__(self, plan: Study, store: ResultStore) -> None:
        super().__init__(plan, store, self._look)
        self.tasks: list[Planned] = []

    def _look(self, nodes: Sequence[Node]) -> None:
        """Take note of what a run would do with each node."""
        done = self.are_done(nodes)
        self.tasks += [Planned(node.label, node.work, there) for node, there in zip(nodes, done, strict=True)]

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
            self.tasks.append(Planned(label, costs.neuron_updates(spec, rest), cached=False, at_most=True))
        return (), ""
