"""How the fluctuations of the sigma-kernel relax over one layer, in the sigma closure (docs/theory.md, section 5).

Over a layer a mean-field neuron makes an independent Gaussian step of covariance h Q. The covariance of xi^{f_p} after
the layer with earlier fluctuations is therefore that of the conditional expectation T f_p of f_p. The second Wick order
of T f_p is known exactly. The rest, r_p, relaxes with the projected generator; the exponential of the generator over
the layer stays bounded however large h Q is.
"""

from __future__ import annotations

import numpy as np

from eftcore.pairs import pair_indices, product_covariance

LARGEST_EXPONENT = 100.0
"""Largest exponent; the bound on the variance of T r_p limits growth long before this."""


def second_order(kernel: np.ndarray, gradient: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """(R, P, 3, 3) covariances of the second Wick orders of f_aa, f_ab, f_bb of p = (a, b) (eq. 5.9).

    Args:
        kernel: (R, N, N) K0.
        gradient: (R, P, 3) <D_q f_p>.
        neighbours: (P, 3) positions of aa, ab, bb.

    >>> second_order(np.array([[[2.0]]]), np.ones((1, 1, 3)) * [1, 0, 0], np.zeros((1, 3), int))[0, 0, 0, 0].item()
    8.0
    """
    inputs = np.stack(pair_indices(kernel.shape[-1]), axis=-1)
    own = kernel[:, inputs[:, :, None], inputs[:, None, :]]
    wishart = product_covariance(own, own)
    slopes = np.zeros((*gradient.shape[:2], 3, 3))
    slopes[:, :, 0, 0] = gradient[:, neighbours[:, 0], 0]
    slopes[:, :, 1] = gradient
    slopes[:, :, 2, 2] = gradient[:, neighbours[:, 2], 0]
    covariance: np.ndarray = slopes @ wishart @ np.swapaxes(slopes, -1, -2)
    return covariance


def relaxation(
    exponent: np.ndarray, gram: np.ndarray, variance_after: np.ndarray, neighbours: np.ndarray
) -> np.ndarray:
    """(R, P, 3) coefficients of T r_p on r_aa, r_ab, r_bb of p = (a, b); column 0 alone for p = (a, a) (eq. 5.11).

    Args:
        exponent: (R, P, 3) the projected generator times the step, h sum_q Q_q B^p_qs.
        gram: (R, P, 3, 3) covariances of r_aa, r_ab, r_bb.
        variance_after: (R, P) variance of r_p after the layer; the variance of T r_p cannot exceed it (eq. 5.12).
        neighbours: (P, 3) positions of aa, ab, bb.

    >>> one = np.ones((1, 1))
    >>> relaxation(-0.5 * np.ones((1, 1, 3)), np.ones((1, 1, 3, 3)), one, np.zeros((1, 3), int)).round(4).tolist()
    [[[0.6065, 0.0, 0.0]]]
    """
    own = neighbours[:, 0] == neighbours[:, 2]
    exponent = np.minimum(exponent, LARGEST_EXPONENT)
    alone = exponent[..., 0]
    factor = np.zeros_like(exponent)
    factor[:, own, 0] = np.exp(alone[:, own])
    middle = exponent[:, ~own, 1]
    factor[:, ~own, 1] = np.exp(middle)
    for column in (0, 2):
        corner = alone[:, neighbours[~own, column]]
        factor[:, ~own, column] = exponent[:, ~own, column] * _divided_difference(middle, corner)
    variance = np.einsum("rps,rpst,rpt->rp", factor, gram, factor)
    above = variance > np.maximum(variance_after, 0.0)
    excess = np.divide(variance_after, variance, out=np.ones_like(variance), where=above)
    kept: np.ndarray = factor * np.sqrt(np.maximum(excess, 0.0))[..., None]
    return kept


def _divided_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(e^x - e^y) / (x - y), with the larger exponential as a factor so that nothing overflows."""
    gap = np.abs(x - y)
    ratio = np.divide(-np.expm1(-gap), gap, out=np.ones_like(gap), where=gap > 0)
    quotient: np.ndarray = np.exp(np.maximum(x, y)) * ratio
    return quotient
