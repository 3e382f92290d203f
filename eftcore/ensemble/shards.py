"""How an ensemble is cut into shards, and how many of them a target precision needs.

Both depend only on the ensemble and on the networks simulated so far, never on workers, time or the machine. Equation
numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite

import numpy as np

from eftcore.ensemble.reliability import LARGEST
from eftcore.ensemble.sample import Sample, Shards
from eftcore.pairs import to_pairs
from eftcore.precision import Precision
from eftcore.specs import EnsembleSpec

SHARD_WORK = 2**28
"""Neuron updates (networks x depth x width x inputs) in one shard: some seconds, so a crash loses little."""

FIRST_NETWORKS = 1024
"""Smallest number of networks at which a standard error is used; its own error is then a few percent at most."""

GROWTH = 8
"""Largest factor by which the number of networks grows in one round."""

MARGIN = 1.05
"""Factor on the number of networks that the last standard error predicts, so that a further round is seldom needed."""


@dataclass(frozen=True, kw_only=True)
class Attained:
    """How close a sample comes to a target precision.

    Attributes:
        spec: the ensemble.
        error: largest standard error over depth, in the units of the target; infinite while it is unknown.
        met: whether the error is within the target.
        samples: networks in the sample.
    """

    spec: EnsembleSpec
    target: Precision
    error: float
    met: bool
    samples: int

    @property
    def stopped(self) -> str:
        """Why no more networks follow, "target met" or "cap reached"; "" where more follow."""
        return "target met" if self.met else "cap reached" if self.samples >= self.target.max_samples else ""

    def __str__(self) -> str:
        target = self.target
        return f"{target.quantity} to {target.shown(self.error)} (asked {target.shown(target.bound)})"


def shard_size(spec: EnsembleSpec) -> int:
    """Networks in one shard, from the spec alone, so that asking for more samples keeps every full shard.

    A power of two between 64 and 65536.
    """
    return networks_in_shard(spec.model.depth, spec.width, spec.kernel.n_inputs)


def networks_in_shard(depth: int, width: int, n_inputs: int) -> int:
    """Networks in one shard of an ensemble with this depth, width and number of inputs; see ``shard_size``."""
    networks = SHARD_WORK // (depth * width * n_inputs)
    return 2 ** min(networks.bit_length() - 1, 16) if networks >= 64 else 64


def shards_of(spec: EnsembleSpec, samples: int) -> Shards:
    """The shards, as (index, networks), of this number of samples: full shards and perhaps a last, smaller one."""
    size = shard_size(spec)
    full, rest = divmod(samples, size)
    return (*((index, size) for index in range(full)), *(((full, rest),) if rest else ()))


def first_round(spec: EnsembleSpec, target: Precision) -> Shards:
    """The shards of the first round towards a target precision."""
    return _at_least(FIRST_NETWORKS, shards_of(spec, target.max_samples))


def next_round(sample: Sample, target: Precision) -> Shards:
    """All shards of the next round, beginning with those of ``sample``; none if the target is met or the cap reached.

    Their number follows from the standard error, which falls like 1 / sqrt(networks). While the standard error cannot
    be trusted, the round has as many networks as are expected to make it reliable.
    """
    now = attained(sample, target)
    if now.stopped:
        return ()
    wanted = (now.error / target.bound) ** 2 if isfinite(now.error) else _until_trusted(sample, target.quantity)
    growth = min(MARGIN * wanted, GROWTH)
    shards = shards_of(sample.spec, target.max_samples)
    return _at_least(max(ceil(growth * now.samples), now.samples + 1), shards)


def attained(sample: Sample, target: Precision) -> Attained:
    """How close the sample is to the target; its error is infinite while standard errors cannot be trusted."""
    errors = _largest(sample, target.quantity)
    error = errors["absolute" if target.relative is None else "relative"]
    return Attained(spec=sample.spec, target=target, error=error, met=error <= target.bound, samples=sample.samples)


def reached(sample: Sample) -> dict[str, dict[str, float | None]]:
    """For each quantity the largest standard error over depth, "absolute" and "relative" as Precision defines them.

    The values are None where the sample is too small for a standard error.
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
    # max alone would ignore the NaN of an unknown error
    return {
        kind: float(values.max()) if np.isfinite(values).all() and known.all() else inf
        for kind, values in (("absolute", error), ("relative", relative))
    }


def _until_trusted(sample: Sample, quantity: str) -> float:
    """Factor on the number of networks at which the errors are reliable.

    The widening minus 1 falls like 1 / networks (eq. 7.14). Infinite where the factor is unknown.
    """
    growth = float((sample.widening(quantity).needed.max() - 1) / (LARGEST - 1))
    return growth if isfinite(growth) and growth > 1 else inf


def _at_least(networks: int, shards: Sequence[tuple[int, int]]) -> Shards:
    """The first shards that together have at least this number of networks, or all shards."""
    held, count = 0, 0
    while held < networks and count < len(shards):
        held += shards[count][1]
        count += 1
    return tuple(shards[:count])
