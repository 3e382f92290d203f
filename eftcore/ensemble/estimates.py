"""Estimates and standard errors from the additive sums: delta method, exact second moments of the influence functions.

M networks; all means are over networks. An estimate's standard error is sqrt(mean(influence^2) / M), which needs no
batches: every influence function is a polynomial in the vectors that eftcore.ensemble.sums adds up.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from eftcore.ensemble.sums import unpack

Estimate = tuple[np.ndarray, np.ndarray]
"""Value and standard error."""


def mean_estimate(total: np.ndarray, square: np.ndarray, count: int) -> Estimate:
    """Mean of a per-network quantity from its sum and sum of squares (eq. 7.8)."""
    mean = total / count
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.clip(square / count - mean**2, 0.0, None) * (np.float64(count) / (count - 1))
    return mean, np.sqrt(variance / count)


def plain_covariance(sums: dict[str, np.ndarray], count: int) -> Estimate:
    """(R, P, P) unbiased covariance of d; the influence of a network is (d_p - m_p)(d_q - m_q) - Cov (eq. 7.6, 7.9)."""
    pairs = sums["deviation"].shape[1]
    mean = sums["deviation"] / count
    second = unpack(sums["deviation_2"], pairs) / count
    third = sums["deviation_3"] / count
    fourth = unpack(sums["deviation_4"], pairs) / count
    m_p, m_q = mean[:, :, None], mean[:, None, :]
    square = np.diagonal(second, axis1=1, axis2=2)
    square_p, square_q = square[:, :, None], square[:, None, :]
    central = (
        fourth
        - 2 * m_q * third
        - 2 * m_p * np.swapaxes(third, 1, 2)
        + m_q**2 * square_p
        + m_p**2 * square_q
        + 4 * m_p * m_q * second
        - 3 * m_p**2 * m_q**2
    )
    biased = second - m_p * m_q
    return _unbiased(biased, central - biased**2, count)


def paired_change(sums: dict[str, np.ndarray], count: int) -> Estimate:
    """(R, P, P) unbiased Cov(d) - Cov(e) for the control e = d - R, whose mean is known to be zero.

    The estimate is mean(y) - m m^T with y = d d^T - e e^T and m = mean(R). The influence of a network is
    y_pq - m_p R_q - m_q R_p minus its mean (eq. 7.7, 7.9).
    """
    pairs = sums["residual"].shape[1]
    mean = sums["residual"] / count
    m_p, m_q = mean[:, :, None], mean[:, None, :]
    change = unpack(sums["change"], pairs) / count
    square = unpack(sums["change_2"], pairs) / count
    cross = sums["change_residual"] / count
    residual = unpack(sums["residual_2"], pairs) / count
    own = np.diagonal(residual, axis1=1, axis2=2)
    second = (
        square
        - 2 * m_q * cross
        - 2 * m_p * np.swapaxes(cross, 1, 2)
        + m_p**2 * own[:, None, :]
        + m_q**2 * own[:, :, None]
        + 2 * m_p * m_q * residual
    )
    variance = second - (change - 2 * m_p * m_q) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        product = (m_p * m_q * count - residual) / np.float64(count - 1)
        return change - product, np.sqrt(np.clip(variance, 0.0, None) / np.float64(count - 1))


@dataclass(frozen=True)
class Cumulants:
    """Third and fourth cumulants of n_inputs variables, (R, N) each, with standard errors."""

    third: np.ndarray
    third_se: np.ndarray
    fourth: np.ndarray
    fourth_se: np.ndarray


def cumulants(powers: np.ndarray, count: int) -> Cumulants:
    """k-statistics (unbiased) from power sums (R, N, 8) about an origin near the mean (eq. 7.11, 7.12)."""
    raw = powers / count
    mean = raw[..., 0]
    moment = [np.ones_like(mean), np.zeros_like(mean)]
    for order in range(2, powers.shape[-1] + 1):
        term = (-mean) ** order
        for k in range(1, order + 1):
            term = term + comb(order, k) * raw[..., k - 1] * (-mean) ** (order - k)
        moment.append(term)
    m2, m3, m4, m5, m6, m8 = (moment[k] for k in (2, 3, 4, 5, 6, 8))
    m = np.float64(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        third = m3 * m**2 / ((m - 1) * (m - 2))
        fourth = m**2 * ((m + 1) * m4 - 3 * (m - 1) * m2**2) / ((m - 1) * (m - 2) * (m - 3))
        third_variance = m6 - m3**2 - 6 * m4 * m2 + 9 * m2**3
        fourth_variance = (
            m8
            + 16 * m3**2 * m2
            + 36 * m2**2 * m4
            - 8 * m3 * m5
            - 12 * m2 * m6
            + 48 * m2 * m3**2
            - (m4 - 6 * m2**2) ** 2
        )
        errors = (np.sqrt(np.clip(v, 0.0, None) / (m - 1)) for v in (third_variance, fourth_variance))
        return Cumulants(third, next(errors), fourth, next(errors))


def _unbiased(biased: np.ndarray, variance: np.ndarray, count: int) -> Estimate:
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.float64(count) / (count - 1)
        return biased * factor, np.sqrt(np.clip(variance, 0.0, None) / np.float64(count - 1))
