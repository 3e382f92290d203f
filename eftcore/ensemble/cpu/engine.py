"""The engine for processors: runs the fused pass of eftcore.ensemble.cpu.kernel over the networks of a shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eftcore.activations import get_activation
from eftcore.ensemble.cpu.chain import simulate_chains
from eftcore.ensemble.cpu.kernel import simulate_bundles
from eftcore.ensemble.cpu.normalised import simulate_normalised
from eftcore.ensemble.cpu.sigma import Sigma, has_sigma
from eftcore.ensemble.reference import Path
from eftcore.ensemble.streams import stream_key
from eftcore.ensemble.sums import LANES, UNIT
from eftcore.ensemble.threads import in_threads
from eftcore.pairs import pair_table
from eftcore.specs import EnsembleSpec

_CHUNK_NUMBERS = 1 << 21
"""Numbers that a piece of observations has at most, if more than one unit of networks fits into that."""

_CHUNK_UNITS = 32
"""Units of networks that a piece of observations has at most."""


def covers(spec: EnsembleSpec) -> bool:
    """Whether the fused pass can simulate this ensemble.

    It needs the block sampler and an activation that eftcore.ensemble.cpu.sigma has; width, depth and the number of
    inputs may be any.
    """
    return spec.sampler == "block" and has_sigma(get_activation(spec.model.activation), spec.dtype)


class CpuEngine:
    """Simulates one shard.

    The random numbers of a network depend on the shard's key and the network's index alone, so the results are the same
    for any number of threads and any size of the pieces.
    """

    def __init__(self, spec: EnsembleSpec, path: Path, *, shard: int) -> None:
        assert spec.depths is not None
        self._sigma = Sigma(get_activation(spec.model.activation), spec.dtype)
        model, n_inputs = spec.model, spec.kernel.n_inputs
        generators = "" if spec.dtype == "float32" else ", two generators each"
        self.stream = f"xoshiro128++, keyed by sha256 of (ensemble, shard), then network{generators}; Box-Muller"
        self._paired = spec.estimator == "paired"
        self._key = np.uint64(stream_key(spec, shard))
        self._shape = (len(spec.depths), 4 if self._paired else 2, n_inputs * (n_inputs + 1) // 2, LANES)
        rows = np.full(model.depth + 1, -1, dtype=np.int64)
        rows[list(spec.depths)] = np.arange(len(spec.depths))
        reference = np.stack([path.reference.kernel, path.reference.second_moment])
        follow: tuple[np.ndarray, ...]
        if self._paired:
            twin = path.twin
            follow = (twin.root, twin.second_moment, twin.response, twin.neighbours)
        else:
            follow = (np.zeros((0, 1, 1)), np.zeros((0, 1)), np.zeros((0, 1, 3)), np.zeros((0, 3), np.int64))
        constants = [model.weight_variance, model.bias_variance, model.epsilon]
        size: Any = spec.width
        normalisation = (None, "rms", "layer").index(model.normalisation)
        if model.block == "two_matrix":
            self._pass = simulate_chains
            size = np.array([spec.width, model.hidden_width(spec.width), normalisation])
            constants += [model.hidden_weight_variance, model.hidden_bias_variance]
            chain = (path.twin.hidden_root, path.twin.kernel) if self._paired else (follow[0], follow[1])
            follow = (follow[0], *chain, *follow[1:])
        elif model.normalisation is not None:
            self._pass = simulate_normalised
            size = np.array([spec.width, normalisation])
            if self._paired:
                twin = path.twin
                follow = (
                    twin.root,
                    twin.kernel,
                    twin.second_moment,
                    twin.response,
                    twin.direct,
                    twin.slopes,
                    twin.neighbours,
                )
            else:
                nothing, moments, chi, neighbours = follow
                follow = (nothing, moments, moments, chi, chi, chi, neighbours)
        else:
            self._pass = simulate_bundles
        arrays = (np.array(constants), path.start[None], pair_table(n_inputs), reference, *follow)
        self._arguments: tuple[Any, ...] = (rows, self._sigma.arguments, size, *map(np.ascontiguousarray, arrays))

    def observations(self, samples: int) -> Iterator[np.ndarray]:
        """Observations of ``samples`` networks, a piece at a time, each piece (bundles, R, 2 or 4, P, LANES) float64.

        A bundle is LANES networks. Where ``samples`` is no multiple of that, the last lanes of the last one are zero.
        """
        bundles, unit = -(-samples // LANES), UNIT // LANES
        chunk = unit * max(1, min(_CHUNK_UNITS, _CHUNK_NUMBERS // (unit * int(np.prod(self._shape)))))
        for first in range(0, bundles, chunk):
            observed = np.empty((min(chunk, bundles - first), *self._shape))
            self._simulate(first, observed)
            if first + chunk >= bundles and samples % LANES:
                observed[-1, ..., samples % LANES :] = 0.0
            yield observed

    def _simulate(self, first: int, observed: np.ndarray) -> None:
        def part(begin: int, end: int) -> None:
            self._pass(self._key, first + begin, observed[begin:end], *self._arguments)

        in_threads(part, len(observed))
        self._sigma.check()
