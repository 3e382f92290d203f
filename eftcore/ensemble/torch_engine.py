"""The general engine, by torch: any activation, both samplers, any torch device (docs/theory.md, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from eftcore.activations import get_activation
from eftcore.ensemble.memory import Batch
from eftcore.ensemble.reference import Path
from eftcore.ensemble.streams import stream_key
from eftcore.ensemble.sums import DEVICE_UNIT, LANES, UNIT
from eftcore.pairs import pair_indices
from eftcore.specs import EnsembleSpec

_CHUNK_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 27}
_CHUNK_NETWORKS = {"cpu": 1024, "cuda": 1 << 16}

_WHITEN_RTOL = 1e-6
"""Eigenvalues of Q below this fraction of the largest count as zero when an increment is whitened (eq. 7.2)."""


class TorchEngine:
    """Observations of one shard, chunk by chunk; chunk sizes depend only on the ensemble and the kind of device.

    The networks of a chunk share one random stream, and are simulated together where memory allows it. With ``keep``
    the observations stay on the device, where eftcore.ensemble.gpu.moments sums them.
    """

    def __init__(self, spec: EnsembleSpec, path: Path, *, shard: int, device: str, keep: bool = False) -> None:
        assert spec.depths is not None
        self._spec = spec
        self._shard = shard
        self._device = torch.device(device)
        self._dtype = torch.float32 if spec.dtype == "float32" else torch.float64
        self._keep = keep
        activation = get_activation(spec.model.activation)
        self._activation = activation.torch
        # on a GPU, torch.compile makes sigma and the conversion of its values one pass over the state
        self._fire = torch.compile(self.fired) if keep and activation.builtin and device == "cuda" else self.fired
        self._row = {layer: row for row, layer in enumerate(spec.depths)}
        first, second = pair_indices(spec.kernel.n_inputs)
        self._first, self._second = (torch.tensor(index.copy(), device=self._device) for index in (first, second))
        self._kernel = self._double(path.reference.kernel)
        self._second_moment = self._double(path.reference.second_moment)
        self._start = self._double(path.start)
        self._paired = spec.estimator == "paired"
        if self._paired:
            twin = path.twin
            self._root = self._double(twin.root)
            self._response = self._double(twin.response)
            self._path_moment = self._double(twin.second_moment)
            self._neighbours = torch.tensor(twin.neighbours, device=self._device)
            self._path_kernel, self._direct, self._slopes = map(self._double, (twin.kernel, twin.direct, twin.slopes))
        neurons = (
            spec.width if spec.model.block == "one_matrix" else max(spec.width, spec.model.hidden_width(spec.width))
        )
        per_network = neurons * (spec.width if spec.sampler == "weights" else 4 * spec.kernel.n_inputs)
        per_network = max(per_network, 4 * len(first) * len(spec.depths))
        self.chunk = LANES * max(1, min(_CHUNK_NETWORKS[device], _CHUNK_NUMBERS[device] // per_network) // LANES)
        self._batch = Batch(self.chunk, unit=min(DEVICE_UNIT if keep else UNIT, self.chunk), smallest=1)

    @property
    def stream(self) -> str:
        """The kind of random stream, for provenance."""
        kind = "Philox4x32-10" if self._device.type == "cuda" else "mt19937"
        return f"torch {kind}, keyed by sha256 of (ensemble, shard, chunk of {self.chunk} networks)"

    def observations(self, samples: int) -> Iterator[Any]:
        """``samples`` networks in all: (bundles, R, 2 or 4, P, LANES) float64 arrays with zeros in unused lanes, or
        with ``keep`` (1, R, 2 or 4, P, networks) float64 tensors."""
        for index, start in enumerate(range(0, samples, self.chunk)):
            left = min(self.chunk, samples - start)
            for seen in self._batch.pieces(self.chunk, partial(self._piece, index)):
                yield self._observed(seen, min(left, seen.shape[-1]))
                left -= seen.shape[-1]
                if left <= 0:
                    break

    def _observed(self, seen: torch.Tensor, networks: int) -> Any:
        """The observations of the first ``networks`` networks of a piece, in the layout of ``observations``."""
        if self._keep:
            return seen[None, ..., :networks].contiguous()
        observed = seen.cpu().numpy()
        observed[..., networks:] = 0.0
        observed = observed[..., : -(-networks // LANES) * LANES]
        bundles = observed.reshape(*observed.shape[:-1], -1, LANES)
        return np.ascontiguousarray(np.moveaxis(bundles, -2, 0))

    def _piece(self, chunk: int, first: int, count: int) -> torch.Tensor:
        """(R, 2 or 4, P, networks) observations of ``count`` networks of a chunk, simulated batch by batch."""
        shape = (len(self._row), 4 if self._paired else 2, len(self._first), count)
        out = torch.empty(shape, dtype=torch.float64, device=self._device)
        for begin in range(0, count, self._batch.networks):
            end = min(begin + self._batch.networks, count)
            self._simulate(chunk, slice(first + begin, first + end), out[..., begin:end])
        return out

    def _simulate(self, chunk: int, networks: slice, out: torch.Tensor) -> None:
        """Simulate these networks of a chunk and write their observations (R, 2 or 4, P, networks) to ``out``."""
        spec, model = self._spec, self._spec.model
        generator = torch.Generator(self._device)
        generator.manual_seed(stream_key(spec, self._shard, chunk) >> 1)

        def draw(*shape: int) -> torch.Tensor:
            size = (self.chunk, *shape)
            return torch.randn(size, generator=generator, dtype=self._dtype, device=self._device)[networks]

        state = draw(spec.width, spec.kernel.n_inputs) @ self._start.to(self._dtype)
        twin = state.clone()
        response = torch.zeros((len(state), len(self._first)), dtype=torch.float64, device=self._device)
        for layer in range(model.depth + 1):
            fired, second_moment = self._fire(self._normalised(state))
            twin_moment = self._fire(self._twin_normalised(layer, twin))[1] if self._paired else second_moment
            shifted = self._shifted(layer, response, twin) if self._paired else response
            if layer in self._row:
                row = self._row[layer]
                d = self._pairs(self._mean_product(state)) - self._kernel[row]
                s = self._pairs(second_moment) - self._second_moment[row]
                out[row, 0], out[row, 1] = d.T, s.T
                if self._paired:
                    twin_d = self._pairs(self._mean_product(twin)) - self._kernel[row]
                    twin_s = self._pairs(twin_moment) - self._second_moment[row]
                    out[row, 2] = (d - twin_d - response).T
                    out[row, 3] = (s - twin_s - shifted / model.weight_variance).T
            if layer == model.depth:
                break
            increment, normal = self._increment(fired, second_moment, draw)
            state = torch.add(state, increment, alpha=model.epsilon)
            if self._paired:
                twin = torch.add(twin, normal @ self._root[layer].to(self._dtype), alpha=model.epsilon)
                drive = model.weight_variance * (self._pairs(twin_moment) - self._path_moment[layer])
                response = response + model.epsilon**2 * (shifted + drive)

    def _normalised(self, state: torch.Tensor) -> torch.Tensor:
        """norm(x) over the neurons (networks, n, N)."""
        if self._spec.model.normalisation is None:
            return state
        if self._spec.model.normalisation == "layer":
            state = state - state.mean(1, keepdim=True)
        return state / state.square().mean(1, keepdim=True).sqrt()

    def _twin_normalised(self, layer: int, twin: torch.Tensor) -> torch.Tensor:
        """The twin's neurons in units of the root of K0, where there is a normalisation."""
        if self._spec.model.normalisation is None:
            return twin
        variance = self._path_kernel[layer][self._first == self._second]
        return twin / variance.sqrt().to(self._dtype)

    def _shifted(self, layer: int, response: torch.Tensor, twin: torch.Tensor) -> torch.Tensor:
        """(networks, P) chi u, and what S responds to in the twin's own kernel and means (eq. 11.21)."""
        found = self._chi(layer, response)
        if self._spec.model.normalisation is None:
            return found
        deviation = self._pairs(self._mean_product(twin)) - self._path_kernel[layer]
        found = found + (self._direct[layer] * deviation[:, self._neighbours]).sum(-1)
        if self._spec.model.normalisation == "layer":
            mean = twin.double().mean(1)
            at = torch.stack([mean[:, self._first], mean[:, self._second]], dim=-1)
            found = found - (self._slopes[layer] * at).sum(-1)
        return found

    def _increment(
        self, fired: torch.Tensor, second_moment: torch.Tensor, draw: Callable[..., torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """W sigma + b, (networks, n, N), and the standard normals z for which it equals z Q^(1/2)."""
        model, width = self._spec.model, self._spec.width
        covariance = model.bias_variance + model.weight_variance * second_moment
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp(min=0.0)
        if self._spec.sampler == "block":
            root = (vectors * values.sqrt()[:, None, :]) @ vectors.mT
            normal = draw(*fired.shape[1:])
            return normal @ root.to(self._dtype), normal
        weights = draw(width, width)
        increment = (model.weight_variance / width) ** 0.5 * (weights @ fired)
        if model.bias_variance > 0:
            increment = increment + model.bias_variance**0.5 * draw(width, 1)
        if not self._paired:
            return increment, increment
        # in directions where Q is singular the increment does not determine z, so z is drawn anew there
        solid = values > _WHITEN_RTOL * values[:, -1:]
        inverse = torch.where(solid, values, 1.0).rsqrt()
        along = increment.double() @ vectors
        fresh = draw(*fired.shape[1:]).double()
        normal = torch.where(solid[:, None, :], along * inverse[:, None, :], fresh) @ vectors.mT
        return increment, normal.to(self._dtype)

    def fired(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sigma(state), and the means over neurons of its products, (networks, N, N)."""
        fired = self._activation(state)
        return fired, self._mean_product(fired)

    def _mean_product(self, state: torch.Tensor) -> torch.Tensor:
        """(networks, N, N) float64 mean over neurons of the products of inputs."""
        state = state.double()
        return state.mT @ state / self._spec.width

    def _pairs(self, matrix: torch.Tensor) -> torch.Tensor:
        return matrix[:, self._first, self._second]

    def _chi(self, layer: int, response: torch.Tensor) -> torch.Tensor:
        """(networks, P) chi u: the susceptibility of a layer times the response u."""
        return (self._response[layer] * response[:, self._neighbours]).sum(-1)

    def _double(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float64, device=self._device)
