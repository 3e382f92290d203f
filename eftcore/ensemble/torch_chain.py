"""The general engine for blocks with two matrices, by torch: any activation, both samplers, any device.

``sampler="block"`` follows the Markov chain of G, as eftcore.ensemble.cpu.chain does; ``sampler="weights"`` draws both
matrices of every block and follows all n neurons (docs/theory.md, section 11).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from eftcore.ensemble.reference import Path
from eftcore.ensemble.streams import stream_key
from eftcore.ensemble.torch_engine import TorchEngine
from eftcore.gaussian.roots import SINGULAR
from eftcore.specs import EnsembleSpec


class TorchChainEngine(TorchEngine):
    """Observations of one shard, chunk by chunk, as TorchEngine gives them."""

    def __init__(self, spec: EnsembleSpec, path: Path, *, shard: int, device: str, keep: bool = False) -> None:
        super().__init__(spec, path, shard=shard, device=device, keep=keep)
        self._hidden_width = spec.model.hidden_width(spec.width)
        if self._paired:
            self._hidden_root = self._double(path.twin.hidden_root)

    def _simulate(self, chunk: int, networks: slice, out: torch.Tensor) -> None:
        generator = torch.Generator(self._device)
        generator.manual_seed(stream_key(self._spec, self._shard, chunk) >> 1)

        def draw(*shape: int) -> torch.Tensor:
            size = (self.chunk, *shape)
            return torch.randn(size, generator=generator, dtype=self._dtype, device=self._device)[networks]

        def chi(degrees: int) -> torch.Tensor:
            half = torch.full((self.chunk,), degrees / 2, dtype=torch.float64, device=self._device)
            return (2 * torch._standard_gamma(half, generator=generator)).sqrt()[networks]

        if self._spec.sampler == "weights":
            self._with_weights(draw, out)
        else:
            self._as_chain(draw, chi, out)

    def _with_weights(self, draw: Callable[..., torch.Tensor], out: torch.Tensor) -> None:
        """All neurons, by matrices that are drawn anew in each block."""
        spec, model, hidden = self._spec, self._spec.model, self._hidden_width
        state = draw(spec.width, spec.kernel.n_inputs) @ self._start.to(self._dtype).mT
        for layer in range(model.depth + 1):
            inner = (model.hidden_weight_variance / spec.width) ** 0.5 * draw(hidden, spec.width)
            preactivation = inner @ self._normalised(state) + model.hidden_bias_variance**0.5 * draw(hidden, 1)
            fired = self._activation(preactivation)
            if layer in self._row:
                self._record(layer, self._mean_product(state), fired.double().mT @ fired.double() / hidden, out)
            if layer == model.depth:
                break
            outer = (model.weight_variance / hidden) ** 0.5 * draw(spec.width, hidden)
            step = outer @ fired + model.bias_variance**0.5 * draw(spec.width, 1)
            state = torch.add(state, step, alpha=model.epsilon)

    def _as_chain(
        self, draw: Callable[..., torch.Tensor], chi: Callable[[int], torch.Tensor], out: torch.Tensor
    ) -> None:
        """A frame of at most N of the neurons' directions, and what the others add in each layer (eq. 11.12)."""
        spec, model = self._spec, self._spec.model
        inputs = spec.kernel.n_inputs
        layered = model.normalisation == "layer"
        neurons = spec.width - 1 if layered else spec.width
        kept = min(inputs, neurons)
        below = torch.tril_indices(inputs, inputs, -1, device=self._device)
        roots = [self._start] * (2 if self._paired else 1)
        frames: list[torch.Tensor] = [torch.zeros((), dtype=torch.float64, device=self._device)] * len(roots)
        apart = list(frames)
        response = torch.zeros((out.shape[-1], len(self._first)), dtype=torch.float64, device=self._device)
        for layer in range(model.depth + 1):
            normal, last = draw(kept, inputs).double(), draw(1, inputs).double()
            others = draw(below.shape[1]).double()
            wishart = torch.zeros((len(normal), inputs, inputs), dtype=torch.float64, device=self._device)
            for b in range(min(inputs, neurons - kept)):
                wishart[:, b, b] = chi(neurons - kept - b)
            wishart[:, below[0], below[1]] = others
            wishart[:, :, max(neurons - kept, 0) :] = 0.0
            kernels, centred = [], []
            for copy, root in enumerate(roots):
                frames[copy] = frames[copy] + normal @ root.mT
                gram = frames[copy].mT @ frames[copy]
                if neurons > kept:
                    rest = root @ wishart
                    gram = gram + rest @ rest.mT
                    frames[copy] = _lower(gram).mT
                centred.append(gram / spec.width)
                if layered:
                    apart[copy] = apart[copy] + last @ root.mT
                    gram = gram + apart[copy].mT @ apart[copy]
                kernels.append(gram / spec.width)
            hidden = draw(self._hidden_width, inputs)
            moments = [self._second_moments(hidden, _lower(self._hidden_covariance(centred[0])))]
            if self._paired:
                moments.append(self._second_moments(hidden, self._hidden_root[layer]))
                deviation = self._pairs(kernels[1]) - self._path_kernel[layer]
                shifted = self._chi(layer, deviation + response)
            if layer in self._row:
                self._record(layer, kernels[0], moments[0], out)
                if self._paired:
                    row = self._row[layer]
                    twin_d = self._pairs(kernels[1]) - self._kernel[row] + response
                    twin_s = self._pairs(moments[1]) - self._second_moment[row] + shifted / model.weight_variance
                    out[row, 2], out[row, 3] = out[row, 0] - twin_d.T, out[row, 1] - twin_s.T
            if layer == model.depth:
                break
            roots[0] = model.epsilon * _lower(model.bias_variance + model.weight_variance * moments[0])
            if self._paired:
                roots[1] = model.epsilon * self._root[layer]
                drive = model.weight_variance * (self._pairs(moments[1]) - self._path_moment[layer])
                response = response + model.epsilon**2 * (shifted + drive)

    def _record(self, layer: int, kernel: torch.Tensor, second_moment: torch.Tensor, out: torch.Tensor) -> None:
        """Write d and s of a layer, from G and S (networks, N, N)."""
        row = self._row[layer]
        out[row, 0] = (self._pairs(kernel) - self._kernel[row]).T
        out[row, 1] = (self._pairs(second_moment) - self._second_moment[row]).T

    def _second_moments(self, normal: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
        """(networks, N, N) mean over hidden neurons of sigma sigma, of preactivations normal root^T."""
        fired = self._activation(normal @ root.to(self._dtype).mT).double()
        return fired.mT @ fired / self._hidden_width

    def _hidden_covariance(self, kernel: torch.Tensor) -> torch.Tensor:
        """A(G) (eq. 11.2)."""
        model = self._spec.model
        if model.normalisation is not None:
            root = kernel.diagonal(dim1=1, dim2=2).sqrt()
            kernel = kernel / (root[:, :, None] * root[:, None, :])
        return model.hidden_weight_variance * kernel + model.hidden_bias_variance


def _lower(matrix: torch.Tensor) -> torch.Tensor:
    """Lower triangular roots of positive semi-definite matrices, as eftcore.gaussian.roots.lower_root gives them."""
    root = torch.zeros_like(matrix)
    for k in range(matrix.shape[-1]):
        column = matrix[..., k:, k] - (root[..., k:, :k] @ root[..., k, :k, None])[..., 0]
        pivot = column[..., 0]
        known = pivot > SINGULAR * matrix[..., k, k]
        root[..., k:, k] = column * torch.where(known, torch.where(known, pivot, 1.0).rsqrt(), 0.0)[..., None]
    return root
