"""Linear maps on Wick powers: against the polynomials themselves, evaluated at points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftcore.gaussian.hermite import hermite_functions
from eftcore.gaussian.wick_algebra import Substitution, Turn, largest_correlation, shear, to_circular
from eftcore.gaussian.wick_series import Whitening, components


def contraction(seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """A random 2 x 2 matrix whose singular values are below 1, as correlations between orthonormal variables."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((2, 2))
    return matrix / np.linalg.norm(matrix, 2) * rng.uniform(0.2, 1.0), rng


def leading_part(coefficients: np.ndarray, order: int, z: np.ndarray) -> np.ndarray:
    """The homogeneous polynomial of h_i(z_1) h_j(z_2): z_1^i z_2^j / sqrt(i! j!), which a contraction maps exactly."""
    from scipy.special import gammaln

    i = np.arange(order + 1)
    norm = np.exp(-0.5 * (gammaln(i + 1) + gammaln(order - i + 1)))
    return (coefficients * norm * z[:, :1] ** i * z[:, 1:] ** (order - i)).sum(1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.integers(1, 14))
def test_substitution_is_that_of_the_polynomial(seed: int, order: int) -> None:
    matrix, rng = contraction(seed)
    coefficients = rng.standard_normal(order + 1)
    change = Substitution(matrix[None], order)
    middle = change.scaled(order, to_circular(order, coefficients[None]))
    found = Turn(change.angle, order).powers(order, to_circular(order, middle))[0]
    z = rng.standard_normal((20, 2))
    before, after = leading_part(coefficients, order, z @ matrix.T), leading_part(found, order, z)
    terms = leading_part(np.full(order + 1, np.abs(found).max()), order, np.abs(z))  # which may cancel in the sum
    assert (np.abs(after - before) <= 1e-12 * terms).all()
    np.testing.assert_allclose(largest_correlation(matrix), np.linalg.norm(matrix, 2), rtol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 60, 161])
def test_rotations_lose_no_digits_at_high_order(order: int) -> None:
    """A rotation is orthogonal on normalised Wick powers, and turning back gives the same."""
    rng = np.random.default_rng(order)
    coefficients = rng.standard_normal((5, order + 1))
    angle = rng.uniform(-4, 4, 5)
    turned = Turn(angle, order).powers(order, to_circular(order, coefficients))
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(coefficients, axis=1), rtol=1e-12)
    back = Turn(-angle, order).powers(order, to_circular(order, turned))
    np.testing.assert_allclose(back, coefficients, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tied=st.booleans())
def test_shear_rewrites_wick_powers_in_the_next_layers_variables(seed: int, tied: bool) -> None:
    """For z' = T z with z, z' standard normal: Cov(u, :z'^i z'^j:) for u a Wick polynomial, by direct integration."""
    rng = np.random.default_rng(seed)
    basis = components(6, even_only=False)
    x = rng.standard_normal((2, 1 if tied else 3))
    noise = rng.standard_normal((2, 3))
    now, later = (Whitening(kernel[None]) for kernel in (x @ x.T, x @ x.T + rng.uniform(0.01, 1) * noise @ noise.T))
    matrix = (later.inverse @ now.factor)[0, 1]
    assert bool(now.tied[0, 1]) == tied
    z, weight = np.polynomial.hermite_e.hermegauss(8)
    x, y = (grid.ravel() for grid in np.meshgrid(z, z, indexing="ij"))
    density = np.outer(weight, weight).ravel() / weight.sum() ** 2
    u = rng.standard_normal(len(basis.first)) * (basis.second == 0 if tied else 1)
    source = u @ (hermite(x, 7)[basis.first] * hermite(y, 7)[basis.second])
    # martingale: E[:z'^i z'^j: | z] is the polynomial with z' -> T z, whose variance is completed by fresh noise
    found = shear(u[None, None], matrix[None], basis.first, basis.second)[0, 0]
    values, vectors = np.linalg.eigh(np.eye(2) - matrix @ matrix.T)
    fresh = vectors * np.sqrt(np.maximum(values, 0.0))
    first, second = np.einsum("ij,jm->im", matrix, np.stack([x, y]))[:, None] + (fresh @ np.stack([x, y]))[:, :, None]
    powers = hermite(first.ravel(), 7)[basis.first] * hermite(second.ravel(), 7)[basis.second]
    expected = powers @ np.outer(density, density * source).ravel()
    np.testing.assert_allclose(found, expected, atol=1e-9)


def hermite(z: np.ndarray, count: int) -> np.ndarray:
    """(count, J) h_k(z)."""
    return hermite_functions(z, count).T / hermite_functions(z, 1).T
