"""Inputs of large variance, such as raw pixel rows: what is left of a saturating or asymptotically linear sigma."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import erf, erfc, expit, ndtr

import eftcore as eft
from eftcore.activations import register_activation, unregister_activation

LINES = ("relu", "leaky_relu(slope=-0.3)")

Rest = Callable[[np.ndarray], np.ndarray]

# A, C and r(x) of the even part of sigma^2 at x > 0, which is A x^2 + C + r(x)
EVEN: dict[str, tuple[float, float, Rest]] = {
    "tanh": (0.0, 1.0, lambda x: -1 / np.cosh(np.minimum(x, 300.0)) ** 2),
    "erf": (0.0, 1.0, lambda x: -erfc(x) * (2 - erfc(x))),
    "erf(scale=5)": (0.0, 1.0, lambda x: -erfc(5 * x) * (2 - erfc(5 * x))),
    "softplus": (0.5, 0.0, lambda x: x * np.log1p(np.exp(-x)) + np.log1p(np.exp(-x)) ** 2),
    "softplus(beta=5)": (0.5, 0.0, lambda x: (5 * x * np.log1p(np.exp(-5 * x)) + np.log1p(np.exp(-5 * x)) ** 2) / 25),
    "silu": (0.5, 0.0, lambda x: -x * x * expit(x) * expit(-x)),
    "gelu": (0.5, 0.0, lambda x: -x * x * ndtr(x) * ndtr(-x)),
}


def square(name: str, k: float) -> np.ndarray:
    """(3,) <sigma^2> at variance k and its two derivatives: Gauss-Legendre in x, where the rest is."""
    a, c, rest = EVEN[name]
    x, w = np.polynomial.legendre.leggauss(20)
    edges = np.concatenate([[0.0], np.geomspace(1e-3, min(700.0, 14 * np.sqrt(k)), 200)])
    nodes = (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).ravel()
    weights = (np.diff(edges)[:, None] * w / 2).ravel() * 2 * np.exp(-(nodes**2) / (2 * k)) / np.sqrt(2 * np.pi * k)
    z = nodes / np.sqrt(k)
    hermite = np.stack([np.ones_like(z), (z**2 - 1) / (2 * k), (z**4 - 6 * z**2 + 3) / (4 * k**2)])
    return np.array([a * k + c, a, 0.0]) + hermite @ (weights * rest(nodes))


def g_only(name: str, k: float, *, c_w: float = 2.0, h: float = 0.01, depth: int = 20) -> tuple[float, float, float]:
    """K0, V4, K1 of one input at the last layer."""
    v4, k1 = 2 * k * k, 0.0
    for _ in range(depth):
        value, slope, curvature = square(name, k)
        k1 += h * c_w * (slope * k1 + curvature * v4 / 2)
        v4 += h * (2 * c_w * slope * v4 + 4 * k * c_w * value)
        k += h * c_w * value
    return k, v4, k1


def predict(name: str, kernel: list[list[float]], closure: str = "g_only", depth: int = 20) -> eft.Theory:
    model = eft.ResNet(activation=name, weight_variance=2.0, epsilon=0.1, depth=depth)
    return eft.predict(model, eft.InputKernel.explicit(kernel), closure)  # type: ignore[arg-type]


@contextmanager
def registered(name: str, function: Rest, torch_function: Callable | None = None) -> Iterator[str]:
    register_activation(name, function, torch_function=torch_function)
    try:
        yield name
    finally:
        unregister_activation(name)


@pytest.mark.parametrize("name", EVEN)
@pytest.mark.parametrize("variance", [1.0, 30.0, 1e3, 2e4, 1e6, 1e8])
def test_one_input(name: str, variance: float) -> None:
    found = predict(name, [[variance]])
    assert found.converged
    assert found.correction is not None
    assert found.covariance is not None
    numbers = found.mean[-1, 0, 0], found.covariance[-1, 0, 0], found.correction[-1, 0, 0]
    for key, number, exact in zip(("K0", "V4", "K1"), numbers, g_only(name, variance), strict=True):
        # 1e-12: what the reference itself is good for
        assert abs(number / exact - 1) <= found.numerical_error[key] + 1e-12, key


@pytest.mark.parametrize("variance", [1.0, 100.0, 2e4, 1e6])
@pytest.mark.parametrize("smooth", [True, False], ids=["derivatives known", "by parts alone"])
@pytest.mark.parametrize(
    ("name", "function", "torch_function"),
    [("erf", erf, torch.erf), ("gelu", lambda x: x * ndtr(x), torch.nn.functional.gelu)],
    ids=["erf", "gelu"],
)
def test_series_of_two_inputs_agrees_with_the_closed_form(
    name: str, function: Rest, torch_function: Callable, smooth: bool, variance: float
) -> None:
    with registered("own_sigma", function, torch_function if smooth else None), warnings.catch_warnings():
        warnings.simplefilter("ignore", eft.NumericsWarning)
        for rho in (0.3, 0.99):
            kernel = [[variance, rho * variance], [rho * variance, variance]]
            exact, found = predict(name, kernel), predict("own_sigma", kernel)
            if rho == 0.3:
                assert found.converged
            assert found.correction is not None
            assert exact.correction is not None
            distance = np.linalg.norm(found.correction[-1] - exact.correction[-1])
            allowed = found.numerical_error["K1"] + exact.numerical_error["K1"]
            assert distance <= allowed * np.linalg.norm(exact.correction[-1])


@pytest.mark.parametrize("variance", [1.0, 2e4])
@pytest.mark.parametrize("name", ["tanh", "silu", "by parts alone"])
def test_duplicates_are_one_input(name: str, variance: float) -> None:
    with registered("own_sigma", np.tanh):
        sigma = "own_sigma" if name == "by parts alone" else name
        single, double = predict(sigma, [[variance]]), predict(sigma, [[variance, variance], [variance, variance]])
    assert double.converged
    assert single.correction is not None
    assert double.correction is not None
    np.testing.assert_allclose(double.correction, np.tile(single.correction, (1, 2, 2)), rtol=2e-9, atol=1e-13)


def test_nodes_do_not_grow_with_the_variance() -> None:
    for name in ("tanh", "silu", "softplus(beta=5)"):
        nodes = predict(name, [[1e8]]).details["nodes"]
        assert isinstance(nodes, int)
        assert nodes < 500


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_correction_that_vanishes_by_cancellation_is_converged(slope: float) -> None:
    """A kinked sigma without its closed form: K1 of one input is 0, and what rounding leaves of it is no error."""
    register_activation("own_leaky", lambda x: np.where(x > 0, x, slope * x), kinks=(0.0,))
    try:
        for variance in (1e-6, 3.0, 3e4):
            found = predict("own_leaky", [[variance]], depth=100)
            assert found.converged
            assert found.correction is not None
            assert np.abs(found.correction).max() <= 1e-12 * variance
    finally:
        unregister_activation("own_leaky")


@pytest.mark.parametrize(
    ("name", "ratio", "continuous"), [*product(LINES, (3.0, 0.1, 1.3**0.5), [False]), ("relu", 3.0, True)]
)
def test_proportional_inputs_stay_proportional(name: str, ratio: float, continuous: bool) -> None:
    """K1 of ReLU in G-only is 0 for proportional inputs; rounding must not pull them apart over many layers."""
    kernel = eft.InputKernel.explicit([[1.7, 1.7 * ratio], [1.7 * ratio, 1.7 * ratio**2]])
    model = eft.ResNet(activation=name, weight_variance=2.0, epsilon=0.1, depth=400)
    found = eft.predict(model, kernel, "g_only", continuous=continuous, depths=(0, 200, 400))
    assert found.converged, found.numerical_error
    assert found.correction is not None
    assert np.abs(found.correction).max() == 0.0
    np.testing.assert_allclose(found.mean[:, 0, 1], ratio * found.mean[:, 0, 0], rtol=1e-12)
