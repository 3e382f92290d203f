"""The local projection of the sigma-kernel closure (docs/theory.md, section 5).

D_r f_p - <D_r f_p> is replaced by its best approximation in L2 of N(0, K0) by {phi phi, sigma sigma} at the pairs aa,
ab, bb of p = (a, b); for p = (a, a) by phi_a^2 and sigma_a^2. Only integrals over two inputs enter.
"""

from __future__ import annotations

import numpy as np

from eftcore.gaussian.pair_functions import PairFunctions
from eftcore.gaussian.pair_moments import PairMoments
from eftcore.pairs import pair_indices, product_covariance

CUTOFF = 1e-10
"""Directions of the normalised Gram matrix below this are dropped: there phi phi and sigma sigma coincide."""

# <D_r f_p sigma sigma_t> for r, t = aa, ab, bb as (factor, function of a, function of b)
_PRODUCTS = (
    ((0.5, "css", "s"), (0.5, "cs", "s2"), (0.5, "c", "s3")),
    ((1.0, "dss", "d"), (1.0, "ds", "ds"), (1.0, "d", "dss")),
    ((0.5, "s3", "c"), (0.5, "s2", "cs"), (0.5, "s", "css")),
)


def project(
    functions: PairFunctions,
    moments: PairMoments,
    kernel: np.ndarray,
    sigma_sigma: np.ndarray,
    neighbours: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(R, P, 3, 3) coefficients A[p, r, s] on phi phi_s and B[p, r, s] on sigma sigma_s; r, s = aa, ab, bb (eq. 5.3).

    Args:
        kernel: (R, N, N) K0.
        sigma_sigma: (R, P, P) Cov(xi^S, xi^S).
        neighbours: (P, 3) positions in pair space of the pairs aa, ab, bb of p = (a, b).
    """
    assert moments.gradient is not None
    assert moments.hessian is not None
    rows, pairs = moments.value.shape
    q, r = neighbours[:, :, None], neighbours[:, None, :]
    inputs = np.stack(pair_indices(kernel.shape[-1]), axis=-1)
    between = kernel[:, inputs[:, :, None], inputs[:, None, :]]
    wishart = product_covariance(between, between)
    corner = np.zeros((rows, pairs, 3, 3))
    corner[:, :, 0, 0] = moments.gradient[:, neighbours[:, 0], 0]
    corner[:, :, 1] = moments.gradient
    corner[:, :, 2, 2] = moments.gradient[:, neighbours[:, 2], 0]
    gram = np.empty((rows, pairs, 6, 6))
    gram[..., :3, :3] = wishart
    gram[..., 3:, :3] = corner @ wishart
    gram[..., :3, 3:] = np.swapaxes(gram[..., 3:, :3], -1, -2)
    gram[..., 3:, 3:] = sigma_sigma[:, q, r]
    target = np.empty((rows, pairs, 3, 6))
    # Cov(D_r f, phi phi_s) is its second Wick order: H contracted with the Wishart covariance
    target[..., :3] = moments.hessian @ wishart
    for row, products in enumerate(_PRODUCTS):
        for column, (factor, left, right) in enumerate(products):
            disconnected = moments.gradient[:, :, row] * moments.value[:, neighbours[:, column]]
            target[..., row, 3 + column] = factor * functions.mean(left, right) - disconnected
    first, second = inputs.T
    own = np.flatnonzero(first == second)
    keep = [0, 3]
    small = np.zeros_like(target[:, own])
    small[..., 0, 0] = target[:, own, 0, 0]
    small[..., 0, 3] = functions.single("os2") - moments.gradient[:, own, 0] * moments.value[:, own]
    drop = np.setdiff1d(np.arange(6), keep)
    target[:, own] = small
    for index in drop:
        gram[:, own, index, :] = 0.0
        gram[:, own, :, index] = 0.0
    found = _least_squares(gram, target)
    _share_duplicates(found, functions, own[first], own[second])
    return found[..., :3], found[..., 3:]


def _least_squares(gram: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(..., 3, 6) target times the pseudo-inverse of the (..., 6, 6) Gram matrix, scaled to variance 1 (eq. 5.4)."""
    scale = np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    normal = gram * inverse[..., :, None] * inverse[..., None, :]
    values, vectors = np.linalg.eigh(normal)
    weights = np.divide(1.0, values, out=np.zeros_like(values), where=values > CUTOFF)
    rotated = (target * inverse[..., None, :]) @ vectors
    found: np.ndarray = (rotated * weights[..., None, :]) @ np.swapaxes(vectors, -1, -2) * inverse[..., None, :]
    return found


def _share_duplicates(found: np.ndarray, functions: PairFunctions, aa: np.ndarray, bb: np.ndarray) -> None:
    """For equal inputs of a kinked sigma, let D_ab f be the whole derivative along K_aa, as for the pair (a, a)."""
    if functions.smooth or not functions.tied.any():
        return
    rows, pairs = np.nonzero(functions.tied)
    equal = (functions.a[rows, pairs] == functions.b[rows, pairs]) & (functions.sign[rows, pairs] > 0)
    found[rows, pairs] = 0.0
    rows, pairs = rows[equal], pairs[equal]
    found[rows, pairs, 1] = found[rows, aa[pairs], 0]
