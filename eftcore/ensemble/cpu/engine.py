"""The processor's engine: the fused pass of eftcore.ensemble.cpu.kernel, for what it covers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eftcore.activations import get_activation
from eftcore.ensemble.cpu.kernel import simulate_bundles
from eftcore.ensemble.cpu.tile_pass import ACTIVATIONS
from eftcore.ensemble.moments import GROUP
from eftcore.ensemble.reference import Path
from eftcore.ensemble.streams import stream_key
from eftcore.ensemble.sums import LANES
from eftcore.ensemble.threads import in_threads
from eftcore.pairs import pair_table
from eftcore.specs import EnsembleSpec

_CHUNK_NUMBERS = 1 << 21
_CHUNK_GROUPS = 32


def covers(spec: EnsembleSpec) -> bool:
    """Whether the fused pass can simulate this ensemble: block sampler, float32, an activation that it knows."""
    return spec.sampler == "block" and spec.dtype == "float32" and _activation(spec) is not None


def _activation(spec: EnsembleSpec) -> tuple[int, float] | None:
    """The kernel's number for the activation, and its parameter."""
    activation = get_activation(spec.model.activation)
    family = {"relu": "leaky_relu", "swish": "silu"}.get(activation.family, activation.family)
    if not activation.builtin or family not in ACTIVATIONS:
        return None
    return list(ACTIVATIONS).index(family), next(iter(activation.parameters.values()), 0.0)


class CpuEngine:
    """Observations of one shard. Each network has its own random numbers, so neither threads nor chunks matter."""

    stream = "xoshiro128++, keyed by sha256 of (ensemble, shard), then network; Box-Muller"

    def __init__(self, spec: EnsembleSpec, path: Path, *, shard: int) -> None:
        assert spec.depths is not None
        activation = _activation(spec)
        assert activation is not None
        model, n_inputs = spec.model, spec.kernel.n_inputs
        self._paired = spec.estimator == "paired"
        self._key = np.uint64(stream_key(spec, shard))
        self._shape = (len(spec.depths), 4 if self._paired else 2, n_inputs * (n_inputs + 1) // 2, LANES)
        rows = np.full(model.depth + 1, -1, dtype=np.int64)
        rows[list(spec.depths)] = np.arange(len(spec.depths))
        reference = np.stack([path.reference.kernel, path.reference.second_moment])
        if self._paired:
            twin = path.twin
            follow = (twin.root, twin.second_moment, twin.response, twin.neighbours)
        else:
            follow = (np.zeros((0, 1, 1)), np.zeros((0, 1)), np.zeros((0, 1, 3)), np.zeros((0, 3), np.int64))
        constants = np.array([model.weight_variance, model.bias_variance, model.epsilon])
        arrays = (constants, path.start[None], pair_table(n_inputs), reference, *follow)
        self._arguments: tuple[Any, ...] = (
            rows,
            *activation,
            spec.width,
            *(np.ascontiguousarray(array) for array in arrays),
        )

    def observations(self, samples: int) -> Iterator[np.ndarray]:
        """(bundles, R, 2 or 4, P, LANES) float64 at a time, ``samples`` networks in all; unused lanes are zero."""
        bundles = -(-samples // LANES)
        chunk = GROUP * max(1, min(_CHUNK_GROUPS, _CHUNK_NUMBERS // (GROUP * int(np.prod(self._shape)))))
        for first in range(0, bundles, chunk):
            observed = np.empty((min(chunk, bundles - first), *self._shape))
            self._simulate(first, observed)
            if first + chunk >= bundles and samples % LANES:
                observed[-1, ..., samples % LANES :] = 0.0
            yield observed

    def _simulate(self, first: int, observed: np.ndarray) -> None:
        def part(begin: int, end: int) -> None:
            simulate_bundles(self._key, first + begin, observed[begin:end], *self._arguments)

        in_threads(part, len(observed))
