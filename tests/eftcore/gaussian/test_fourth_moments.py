"""E4 with one to four different inputs against closed forms and independent integration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

import eftcore as eft
from eftcore.gaussian import fourth_moments
from eftcore.gaussian.fourth_moments import sigma_covariance
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.pair_functions import PairFunctions
from eftcore.pairs import pair_indices, pair_table

X = np.random.default_rng(7).standard_normal((6, 8))
KERNELS = {
    "random": X[:4] @ X[:4].T / 8,
    "correlated": 1.2 * (0.2 * np.eye(4) + 0.8),
    "two clusters": np.kron([[1.0, 0.3], [0.3, 1.0]], [[1.0, 0.95], [0.95, 1.0]]),
    "low rank": X[:4, :2] @ X[:4, :2].T / 2,
    "duplicates": np.array([[1.0, 1.0, 0.3, 0.0], [1.0, 1.0, 0.3, 0.0], [0.3, 0.3, 0.8, 0.0], [0.0, 0.0, 0.0, 0.0]]),
}


def covariance(activation: str, kernel: np.ndarray, level: int = 3, terms: int = 128) -> np.ndarray:
    engine = MehlerExpectations(eft.get_activation(activation), level=level, terms=terms)
    stack = kernel[None]
    return sigma_covariance(engine, stack, engine.moments(stack, 2), PairFunctions(engine, stack))[0]


def of_waves(kernel: np.ndarray, *, odd: bool) -> np.ndarray:
    """Exact for sin and cos: products are sums of exp(i s.phi), whose mean is exp(-s.K s / 2)."""

    def mean(inputs: tuple[int, ...]) -> float:
        total = 0.0
        for signs in product((1, -1), repeat=len(inputs)):
            s = np.zeros(len(kernel))
            np.add.at(s, list(inputs), signs)
            total += (np.prod(signs) if odd else 1) * np.exp(-s @ kernel @ s / 2)
        return float(total / 2 ** len(inputs) * ((-1) ** (len(inputs) // 2) if odd else 1))

    pairs = list(zip(*pair_indices(len(kernel)), strict=True))
    return np.array([[mean(p + q) - mean(p) * mean(q) for q in pairs] for p in pairs])


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("activation", ["sin", "cos"])
def test_waves_are_exact(activation: str, kernel: np.ndarray) -> None:
    np.testing.assert_allclose(
        covariance(activation, kernel), of_waves(kernel, odd=activation == "sin"), rtol=0, atol=1e-11
    )


def test_six_inputs_are_as_exact_as_four() -> None:
    kernel = X @ X.T / 8
    np.testing.assert_allclose(covariance("sin", kernel), of_waves(kernel, odd=True), rtol=0, atol=1e-11)


def by_grid(activation: str, kernel: np.ndarray, nodes: int) -> np.ndarray:
    """(P, P) by the trapezoidal rule on a full grid in the eigenvectors' coordinates."""
    z = np.linspace(-7.5, 7.5, nodes)
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    values, vectors = np.linalg.eigh(kernel)
    used = values > 1e-12 * values.max()
    root = (vectors * np.sqrt(np.maximum(values, 0.0)))[:, used]
    grid = np.stack(np.meshgrid(*[z] * root.shape[1], indexing="ij"), axis=-1).reshape(-1, root.shape[1])
    mass = np.prod(np.stack(np.meshgrid(*[weight] * root.shape[1], indexing="ij"), axis=-1), axis=-1).ravel()
    first, second = pair_indices(len(kernel))
    sigma = eft.get_activation(activation).function(grid @ root.T)
    pairs = sigma[:, first] * sigma[:, second]
    mean = mass @ pairs
    return (pairs * mass[:, None]).T @ pairs - np.outer(mean, mean)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus(beta=2)"])
@pytest.mark.parametrize("inputs", [3, 4])
def test_three_and_four_inputs_against_a_grid(activation: str, inputs: int) -> None:
    """The grid's own error is its change from fewer nodes."""
    kernel = 0.25 * KERNELS["random"][:inputs, :inputs]
    coarse, fine = (by_grid(activation, kernel, nodes) for nodes in ((41, 51) if inputs == 3 else (25, 31)))
    error = 2 * np.abs(fine - coarse).max() + 1e-10
    assert error < 1e-7
    assert np.abs(covariance(activation, kernel) - fine).max() < error


@pytest.mark.parametrize("inputs", [4, 6])
def test_relu_agrees_with_independent_sampling(inputs: int) -> None:
    """Plain Monte Carlo in 400 batches; worst z-score of P (P + 1) / 2 entries, false alarm 1e-3 by Bonferroni."""
    kernel = X[:inputs] @ X[:inputs].T / 8
    coarse, found = (covariance("relu", kernel, level, terms) for level, terms in ((5, 64), (6, 128)))
    assert np.abs(found - coarse).max() < 1e-7
    first, second = pair_indices(inputs)
    root = np.linalg.cholesky(kernel)
    rng = np.random.default_rng(3)
    batches = []
    for _ in range(400):
        sigma = np.maximum(rng.standard_normal((2000, inputs)) @ root.T, 0.0)
        batches.append(np.cov((sigma[:, first] * sigma[:, second]).T))
    mean, error = np.mean(batches, axis=0), np.std(batches, axis=0, ddof=1) / np.sqrt(len(batches))
    entries = len(first) * (len(first) + 1) / 2
    assert (np.abs(found - mean) / error).max() < norm.isf(1e-3 / (2 * entries))


def test_truncated_series_of_a_kink_shows_its_error_as_the_change_between_resolutions() -> None:
    """Strong correlations and a kink: the series is slow, and twice the change must cover what is missing."""
    kernel = 0.04 * np.eye(4) + 0.96
    exact = covariance("relu", kernel, 8, 1024)
    for terms in (32, 64, 128, 256):
        coarse, fine = (covariance("relu", kernel, 8, count) for count in (terms, 2 * terms))
        error = np.linalg.norm(fine - exact)
        assert 1e-9 < error / np.linalg.norm(exact) < 2 * np.linalg.norm(fine - coarse) / np.linalg.norm(exact)


def test_covariance_is_the_same_whatever_the_order_of_inputs() -> None:
    kernel, order = KERNELS["random"], [2, 0, 3, 1]
    table = pair_table(4)
    first, second = pair_indices(4)
    moved = table[np.array(order)[first], np.array(order)[second]]
    turned = covariance("tanh", kernel[np.ix_(order, order)])
    np.testing.assert_allclose(turned, covariance("tanh", kernel)[np.ix_(moved, moved)], rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["sin", "gelu"])
def test_compiled_series_agree(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven inputs, of which two are equal and two proportional, and one vanishes."""
    x = np.random.default_rng(11).standard_normal((7, 9)) / 3
    x[3], x[5], x[6] = x[2], -2 * x[4], 0.0
    plain = covariance(activation, x @ x.T, terms=64)
    monkeypatch.setattr(fourth_moments, "COMPILED", 3)
    np.testing.assert_allclose(covariance(activation, x @ x.T, terms=64), plain, rtol=0, atol=1e-15 * plain.max())
