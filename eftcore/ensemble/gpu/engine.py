"""The engine for graphics processors: runs the kernel of eftcore.ensemble.gpu.kernel over the networks of a shard.

A warp is 32 lanes of a graphics processor that execute the same instruction together, each with registers of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from eftcore.ensemble.gpu.kernel import simulate_block
from eftcore.ensemble.kinds import activation_kind
from eftcore.ensemble.memory import Batch
from eftcore.ensemble.reference import Path
from eftcore.ensemble.streams import stream_key
from eftcore.ensemble.sums import DEVICE_UNIT
from eftcore.errors import InputError
from eftcore.specs import EnsembleSpec

MAX_INPUTS = {"plain": 8, "paired": 4}
"""Most inputs for each estimator.

Triton writes the loops over pairs of inputs out in full. With more inputs they take minutes to compile, and the paired
estimator's rotations need more registers than a lane has."""

MAX_WARPS = 16
"""Most warps that share one network."""

LANE_NUMBERS = 32
"""Numbers of the networks' states that each lane keeps in its registers."""

CHUNK_NUMBERS = 1 << 27
"""Numbers that a piece of observations has at most."""

_MAX_NETWORKS = 2**31 - 1


def covers(spec: EnsembleSpec) -> bool:
    """Whether the kernel can simulate this ensemble.

    It needs the block of the paper, the block sampler, float32 states, an activation of eftcore.ensemble.kinds, at most
    MAX_INPUTS inputs, and a network whose state fits into the registers of MAX_WARPS warps.
    """
    if not spec.model.of_the_paper:
        return False
    if spec.sampler != "block" or spec.dtype != "float32" or activation_kind(spec.model.activation) is None:
        return False
    return spec.kernel.n_inputs <= MAX_INPUTS[spec.estimator] and _state(spec) <= 32 * MAX_WARPS * LANE_NUMBERS


def compile_constants(spec: EnsembleSpec) -> dict[str, Any]:
    """The values of the kernel's parameters that are fixed when it is compiled, by name.

    There are as many networks side by side in a warp as its registers hold, 32 at most.
    """
    activation = activation_kind(spec.model.activation)
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
    """Triton's options for compiling and launching the kernel.

    A block has one warp where its state fits into that: the lanes of one warp add up without waiting for others.
    """
    return {"num_warps": max(1, _state(spec) // (32 * LANE_NUMBERS)), "enable_fp_fusion": True}


def _state(spec: EnsembleSpec) -> int:
    """Numbers of a network's state, and of its twin's where there is one.

    Width and number of inputs are rounded up to powers of two, which Triton's blocks need.
    """
    numbers = _power_of_two(spec.width) * _power_of_two(spec.kernel.n_inputs)
    return numbers * (2 if spec.estimator == "paired" else 1)


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not less than ``number``."""
    return 1 << (number - 1).bit_length()


class GpuEngine:
    """Simulates one shard. The observations stay on the device.

    The random numbers of a network depend on the shard's key and the network's index alone, so the results are the same
    whatever networks share a block or a launch.
    """

    stream = "Philox4x32-10, keyed by sha256 of (ensemble, shard), counted by (network, layer, neuron); Box-Muller"

    def __init__(self, spec: EnsembleSpec, path: Path, *, shard: int, device: str) -> None:
        assert spec.depths is not None
        activation = activation_kind(spec.model.activation)
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
        """Observations of ``samples`` networks, a piece at a time, each piece (1, R, 2 or 4, P, networks) float64.

        Raises InputError where there are more networks than 31 bits can count.
        """
        if samples > _MAX_NETWORKS:
            raise InputError(
                f"at most {_MAX_NETWORKS} in one shard", place="samples", value=samples, remedy="use more shards"
            )
        block = self._constants["NETWORKS"]
        chunk = block * max(1, CHUNK_NUMBERS // int(np.prod(self._shape)) // block)
        unit = min(DEVICE_UNIT, chunk)
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
