"""How an ensemble is cut into shards, and how many of them a target precision needs.

Both follow from the ensemble and from what was simulated, never from workers, time or the machine. Equation numbers
are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite

import numpy as np

from eftcore.ensemble.reliability import LARGEST
from eftcore.ensemble.sample import Sample, Shards
from eftcore.pairs import to_pairs
from eftcore.specs import EnsembleSpec, Precision

SHARD_WORK = 2**28
"""Neuron updates (networks x depth x width x inputs) in one shard: some seconds, so a crash loses little."""

FIRST_NETWORKS = 1024
"""Networks before a standard error counts: its own error is then a few percent at most."""

GROWTH = 8
"""Most that the number of networks grows by in one round."""

MARGIN = 1.05
"""Networks over those that the last standard error predicts, so that one more round seldom follows."""


@dataclass(frozen=True, kw_only=True)
class Attained:
    """What a sample attains of a target precision.

    Attributes:
        spec: the ensemble.
        error: largest standard error over depth, in the units of the target; infinite where there is nothing to tell.
        met: whether that is within the target.
        samples: networks in the sample.
    """

    spec: EnsembleSpec
    target: Precision
    error: float
    met: bool
    samples: int

    @property
    def stopped(self) -> str:
        """Why no more networks follow: "target met" or "cap reached"; "" where more do."""
        return "target met" if self.met else "cap reached" if self.samples >= self.target.max_samples else ""

    def __str__(self) -> str:
        target = self.target
        return f"{target.quantity} to {target.shown(self.error)} (asked {target.shown(target.bound)})"


def shard_size(spec: EnsembleSpec) -> int:
    """Networks in one shard, from the spec alone, so that asking for more samples keeps every full shard.

    A power of two between 64 and 65536.
    """
    networks = SHARD_WORK // (spec.model.depth * spec.width * spec.kernel.n_inputs)
    return 2 ** min(max(networks, 1).bit_length() - 1, 16) if networks >= 64 else 64


def shards_of(spec: EnsembleSpec, samples: int) -> Shards:
    """(shard index, networks): full shards and a last, smaller one."""
    size = shard_size(spec)
    full, rest = divmod(samples, size)
    return (*((index, size) for index in range(full)), *(((full, rest),) if rest else ()))


def first_round(spec: EnsembleSpec, target: Precision) -> Shards:
    """The shards to begin with."""
    return _at_least(FIRST_NETWORKS, shards_of(spec, target.max_samples))


def next_round(sample: Sample, target: Precision) -> Shards:
    """All shards to go on to, those of ``sample`` first; none where the target is met or the cap reached.

    The standard error falls like 1 / sqrt(networks), which says how many are needed; while it cannot be trusted, so
    many follow that it can be.
    """
    now = attained(sample, target)
    if now.stopped:
        return ()
    wanted = (now.error / target.bound) ** 2 if isfinite(now.error) else _until_trusted(sample, target.quantity)
    growth = min(MARGIN * wanted, GROWTH)
    shards = shards_of(sample.spec, target.max_samples)
    return _at_least(max(ceil(growth * now.samples), now.samples + 1), shards)


def attained(sample: Sample, target: Precision) -> Attained:
    """How precise the sample is, in the terms of the target; not at all where its errors cannot be trusted yet."""
    errors = _largest(sample, target.quantity)
    error = errors["absolute" if target.relative is None else "relative"]
    return Attained(spec=sample.spec, target=target, error=error, met=error <= target.bound, samples=sample.samples)


def reached(sample: Sample) -> dict[str, dict[str, float | None]]:
    """For each quantity the largest standard error over depth, "absolute" and "relative" as Precision defines them.

    None where the sample is too small to tell.
    """
    return {
        quantity: {kind: error if isfinite(error) else None for kind, error in _largest(sample, quantity).items()}
        for quantity in _ATTRIBUTES
    }


_ATTRIBUTES = {"K0": "mean", "V4": "covariance", "K1": "correction", "U1": "source"}


def _largest(sample: Sample, quantity: str) -> dict[str, float]:
    name = _ATTRIBUTES[quantity]
    arrays = (getattr(sample, name + "_se"), getattr(sample, name))
    if quantity != "V4":
        arrays = (to_pairs(arrays[0]), to_pairs(arrays[1]))
    error, size = (np.linalg.norm(array.reshape(len(array), -1), axis=1) for array in arrays)
    if quantity in ("K1", "U1"):
        size = np.full_like(size, size.max())
    relative = np.divide(error, size, out=np.where(error == 0, 0.0, np.inf), where=size > 0)
    known = sample.reliable(quantity)
    # max alone would pass over NaN where nothing is known
    return {
        kind: float(values.max()) if np.isfinite(values).all() and known.all() else inf
        for kind, values in (("absolute", error), ("relative", relative))
    }


def _until_trusted(sample: Sample, quantity: str) -> float:
    """Growth after which the errors are trusted: what widens them falls like 1 / networks (eq. 7.14)."""
    growth = float((sample.widening(quantity).needed.max() - 1) / (LARGEST - 1))
    return growth if isfinite(growth) and growth > 1 else inf


def _at_least(networks: int, shards: Sequence[tuple[int, int]]) -> Shards:
    """The first shards that hold so many networks, or all."""
    held, count = 0, 0
    while held < networks and count < len(shards):
        held += shards[count][1]
        count += 1
    return tuple(shards[:count])
