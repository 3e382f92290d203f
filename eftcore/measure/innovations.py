"""What each block adds to the kernel, beside what theory expects of it given the kernel that it got.

Given the stream x before a block, its increments are n independent rows of covariance h Q, whatever came before
(docs/theory.md, section 12). So the products of increments have the mean h F(x), and those with x have mean zero. Both
hold at every width, for every block by itself. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from eftcore.activations import get_activation
from eftcore.gaussian.branch import BranchExpectations, hidden_kernel
from eftcore.gaussian.pair_functions import PairFunctions
from eftcore.gaussian.pair_moments import Expectations
from eftcore.pairs import pair_indices, to_matrix
from eftcore.specs import Normalisation, Numerics, ResNet
from eftcore.theory.mean_field import choose_engine
from eftcore.theory.together import alone

_AT_ONCE = 4096
"""Variances whose fourth moments are computed together."""


@dataclass(frozen=True, eq=False)
class Products:
    """Products over neurons of R networks, each array (R, L, positions, N, N); the last of ``kernel`` has L + 1 layers.

    Attributes:
        kernel: (R, L+1, positions, N, N) G before each block and after the last.
        centred: (R, L, positions, N, N) G after the mean over neurons is subtracted.
        fired: the same of sigma(norm(x)), by activation and normalisation.
        increment: (1/n) sum over neurons of the products of what the block adds.
        cross: (1/n) sum of x_a times what is added to x_b.
    """

    kernel: np.ndarray
    centred: np.ndarray
    fired: dict[tuple[str, Normalisation | None], np.ndarray]
    increment: np.ndarray
    cross: np.ndarray

    @classmethod
    def of(cls, stream: np.ndarray, activations: tuple[str, ...]) -> Products:
        """Of one network's stream (L+1, N, positions, n); R = 1."""
        x = np.moveaxis(stream, 2, 1)
        added = x[1:] - x[:-1]
        before = x[:-1]
        width = x.shape[-1]
        centred = before - before.mean(-1, keepdims=True)
        normalised = {None: before, "rms": _of_unit_square(before), "layer": _of_unit_square(centred)}
        fired = {}
        for name, (normalisation, seen) in product(activations, normalised.items()):
            sigma = np.asarray(get_activation(name).function(seen), dtype=float)
            fired[name, normalisation] = _gram(sigma, sigma)[None] / width
        return cls(
            _gram(x, x)[None] / width,
            _gram(centred, centred)[None] / width,
            fired,
            _gram(added, added)[None] / width,
            _gram(before, added)[None] / width,
        )

    @classmethod
    def together(cls, parts: list[Products]) -> Products:
        """Of several networks."""
        return cls(
            np.concatenate([part.kernel for part in parts]),
            np.concatenate([part.centred for part in parts]),
            {key: np.concatenate([part.fired[key] for part in parts]) for key in parts[0].fired},
            np.concatenate([part.increment for part in parts]),
            np.concatenate([part.cross for part in parts]),
        )

    def second_moments(self, model: ResNet, engine: Expectations) -> np.ndarray:
        """(R, L, positions, N, N) the E2 that a block of ``model`` makes of the stream that it gets."""
        if model.block == "one_matrix":
            return self.fired[model.activation, model.normalisation]
        kernel = self._seen(model)
        flat = engine.moments(kernel.reshape(-1, *kernel.shape[-2:])).value
        return to_matrix(flat).reshape(kernel.shape)

    def engine(self, model: ResNet, rtol: float = 1e-9) -> Expectations:
        """Integrals of ``model`` for kernels as large as the mean one."""
        return alone(choose_engine(model, self.kernel.mean((0, 1, 2)), Numerics(rtol=rtol), order=0))

    def hidden_spread(self, model: ResNet, engine: Expectations) -> np.ndarray:
        """(R, L, positions, N) variance of sigma_a^2 of one hidden neuron, 0 for one matrix."""
        if model.block == "one_matrix":
            return np.zeros(self.increment.shape[:-1])
        assert isinstance(engine, BranchExpectations)
        variances = np.diagonal(hidden_kernel(model, self._seen(model)), axis1=-2, axis2=-1)
        flat = variances.reshape(-1)
        found = np.empty(flat.shape)
        for begin in range(0, len(flat), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            functions = PairFunctions(engine.series, flat[part, None, None])
            found[part] = (functions.single("s4") - functions.single("s2") ** 2)[:, 0]
        return found.reshape(variances.shape)

    def memory(self, activation: str, normalisation: Normalisation | None) -> np.ndarray:
        """(R, L, positions, N) by how much S_aa differs from what Gaussian neurons with this G have, relative to that.

        It is a function of the stream that a block gets, which blocks see in part where their neurons are those of the
        stream, and not where they are fresh. A normalisation makes the G of what is seen 1.
        """
        variances = np.diagonal(self.kernel[:, :-1], axis1=-2, axis2=-1)
        if normalisation is not None:
            variances = np.ones_like(variances)
        model = ResNet(activation=activation, weight_variance=1.0, epsilon=1e-6, depth=1)
        engine = alone(choose_engine(model, np.array([[variances.mean()]]), Numerics(rtol=1e-6), order=0))
        engine = engine.refined(nodes=True, terms=True) or engine
        values, places = np.unique(variances, return_inverse=True)
        gaussian = engine.moments(values.reshape(-1, 1, 1)).value.reshape(-1)[places].reshape(variances.shape)
        fired = np.diagonal(self.fired[activation, normalisation], axis1=-2, axis2=-1)
        ratio: np.ndarray = np.divide(fired, gaussian, out=np.ones_like(fired), where=gaussian > 0)
        return ratio - 1

    def _seen(self, model: ResNet) -> np.ndarray:
        """The kernel that a branch sees."""
        return self.centred if model.normalisation == "layer" else self.kernel[:, :-1]


def _of_unit_square(x: np.ndarray) -> np.ndarray:
    """Neurons (last axis) with the mean square 1; those of an input that is 0 stay so."""
    size = np.sqrt((x**2).mean(-1, keepdims=True))
    found: np.ndarray = np.divide(x, size, out=np.zeros_like(x), where=size > 0)
    return found


def _gram(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    product: np.ndarray = x @ np.swapaxes(y, -1, -2)
    return product


SQUARES = 3
"""The last scores of a block, which are products of two others and so have skewed laws."""


def score_count(n_inputs: int) -> int:
    """Q, the number of scores of a block."""
    return n_inputs * (n_inputs + 1) // 2 + n_inputs**2 + SQUARES


def scores(products: Products, model: ResNet, engine: Expectations, moments: np.ndarray, width: int) -> np.ndarray:
    """(R, L, Q) numbers of mean zero where each block is as ``model`` says, exactly at any width (eq. 12.2).

    Args:
        products: of R networks.
        engine: integrals of ``model``.
        moments: (R, L, positions, N, N) E2, from ``Products.second_moments``.
        width: neurons n.

    For pairs a <= b the products of increments less their mean; for all a, b those of x_a with what is added to x_b;
    the mean squares of both less their own means; and what the first have in common with ``Products.memory``, which
    tells blocks apart whose neurons are those of the stream from those whose neurons are fresh. All are divided by
    their natural size and averaged over positions.
    """
    c_2, hidden = model.weight_variance, model.hidden_width(width)
    expected = model.epsilon**2 * (model.bias_variance + c_2 * moments)
    first, second = pair_indices(expected.shape[-1])
    scale = np.sqrt(np.diagonal(expected, axis1=-2, axis2=-1))
    size = np.maximum(scale[..., first] * scale[..., second], 1e-300)
    increments = (products.increment - expected)[..., first, second] / size
    before = products.kernel[:, :-1]
    deviation = np.sqrt(np.diagonal(before, axis1=-2, axis2=-1))
    cross = products.cross / np.maximum(deviation[..., :, None] * scale[..., None, :], 1e-300)
    of_cross = width * (cross**2).mean((-2, -1)) - 1
    own = increments[..., first == second]
    drift = np.maximum(np.diagonal(expected, axis1=-2, axis2=-1) / model.epsilon**2, 1e-300)
    share = c_2**2 * products.hidden_spread(model, engine) / (hidden * drift**2)
    variance = 2 / width + share * (1 + 2 / width)
    of_increments = (own**2 / variance).mean(-1) - 1
    remembered = width * (own * products.memory(model.activation, model.normalisation)).mean(-1)
    everything = [increments, cross.reshape(*cross.shape[:-2], -1)]
    everything += [one[..., None] for one in (of_cross, of_increments, remembered)]
    found: np.ndarray = np.concatenate(everything, axis=-1).mean(2)
    return found
