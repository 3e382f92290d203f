"""From scores of mean zero to p-values, and to what each block really has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

RANK = 1e-9
"""Directions in which scores vary less than this, relative to the most, are left out of the test."""


@dataclass(frozen=True)
class Fit:
    """A coefficient of a block as it is fitted.

    Attributes:
        value: the estimate.
        se: its standard error.
    """

    value: float
    se: float


def hotelling(values: np.ndarray) -> float:
    """p-value of mean zero for R independent vectors (R, Q), by Hotelling's T squared.

    >>> rng = np.random.default_rng(0)
    >>> hotelling(rng.normal(size=(200, 3))) > 0.01, hotelling(rng.normal(size=(200, 3)) + 1.0) < 1e-20
    (True, True)
    """
    networks = len(values)
    mean = values.mean(0)
    spread = np.atleast_2d(np.cov(values, rowvar=False))
    size = np.sqrt(np.diag(spread))
    varied = size > RANK * max(float(size.max()), float(np.abs(mean).max()), 1e-300)
    if np.abs(mean[~varied]).max(initial=0.0) > RANK * max(float(np.abs(values).max()), 1e-300):
        return 0.0  # what does not vary is not zero
    if not varied.any():
        return 1.0
    mean, size = mean[varied] / size[varied], size[varied]
    eigenvalues, vectors = np.linalg.eigh(spread[np.ix_(varied, varied)] / np.outer(size, size))
    kept = eigenvalues > RANK * eigenvalues[-1]
    rank = int(kept.sum())
    statistic = networks * float(((vectors[:, kept].T @ mean) ** 2 / eigenvalues[kept]).sum())
    scaled = statistic * (networks - rank) / (rank * (networks - 1))
    return float(stats.f.sf(scaled, rank, networks - rank))


def skewed(values: np.ndarray) -> float:
    """p-value of mean zero for R independent numbers of a skewed law, to order 1 / R.

    By Hall's transformation of Student's statistic, which removes its skewness (J. R. Statist. Soc. B 54 (1992) 221).

    >>> rng = np.random.default_rng(0)
    >>> skewed(rng.exponential(size=100) - 1) > 0.01, skewed(rng.exponential(size=100)) < 1e-6
    (True, True)
    """
    networks, mean, spread = len(values), float(values.mean()), float(values.std())
    if spread <= RANK * abs(mean) or not spread:
        return 1.0 if mean == 0 else 0.0
    skewness = float(((values - mean) ** 3).mean()) / spread**3
    ratio = mean / spread
    straight = ratio + skewness * ratio**2 / 3 + skewness**2 * ratio**3 / 27 + skewness / (6 * networks)
    return float(2 * stats.t.sf(abs(straight) * np.sqrt(networks), networks - 1))


def block_p_value(values: np.ndarray, squares: int) -> float:
    """p-value of mean zero for the scores (R, Q) of a block, of which the last ``squares`` are of skewed laws."""
    together = [hotelling(values[:, :-squares]), *(skewed(column) for column in values[:, -squares:].T)]
    return simultaneous(np.array(together))


def simultaneous(p_values: np.ndarray) -> float:
    """The p-value of the smallest of independent p-values."""
    return float(-np.expm1(len(p_values) * np.log1p(-min(float(p_values.min()), 1 - 1e-16))))


def fit_branch(increment: np.ndarray, parts: list[np.ndarray]) -> list[Fit]:
    """Coefficients c of mean(increment) = sum_k c_k mean(part_k), with standard errors, by generalised least squares.

    Args:
        increment: (R, P) products of increments of R networks.
        parts: (R, P) each: what the weights and what the biases make of the stream.
    """
    networks = len(increment)
    design = np.stack([part.mean(0) for part in parts], axis=1)
    # the weights come from what is left around a first estimate
    start = np.linalg.lstsq(design, increment.mean(0), rcond=None)[0]
    for _ in range(2):
        rest = increment - sum(c * part for c, part in zip(start, parts, strict=True))
        covariance = np.atleast_2d(np.cov(rest, rowvar=False)) / networks
        inverse = np.linalg.pinv(covariance, hermitian=True)
        normal = np.linalg.pinv(design.T @ inverse @ design, hermitian=True)
        start = normal @ design.T @ inverse @ increment.mean(0)
    return [Fit(float(c), float(np.sqrt(v))) for c, v in zip(start, np.diag(normal), strict=True)]


def confusions(width: int, hidden: int, depth: int, epsilon: float) -> dict[str, float]:
    """Ratios of a variance to the intended one that common mistakes cause, by what the mistake is.

    >>> confusions(64, 256, 10, 0.1)["n for sqrt(n) in the deviation"]
    0.015625
    """
    h = epsilon**2
    found = {
        "the gain of ReLU forgotten": 0.5,
        "the gain of ReLU twice": 2.0,
        "n for sqrt(n) in the deviation": 1.0 / width,
        "sqrt(n) confused with n, the other way": float(width),
        "the square root of n left out of the variance": float(np.sqrt(width)),
        "the deviation taken as the variance, n^(1/4)": 1 / float(np.sqrt(width)),
        "m for sqrt(m) in the deviation": 1.0 / hidden,
        "the factor of depth twice": h,
        "no factor of depth": 1 / h,
        "the factor of depth upside down": 1 / h**2,
        "a factor L": float(depth),
        "a factor 1 / L": 1.0 / depth,
        "torch's default, one third of 1 / fan_in": 1 / 3,
    }
    if hidden != width:
        found |= {"fan_in for fan_out": hidden / width, "fan_out for fan_in": width / hidden}
    return found


def likely_confusions(ratio: Fit, known: dict[str, float]) -> tuple[str, ...]:
    """The mistakes whose ratio lies within 3 standard errors or 3 % of the fitted one, the nearest first."""
    if ratio.value <= 0:
        return ()
    near = {name: abs(float(np.log(ratio.value / value))) for name, value in known.items() if value != 1}
    bound = max(3 * ratio.se / ratio.value, 0.03)
    return tuple(sorted((name for name, distance in near.items() if distance <= bound), key=lambda name: near[name]))
