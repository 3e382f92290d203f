"""Cov(sigma sigma, sigma sigma) = E4 - E2 E2 over pair space: up to four inputs at once (docs/theory.md, section 5).

One or two different inputs: one-dimensional integrals and Mehler series. Three and four: the Wick series for few
inputs, randomised quasi-Monte Carlo for many, where only what is left after the exact second Wick order is sampled.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from eftcore.expectations import MehlerExpectations, PairMoments
from eftcore.pair_functions import PairFunctions
from eftcore.pairs import pair_indices, pair_table, product_covariance
from eftcore.wick_series import Components, WickSeries, contract

SERIES_INPUTS = 5
"""Up to this many inputs the Wick series is used."""


def sigma_covariance(
    engine: MehlerExpectations, kernel: np.ndarray, moments: PairMoments, functions: PairFunctions, basis: Components
) -> np.ndarray:
    """(R, P, P) Cov(xi^S, xi^S) at a stack of kernels (eq. 4.19, 5.7).

    ``basis`` truncates the Wick series; for more than SERIES_INPUTS inputs the sampling error shows as the change
    between two resolutions of the engine, which use independent points.
    """
    n_inputs = kernel.shape[-1]
    if n_inputs <= 2:
        covariance = np.empty((*moments.value.shape, moments.value.shape[-1]))
    elif n_inputs <= SERIES_INPUTS:
        series = WickSeries(engine, kernel, basis)
        products = series.products()
        covariance = np.einsum("rqpi,rpi->rqp", contract(products, kernel, series.white, basis), products)
    else:
        covariance = _sampled(engine, kernel, moments)
    if n_inputs > 2:
        _regroup_three(covariance, moments.value, n_inputs)
    _set_two(covariance, moments.value, functions, n_inputs)
    return (covariance + np.swapaxes(covariance, -1, -2)) / 2


def _sampled(engine: MehlerExpectations, kernel: np.ndarray, moments: PairMoments) -> np.ndarray:
    """Exact second Wick order plus the sampled covariance of the rest, at points common to all depths (eq. 5.8)."""
    first, second = pair_indices(kernel.shape[-1])
    table = pair_table(kernel.shape[-1])
    neighbours = np.stack([table[first, first], np.arange(len(first)), table[second, second]], axis=-1)
    count = 2 ** min(11 + engine.level, 15)
    sobol = qmc.Sobol(kernel.shape[-1], scramble=True, rng=np.random.default_rng([engine.level, engine.terms]))
    z = ndtri(np.clip(sobol.random(count), 1e-12, 1 - 1e-12))
    result = np.empty((*moments.value.shape, len(first)))
    for row, k in enumerate(kernel):
        assert moments.gradient is not None
        values, vectors = np.linalg.eigh(k)
        phi = z @ (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        sigma = np.asarray(engine.activation.function(phi), dtype=float)
        gradient = moments.gradient[row]
        fluctuation = phi[:, first] * phi[:, second] - k[first, second]
        rest = sigma[:, first] * sigma[:, second] - moments.value[row]
        for column in range(3):
            rest -= gradient[:, column] * fluctuation[:, neighbours[:, column]]
        wishart = product_covariance(k, k)
        carried = sum(gradient[:, column, None] * wishart[neighbours[:, column]] for column in range(3))
        linear = sum(gradient[:, column, None] * carried.T[neighbours[:, column]] for column in range(3))
        result[row] = linear + rest.T @ rest / count
    return result


def _regroup_three(covariance: np.ndarray, second_moment: np.ndarray, n_inputs: int) -> None:
    """Cov(ab, ac) from Cov(aa, bc), whose series converges faster: both hold the same E4."""
    table = pair_table(n_inputs)
    for a in range(n_inputs):
        others = np.array([b for b in range(n_inputs) if b != a], dtype=int)
        b, c = (x.ravel() for x in np.meshgrid(others, others, indexing="ij"))
        b, c = b[b != c], c[b != c]
        left, right, aa, bc = table[a, b], table[a, c], table[a, a], table[b, c]
        own, cross = second_moment[:, [aa]] * second_moment[:, bc], second_moment[:, left] * second_moment[:, right]
        covariance[:, left, right] = covariance[:, aa, bc] + own - cross


def _set_two(covariance: np.ndarray, second_moment: np.ndarray, functions: PairFunctions, n_inputs: int) -> None:
    """Entries that touch one or two different inputs, without truncation."""
    first, second = pair_indices(n_inputs)
    table = pair_table(n_inputs)
    e2 = second_moment
    own = np.flatnonzero(first == second)
    covariance[:, own, own] = functions.single("s4") - e2[:, own] ** 2
    cross = np.flatnonzero(first != second)
    aa, bb = table[first[cross], first[cross]], table[second[cross], second[cross]]
    square = functions.mean("s2", "s2")[:, cross]
    covariance[:, aa, bb] = covariance[:, bb, aa] = square - e2[:, aa] * e2[:, bb]
    covariance[:, cross, cross] = square - e2[:, cross] ** 2
    for corner, (left, right) in ((aa, ("s3", "s")), (bb, ("s", "s3"))):
        value = functions.mean(left, right)[:, cross] - e2[:, corner] * e2[:, cross]
        covariance[:, corner, cross] = covariance[:, cross, corner] = value
