"""How far a reference's estimate may be off at all recorded depths at once (docs/theory.md, section 9).

A verdict over depth looks at every recorded depth, so its error bars must hold at all of them together. Where sums over
independent groups of networks are kept, the critical value comes from the joint distribution of the errors over depth.
Otherwise the depths are treated as independent, which is conservative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

CONFIDENCE = 0.95
"""Probability that all statements of one window hold together."""

NORMAL = -float(ndtri(0.025))
"""Standard errors within which a normal estimate lies in 95 % of cases."""

DRAWS = 4000
"""Multiplier-bootstrap draws; the critical value's own error is then about one percent."""

_SEED = 20260427
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class Noise:
    """Statistical error of one quantity over R recorded depths.

    Attributes:
        size: (R,) s = sqrt(sum se^2) over pair space, where estimate +- 1.96 se is a 95 % interval; 0 where the
            quantity is known exactly, NaN or infinite where nothing is known.
        degrees_of_freedom: (R,) degrees of freedom of the standard errors; infinity where they are practically exact.
        fluctuations: (G, R, K) contributions of G independent groups of networks to the error of K entries; None where
            no groups are kept.
        reliable: (R,) whether the standard errors can be trusted.
    """

    size: np.ndarray
    degrees_of_freedom: np.ndarray
    fluctuations: np.ndarray | None
    reliable: np.ndarray

    def at(self, rows: np.ndarray) -> Noise:
        """The statistical error at the depths with these indices."""
        fluctuations = None if self.fluctuations is None else self.fluctuations[:, rows]
        return Noise(self.size[rows], self.degrees_of_freedom[rows], fluctuations, self.reliable[rows])

    def radius(self) -> np.ndarray:
        """(R,) radius that the norm of the error exceeds at no depth, with probability CONFIDENCE (eq. 9.3, 9.5).

        Infinite where the standard error cannot be trusted or is not known.

        >>> once = Noise(np.array([1.0]), np.array([np.inf]), None, np.array([True]))
        >>> once.radius().round(2).tolist()
        [1.96]
        """
        known = np.isfinite(self.size) & self.reliable
        noisy = known & (self.size > 0)
        radius = np.where(known, 0.0, np.inf)
        if noisy.any():
            critical = self._critical(noisy)
            radius[noisy] = _student(critical, self.degrees_of_freedom[noisy]) * self.size[noisy]
        return radius

    def _critical(self, noisy: np.ndarray) -> float:
        if self.fluctuations is not None:
            return bootstrap_critical(self.fluctuations[:, noisy])
        return independent_critical(int(noisy.sum()))


def independent_critical(depths: int) -> float:
    """The critical value q for this number of independent depths (eq. 9.4); conservative for any correlation.

    >>> round(independent_critical(1), 3), round(independent_critical(100), 3)
    (1.96, 3.474)
    """
    # 1 - gamma^(1/R) by expm1, which keeps its digits for many depths
    return -float(ndtri(-np.expm1(np.log(CONFIDENCE) / depths) / 2))


def bootstrap_critical(fluctuations: np.ndarray) -> float:
    """The critical value q by a multiplier bootstrap over depth with contributions (G, R, K) of groups (eq. 9.3).

    It is at least the critical value at one depth and at most that of independent depths. The Gaussian multipliers are
    fixed, so the same groups always give the same value.

    >>> together = np.random.default_rng(0).standard_normal((32, 1, 1)) * np.ones((1, 50, 1))
    >>> abs(bootstrap_critical(together) - 1.96) < 0.05
    True
    """
    groups, depths, entries = fluctuations.shape
    size = np.sqrt((fluctuations**2).sum((0, 2)))
    flat = np.divide(fluctuations, size[:, None], out=np.zeros_like(fluctuations), where=size[:, None] > 0)
    flat = flat.reshape(groups, -1)
    multipliers = np.random.default_rng(_SEED).standard_normal((DRAWS, groups))
    rows = max(1, _CHUNK // max(flat.shape[1], 1))
    largest = [
        np.linalg.norm((multipliers[start : start + rows] @ flat).reshape(-1, depths, entries), axis=2).max(1)
        for start in range(0, DRAWS, rows)
    ]
    found = float(np.quantile(np.concatenate(largest), CONFIDENCE))
    return min(max(found, independent_critical(1)), independent_critical(depths))


def _student(critical: float, freedom: np.ndarray) -> np.ndarray:
    """(R,) the multiple of se that is exceeded as often as a normal variable exceeds ``critical``.

    The standard errors contain Student's factor at 95 % already, so that factor is taken out first.
    """
    tail = ndtr(-critical)
    normal = np.isinf(freedom)
    degrees = np.where(normal, 1.0, np.maximum(freedom, 1.0))
    widened = stdtrit(degrees, tail) * (NORMAL / stdtrit(degrees, 0.025))
    return np.where(normal, critical, widened)
