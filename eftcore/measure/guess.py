"""Which block, normalisation, activation and scale a module behaves like, where its author gives no spec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

import numpy as np
from scipy.optimize import minimize_scalar
from torch import nn

from eftcore.activations import get_activation
from eftcore.errors import InputError
from eftcore.measure.innovations import Products
from eftcore.pairs import pair_indices
from eftcore.specs import Block, Normalisation, ResNet

RTOL = 1e-5
"""Relative accuracy of the integrals: enough to tell candidates apart."""

USUAL = ("relu", "gelu", "silu", "tanh")
"""Activations that are tried where the module has none of torch's as a part."""

_BY_CLASS = {
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Tanh": "tanh",
}

HIDDEN_SCALES = (0.25, 16.0)
"""Between these the hidden weight variance is sought where the activation has a scale of its own."""

USUAL_HIDDEN = (1.0, 2.0)
"""Hidden weight variances that are taken where no other fits clearly better."""

WORTH = 9.0
"""By how much chi-squared has to fall for a further parameter to be believed."""

NORMALISATIONS: tuple[Normalisation | None, ...] = (None, *get_args(Normalisation))

MOST_HIDDEN = 100.0
"""Largest m / n that is told from infinitely many hidden neurons."""


@dataclass(frozen=True)
class Guess:
    """A spec with how badly it fits.

    Attributes:
        spec: the network, with epsilon such that the outer weight variance is 1, or 2 for ReLU.
        misfit: chi-squared of the mean products of increments, over all blocks and pairs, per number.
    """

    spec: ResNet
    misfit: float


def activations_of(module: nn.Module) -> tuple[str, ...]:
    """Activations that the module has as parts, or else the usual ones."""
    names = {_name(part) for part in module.modules()}
    return tuple(sorted(name for name in names if name is not None)) or USUAL


def _name(part: nn.Module) -> str | None:
    """The name under which an activation of torch is known here."""
    if isinstance(part, nn.LeakyReLU):
        return get_activation(f"leaky_relu(slope={part.negative_slope!r})").name
    if isinstance(part, nn.Softplus):
        return get_activation(f"softplus(beta={part.beta!r})").name
    return _BY_CLASS.get(type(part).__name__)


def guesses(products: Products, activations: tuple[str, ...], width: int) -> list[Guess]:
    """All candidates for networks of ``width`` neurons, the best first.

    Raises InputError where the blocks add nothing to the stream.
    """
    if not products.increment.any():
        raise InputError("no block adds anything to the stream", place="make_model")
    memories = {key: products.memory(*key) for key in product(activations, NORMALISATIONS)}
    found = [
        _fitted(products, spec, memories[spec.activation, spec.normalisation])
        for spec in _candidates(products, activations)
    ]
    best, *others = sorted(found, key=lambda guess: guess.misfit)
    return [replace(best, spec=_with_hidden_neurons(products, best.spec, width)), *others]


def _with_hidden_neurons(products: Products, spec: ResNet, width: int) -> ResNet:
    """The spec with the m that the spread of the increments' mean squares shows beyond that of n neurons."""
    if spec.block == "one_matrix":
        return spec
    engine = products.engine(spec, RTOL)
    moments = np.diagonal(products.second_moments(spec, engine), axis1=-2, axis2=-1)
    drift = spec.bias_variance + spec.weight_variance * moments
    increment = np.diagonal(products.increment, axis1=-2, axis2=-1) / spec.epsilon**2
    one = spec.weight_variance**2 * products.hidden_spread(spec, engine) / drift**2 * (1 + 2 / width)
    excess = float(((increment / drift - 1) ** 2 - 2 / width).mean())
    ratio = float(one.mean()) / max(excess, 1e-300) / width
    return spec.model_copy(update={"hidden_ratio": min(max(ratio, 1 / width), MOST_HIDDEN)})


def _candidates(products: Products, activations: tuple[str, ...]) -> Iterator[ResNet]:
    depth = products.increment.shape[1]
    for activation in activations:
        usual = {"activation": activation, "weight_variance": _gain(activation), "epsilon": 1.0, "depth": depth}
        for block, normalisation in product(get_args(Block), NORMALISATIONS):
            yield ResNet(**usual, block=block, normalisation=normalisation)


def _gain(activation: str) -> float:
    return 2.0 if activation in ("relu", "leaky_relu") else 1.0


def _fitted(products: Products, spec: ResNet, memory: np.ndarray) -> Guess:
    """The spec with the scale, the biases and, where it matters, the hidden variance that fit best."""
    if spec.block == "one_matrix" or get_activation(spec.activation).family in ("relu", "leaky_relu", "linear"):
        return _with_scale(products, spec, memory)

    def at(variance: float) -> Guess:
        return _with_scale(products, spec.model_copy(update={"hidden_weight_variance": variance}), memory)

    best = minimize_scalar(
        lambda logarithm: at(float(np.exp(logarithm))).misfit,
        bounds=tuple(np.log(HIDDEN_SCALES)),
        options={"xatol": 0.02},
    )
    usual = [guess for guess in map(at, USUAL_HIDDEN) if guess.misfit - best.fun < _worth(products)]
    return usual[0] if usual else at(round(float(np.exp(best.x)), 3))


def _worth(products: Products) -> float:
    """What is worth another parameter, in units of Guess.misfit."""
    n_inputs: int = products.kernel.shape[-1]
    return float(WORTH / (products.increment.shape[1] * n_inputs * (n_inputs + 1) / 2))


def _with_scale(products: Products, spec: ResNet, memory: np.ndarray) -> Guess:
    """The spec with epsilon and bias variance by generalised least squares over all blocks."""
    first, second = pair_indices(products.kernel.shape[-1])
    engine = products.engine(spec, RTOL)
    moments = products.second_moments(spec, engine)[..., first, second].mean(2)
    increment = products.increment[..., first, second].mean(2)
    scale = moments.mean()
    # the spread of increments is that of their sizes, whatever the spec
    inverse = [
        np.linalg.pinv(np.atleast_2d(np.cov(block, rowvar=False)), hermitian=True)
        for block in np.moveaxis(increment, 1, 0)
    ]
    networks = len(increment)
    design = np.stack([moments.mean(0), np.full(moments.shape[1:], scale)], axis=-1)
    if len(first) == 1:
        design = design[..., :1]
    target = increment.mean(0)
    normal = sum(d.T @ w @ d for d, w in zip(design, inverse, strict=True))
    right = sum(d.T @ w @ y for d, w, y in zip(design, inverse, target, strict=True))
    coefficients = np.linalg.lstsq(normal, right, rcond=None)[0]
    # one coefficient more lowers chi-squared by its square in units of its error
    if len(coefficients) > 1 and networks * max(coefficients[1], 0.0) ** 2 < WORTH * np.linalg.inv(normal)[1, 1]:
        design, coefficients = design[..., :1], np.array([right[0] / normal[0, 0]])
    rest = target - design @ coefficients
    misfit = networks * sum(float(r @ w @ r) for r, w in zip(rest, inverse, strict=True)) / target.size
    # what is left of each network's increments must have nothing in common with a function of what the block got
    fit = coefficients[0] * moments + (coefficients[1] * scale if len(coefficients) > 1 else 0.0)
    common = (increment - fit)[..., first == second] * memory.mean(2)
    error = common.std(0, ddof=1) / np.sqrt(networks)
    misfit += float((np.divide(common.mean(0), error, out=np.zeros_like(error), where=error > 0) ** 2).mean())
    size = max(float(coefficients[0]), 1e-12)
    bias = max(float(coefficients[1] * scale), 0.0) if len(coefficients) > 1 else 0.0
    epsilon = float(np.sqrt(size / spec.weight_variance))
    return Guess(spec.model_copy(update={"epsilon": epsilon, "bias_variance": bias / epsilon**2}), misfit)
