"""How far a standard error itself can be trusted: the law of one network's kernel decides (docs/theory.md, section 7).

Standard errors rest on second moments of what each network contributes. Where those contributions are skewed, an
estimate that happens to be low comes with an error that is low too, and value +- 2 se covers less than 95 %. How much
less follows from their skewness, but a sample with heavy tails underestimates its own skewness. It is therefore taken
from a model with two numbers, the relative spread s of G and its skewness, in which a power of G is Gaussian. The
spread is taken from theory: a sample that lacks the rare networks with a large kernel also shows too small a spread,
and a judgement by the sample alone would pass just the samples that are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eftcore.ensemble.bands import NORMAL
from eftcore.gaussian.hermite import gauss_hermite_nodes

LARGEST = 1.3
"""Largest factor on a standard error for which the expansion behind it is trusted; above it the error is unreliable."""

SURPRISE = 1.25
"""Where the spread of the sample exceeds the expected spread by more than this factor, the sample's is used."""

POWERS = (0.0, 1 / 6, 1 / 3)
"""Powers of G that may be Gaussian, from the log-normal law (0) to the law of a chi-squared variable (1/3)."""

CONTRIBUTIONS = {
    ("K0", "plain"): "kernel",
    ("K0", "paired"): "residual",
    ("K1", "plain"): "kernel",
    ("K1", "paired"): "residual",
    ("U1", "plain"): "kernel",
    ("U1", "paired"): "residual",
    ("V4", "plain"): "square",
    ("V4", "paired"): "change",
    ("Sigma", "plain"): "product",
    ("Sigma", "paired"): "square",
    ("kappa3", "plain"): "third",
    ("kappa3", "paired"): "third",
    ("kappa4", "plain"): "fourth",
    ("kappa4", "paired"): "fourth",
}
"""What one network contributes to an estimate, by quantity and estimator."""


@dataclass(frozen=True, eq=False)
class Widening:
    """The factor by which the standard errors of one quantity are multiplied, at R recorded depths.

    Attributes:
        needed: (R,) factor that makes value +- 1.96 se a 95 % interval, by the expansion of eq. 7.14.
        reliable: (R,) whether the expansion can be trusted.
    """

    needed: np.ndarray
    reliable: np.ndarray

    @property
    def factor(self) -> np.ndarray:
        """(R,) factor that the standard errors contain: at most LARGEST; larger ones are marked unreliable instead."""
        factor: np.ndarray = np.minimum(self.needed, LARGEST)
        return factor

    @property
    def degrees_of_freedom(self) -> np.ndarray:
        """(R,) degrees of freedom of the Student law whose quantile has this factor, to first order (eq. 7.16)."""
        return (NORMAL**2 + 1) / 4 / (self.needed - 1)


def widening(
    contribution: str, spread: np.ndarray, skewness: np.ndarray, networks: int, expected: np.ndarray | None = None
) -> Widening:
    """The widening for networks whose G has this relative spread and skewness, (R,) each (eq. 7.14 to 7.18).

    Hall's expansion of a studentised mean to order 1 / M (P. Hall, The Bootstrap and Edgeworth Expansion, 1992, section
    2.6), without the term of the kurtosis, which would narrow the interval. ``expected`` (R,) is the relative variance
    of the leading order, NaN where it is unknown.

    >>> found = widening("square", np.array([0.2]), np.array([0.4]), 2000)
    >>> bool(found.reliable[0]), round(float(found.factor[0]), 3)
    (True, 1.014)
    """
    z = NORMAL
    power = power_of(spread, skewness, networks)
    if expected is not None:
        spread = credible_spread(spread, expected, power)
    skewed = model_skewness(contribution, spread, power)
    by_skewness, by_count = (z**5 + 2 * z**3 - 3 * z) / 18, (z**3 + z) / 4
    needed = 1 + (by_skewness * skewed**2 + by_count) / (z * max(networks, 1))
    return Widening(needed, (needed <= LARGEST) & (networks > 1))


def power_of(spread: np.ndarray, skewness: np.ndarray, networks: int) -> np.ndarray:
    """(R,) the smallest power lambda that is compatible with the skewness, 3 s (1 - lambda) for small s (eq. 7.15).

    The skewness of a sample has an error of about sqrt(6 / M) (1 + 3 s + 3 s^2); the second factor is an allowance for
    laws that are not Gaussian. Where this error is too large to exclude any power, the log-normal law (0) is taken.
    """
    safe = np.where(spread > 0, spread, 1.0)
    error = np.sqrt(6 / max(networks, 1)) * (1 + 3 * spread + 3 * spread**2)
    power: np.ndarray = np.clip(1 - (skewness + 2 * error) / (3 * safe), POWERS[0], POWERS[-1])
    return power


def credible_spread(spread: np.ndarray, expected: np.ndarray, power: np.ndarray) -> np.ndarray:
    """(R,) spread from the relative variance of the leading order, or the sample's if far larger (eq. 7.18).

    >>> credible_spread(np.array([2.1, 0.3, 0.3]), np.array([2.42, 0.04, np.nan]), np.zeros(3)).round(2).tolist()
    [3.2, 0.3, 0.3]
    """
    shape = np.maximum(3 * power, 1e-9)
    # (1 + 3 lambda x)^(1 / 3 lambda) - 1 without cancellation; the tables end long before exp overflows
    theory = np.sqrt(np.expm1(np.minimum(np.log1p(shape * expected) / shape, 50.0)))
    return np.where(spread > SURPRISE * theory, spread, np.where(np.isfinite(theory), theory, spread))


def model_skewness(contribution: str, spread: np.ndarray, power: np.ndarray) -> np.ndarray:
    """(R,) skewness of a network's contribution where G^lambda is Gaussian (eq. 7.15)."""
    grid, tables = _tables()
    place = np.log(np.clip(spread, grid[0], grid[-1]))
    columns = np.stack([np.exp(np.interp(place, np.log(grid), row)) for row in np.log(tables[contribution])])
    weight = np.clip(power, POWERS[0], POWERS[-1]) / POWERS[1]
    skewness: np.ndarray = np.where(
        weight <= 1,
        columns[0] + weight * (columns[1] - columns[0]),
        columns[1] + (weight - 1) * (columns[2] - columns[1]),
    )
    return skewness


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Relative spreads, and for each contribution its skewness (powers, spreads) there."""
    z, weight = gauss_hermite_nodes(160)
    sizes, grid = np.geomspace(1e-3, 1.7, 80), np.geomspace(1e-3, 4.0, 80)
    found: dict[str, list[np.ndarray]] = {}
    for power in POWERS:
        raw = (
            np.exp(sizes[:, None] * z) if power == 0 else np.maximum(1 + power * sizes[:, None] * z, 0.0) ** (1 / power)
        )
        kernel = raw / (raw @ weight)[:, None] - 1
        spread = np.sqrt(kernel**2 @ weight)
        linear = ((kernel * z) @ weight)[:, None] * z
        second, third = ((kernel**k @ weight)[:, None] for k in (2, 3))
        terms = {
            "kernel": kernel,
            "residual": kernel - linear,
            "square": kernel**2,
            "change": kernel**2 - linear**2,
            "product": (1 + kernel) ** 2,
            "third": kernel**3 - 3 * second * kernel,
            "fourth": kernel**4 - 6 * second * kernel**2 - 4 * third * kernel,
        }
        for name, term in terms.items():
            found.setdefault(name, []).append(np.interp(grid, spread, _skewness(term, weight)))
    return grid, {name: np.maximum(np.stack(rows), 1e-3) for name, rows in found.items()}


def _skewness(term: np.ndarray, weight: np.ndarray) -> np.ndarray:
    centred = term - (term @ weight)[:, None]
    skewness: np.ndarray = (centred**3 @ weight) / (centred**2 @ weight) ** 1.5
    return skewness
