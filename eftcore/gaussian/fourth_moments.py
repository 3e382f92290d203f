"""Cov(sigma sigma, sigma sigma) = E4 - E2 E2 over pair space: up to four inputs at once (docs/theory.md, section 5).

Entries with one or two different inputs are one-dimensional integrals and Mehler series. Entries with three or four are
Wick series. E4 of four inputs is symmetric in them and is computed once, as the covariance of the two pairs that are
least correlated.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.pair_functions import PairFunctions
from eftcore.gaussian.pair_moments import PairMoments
from eftcore.gaussian.wick_algebra import largest_correlation
from eftcore.gaussian.wick_series import (
    NEGLIGIBLE,
    Components,
    WickSeries,
    components,
    covariances,
    cross_correlations,
)
from eftcore.pairs import pair_indices, pair_table

WORK = 1e8
"""Multiplications allowed for each Mehler term; it limits the Wick order for very many inputs."""

COMPILED = 16
"""Inputs from which on Wick series are summed in compiled code; for fewer it takes no longer than loading numba."""

_GATHERED = 4_000_000


def sigma_covariance(
    engine: MehlerExpectations, kernel: np.ndarray, moments: PairMoments, functions: PairFunctions
) -> np.ndarray:
    """(R, P, P) Cov(xi^S, xi^S) at a stack of kernels (eq. 4.19, 5.7).

    The truncation of the Wick series shows as the change between two resolutions of the engine.
    """
    n_inputs = kernel.shape[-1]
    covariance = np.empty((*moments.value.shape, moments.value.shape[-1]))
    if n_inputs > 2:
        highest = _highest_order(engine.terms, n_inputs)
        basis = components(highest, even_only=engine.activation.parity is not None)
        rows = max(1, _GATHERED // (moments.value.shape[-1] * engine.terms * (highest + 3)))
        for start in range(0, len(kernel), rows):
            here = slice(start, start + rows)
            series = _series if n_inputs < COMPILED else _series_compiled
            series(engine, kernel[here], moments.value[here], basis, covariance[here])
    _set_two(covariance, moments.value, functions, n_inputs)
    return covariance


def _highest_order(terms: int, n_inputs: int) -> int:
    """The highest Wick order for a number of Mehler terms; it rises with the terms, for any number of inputs."""
    order = 8 + terms // 4 if terms <= 256 else 72 + 32 * int(np.log2(terms / 256))
    # orders up to m cost 2 m^3 / 3 for each set of three or four inputs
    sets = comb(n_inputs, 4) + n_inputs * comb(n_inputs - 1, 2)
    affordable: int = min(order, round((1.5 * WORK * terms / sets) ** (1 / 3)))
    return affordable


def _series(
    engine: MehlerExpectations, kernel: np.ndarray, e2: np.ndarray, basis: Components, covariance: np.ndarray
) -> None:
    """Fill the entries of ``covariance`` (R, P, P) with three and four different inputs (eq. 5.8)."""
    table = pair_table(kernel.shape[-1])
    series = WickSeries(engine, kernel, basis)
    products, white = series.products(), series.white
    a, b, c = np.array([(a, *bc) for a in range(len(table)) for bc in _others(a, len(table))]).T
    # aa with bc is less correlated than ab with ac, which share an input
    aa, bc, ab, ac = table[a, a], table[b, c], table[a, b], table[a, c]
    found = covariances(products, kernel, white, basis, aa, bc)
    covariance[:, aa, bc] = covariance[:, bc, aa] = found
    covariance[:, ab, ac] = covariance[:, ac, ab] = found + e2[:, aa] * e2[:, bc] - e2[:, ab] * e2[:, ac]
    if len(table) < 4:
        return
    a, b, c, d = np.array(list(combinations(range(len(table)), 4))).T
    left = np.stack([table[a, b], table[a, c], table[a, d]])
    right = np.stack([table[c, d], table[b, d], table[b, c]])
    ties = np.stack(
        [largest_correlation(cross_correlations(kernel, white, q, p)) for q, p in zip(left, right, strict=True)]
    )
    choice, column = np.argmin(ties, axis=0), np.arange(len(a))
    rows = np.arange(len(kernel))[:, None]
    q, p = left[choice, column], right[choice, column]
    fourth = covariances(products, kernel, white, basis, q, p) + e2[rows, q] * e2[rows, p]
    for q, p in zip(left, right, strict=True):
        covariance[:, q, p] = covariance[:, p, q] = fourth - e2[:, q] * e2[:, p]


def _series_compiled(
    engine: MehlerExpectations, kernel: np.ndarray, e2: np.ndarray, basis: Components, covariance: np.ndarray
) -> None:
    """Fill the entries of ``covariance`` (R, P, P) as ``_series`` does, in compiled code."""
    from eftcore.gaussian.compiled_covariances import Rotations, fill, parts  # a third of a second

    table, inputs = pair_table(kernel.shape[-1]), np.stack(pair_indices(kernel.shape[-1]), axis=-1)
    series, found = WickSeries(engine, kernel, basis), Rotations.of(basis)
    products = series.products()
    rotations = found.orders, found.first, found.rows, found.back
    size = np.stack([(products[..., basis.where(k)] ** 2).sum(-1) for k in basis.orders], axis=-1)
    rest = np.sqrt(np.cumsum(size[..., ::-1], axis=-1)[..., ::-1])
    for row in range(len(kernel)):
        # with s the largest correlation between the variables of q and p, orders k and above add at most s^k rest rest
        floor = NEGLIGIBLE * float((rest[row, :, 0] ** 2).max())
        white = series.white.inverse[row]
        coefficients = *parts(products[row], basis), np.ascontiguousarray(rest[row])
        fill(covariance[row], e2[row], kernel[row], white, inputs, table, coefficients, rotations, floor)


def _others(a: int, n_inputs: int) -> list[tuple[int, int]]:
    return list(combinations([b for b in range(n_inputs) if b != a], 2))


def _set_two(covariance: np.ndarray, second_moment: np.ndarray, functions: PairFunctions, n_inputs: int) -> None:
    """Fill the entries of ``covariance`` with one or two different inputs, which need no truncated Wick series."""
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
