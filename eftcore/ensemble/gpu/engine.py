"""The graphics processor's engine: the persistent kernel of eftcore.ensemble.gpu.kernel, for what it covers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from eftcore.activations import get_activation
from eftcore.ensemble.gpu.arithmetic import KINDS
from eftcore.ensemble.gpu.kernel import simulate_block
from eftcore.ensemble.gpu.moments import GROUP
from eftcore.ensemble.memory import Batch
from eftcore.ensemble.reference import Path
from eftcore.ensemble.streams import stream_key
from eftcore.errors import InputError
from eftcore.specs import EnsembleSpec

MAX_INPUTS = {"plain": 8, "paired": 4}
"""Loops over pairs of inputs are unrolled: beyond this they take minutes to compile, and rotations spill registers."""

MAX_WARPS = 16
LANE_NUMBERS = 32
"""Numbers of state in a lane's registers."""

_CHUNK_NUMBERS = 1 << 27
_MAX_NETWORKS = 2**31 - 1


def covers(spec: EnsembleSpec) -> bool:
    """Whether the kernel can simulate this ensemble: block sampler, float32, few inputs, an activation that it knows,
    and a network whose state fits into the registers of one block."""
    block = spec.sampler == "block" and spec.dtype == "float32" and spec.kernel.n_inputs <= MAX_INPUTS[spec.estimator]
    return block and _activation(spec) is not None and _state(spec) <= 32 * MAX_WARPS * LANE_NUMBERS


def compile_constants(spec: EnsembleSpec) -> dict[str, Any]:
    """What the kernel is compiled for."""
    activation = _activation(spec)
    assert activation is not None
    width = _power_of_two(spec.width)
    return {
        "KIND": activation[0],
        "PAIRED": spec.estimator == "paired",
        "N": spec.kernel.n_inputs,
        "WIDTH": width,
        "MASKED": width != spec.width,
        "NETWORKS": max(1, min(32, 32 * LANE_NUMBERS // _state(spec))),
    }


def launch_options(spec: EnsembleSpec) -> dict[str, Any]:
    """How it is launched. One warp for each block where it can be: its lanes need no barrier to add up."""
    return {"num_warps": max(1, _state(spec) // (32 * LANE_NUMBERS)), "enable_fp_fusion": True}


def _state(spec: EnsembleSpec) -> int:
    """Numbers of a network's state, and its twin's, with the width and inputs rounded up to a power of two."""
    numbers = _power_of_two(spec.width) * _power_of_two(spec.kernel.n_inputs)
    return numbers * (2 if spec.estimator == "paired" else 1)


def _power_of_two(number: int) -> int:
    """The smallest one that is not less."""
    return 1 << (number - 1).bit_length()


def _activation(spec: EnsembleSpec) -> tuple[int, float] | None:
    """The kernel's number for the activation, and its parameter."""
    activation = get_activation(spec.model.activation)
    family = {"relu": "leaky_relu", "swish": "silu"}.get(activation.family, activation.family)
    if not activation.builtin or family not in KINDS:
        return None
    return KINDS[family], next(iter(activation.parameters.values()), 0.0)


class GpuEngine:
    """Observations of one shard, which stay on the device. Random numbers belong to networks, not to blocks."""

    stream = "Philox4x32-10, keyed by sha256 of (ensemble, shard), counted by (network, layer, neuron); Box-Muller"

    def __init__(self, spec: EnsembleSpec, path: Path, *, shard: int, device: str) -> None:
        assert spec.depths is not None
        activation = _activation(spec)
        assert activation is not None
        _, parameter = activation
        model, n_inputs = spec.model, spec.kernel.n_inputs
        self._spec = spec
        self._device = torch.device(device)
        self._paired = spec.estimator == "paired"
        self._key = stream_key(spec, shard) >> 1
        self._shape = (len(spec.depths), 4 if self._paired else 2, n_inputs * (n_inputs + 1) // 2)
        rows = np.full(model.depth + 1, -1)
        rows[list(spec.depths)] = np.arange(len(spec.depths))
        self._rows = torch.tensor(rows, dtype=torch.int32, device=self._device)
        constants = np.array([model.weight_variance, model.bias_variance, model.epsilon, parameter, 1 / spec.width])
        self._arrays = [
            self._tensor(constants),
            self._tensor(path.start, torch.float32),
            self._tensor(np.stack([path.reference.kernel, path.reference.second_moment])),
        ]
        if self._paired:
            root = model.epsilon * np.pad(path.twin.root, ((0, 1), (0, 0), (0, 0)))
            self._arrays.append(self._tensor(root, torch.float32))
            self._arrays += [self._tensor(path.twin.second_moment), self._tensor(path.twin.response)]
        else:
            self._arrays += [self._arrays[0]] * 3
        self._constants = compile_constants(spec)

    def observations(self, samples: int) -> Iterator[torch.Tensor]:
        """(1, R, 2 or 4, P, networks) float64 at a time, ``samples`` networks in all. InputError for too many."""
        if samples > _MAX_NETWORKS:
            raise InputError(f"simulate: samples = {samples}: at most {_MAX_NETWORKS} in one shard; use more shards")
        block = self._constants["NETWORKS"]
        chunk = block * max(1, _CHUNK_NUMBERS // int(np.prod(self._shape)) // block)
        unit = min(GROUP, chunk)
        yield from Batch(chunk // unit * unit, unit=unit, smallest=unit).pieces(samples, self._simulate)

    def _simulate(self, first: int, networks: int) -> torch.Tensor:
        spec = self._spec
        observed = torch.empty((1, *self._shape, networks), dtype=torch.float64, device=self._device)
        simulate_block[(-(-networks // self._constants["NETWORKS"]),)](
            observed,
            self._rows,
            *self._arrays,
            self._key,
            first,
            networks,
            spec.width,
            spec.model.depth,
            self._shape[0],
            **self._constants,
            **launch_options(spec),
        )
        return observed

    def _tensor(self, array: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=dtype, device=self._device)
