"""What a piece of work is expected to cost, roughly, and pieces put together by it.

The estimates only decide what is computed together. A wrong one makes a task longer or shorter, never a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from eftcore import batches
from eftcore.ensemble.sample import Shards
from eftcore.specs import EnsembleSpec, PredictionSpec

TOGETHER = 2.0
"""Estimated seconds of the pieces of one task; a piece that takes longer is a task of its own."""

CHUNK = 10.0
"""Estimated seconds of the configurations that are gone through together, from their predictions to their record."""

MOST = 100
"""Most configurations that are gone through together, and most pieces of one task, however small they are."""

NEURONS = 2e8
"""Neuron updates (networks x depth x width x inputs) in a second on one slow processor."""

MERGED, COMPARED, RECORDED = 0.01, 0.02, 0.02
"""Estimated seconds to add up shards, to compare a prediction, and to record one."""

_CLOSURES = {
    "mean": (0.005, 2),
    "source_only": (0.01, 3),
    "g_only": (0.02, 3),
    "sigma": (0.05, 3),
    "exact": (0.1, 4),
    "wick": (0.2, 4),
    "particle": (2.0, 3),
}
"""For each closure seconds at two inputs and 100 layers, and the power of the number of inputs with which they grow."""

_OVERHEAD = 0.01
"""Seconds to prepare and to store any result."""

Item = TypeVar("Item")


def of_prediction(spec: PredictionSpec) -> float:
    """Estimated seconds of a prediction."""
    seconds, power = _CLOSURES[spec.closure]
    inputs = (spec.kernel.n_inputs / 2) ** power
    return _OVERHEAD + seconds * (10 if spec.next_order else 1) * inputs * spec.model.depth / 100


def of_shards(spec: EnsembleSpec, shards: Shards) -> float:
    """Estimated seconds of the simulation of these shards."""
    return _OVERHEAD * len(shards) + of_neurons(neuron_updates(spec, shards))


def of_neurons(updates: float) -> float:
    """Estimated seconds of so many neuron updates."""
    return updates / NEURONS


def neuron_updates(spec: EnsembleSpec, shards: Shards) -> float:
    """Number of neuron updates of these shards: networks times layers, neurons and inputs."""
    networks = sum(count for _, count in shards)
    return float(networks) * spec.model.depth * spec.width * spec.kernel.n_inputs


def batched(
    items: Iterable[Item], cost: Callable[[Item], float], together: float = TOGETHER, most: int = MOST
) -> Iterator[list[Item]]:
    """Consecutive items, at most so many and of at most this cost together; one that costs more is alone.

    >>> list(batched([1, 1, 1, 5, 1], float, together=2))
    [[1, 1], [1], [5], [1]]
    """
    return batches.batched(items, cost, together, most)
