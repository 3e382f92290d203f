"""V4 of the paired estimator's control, n Cov(G~ + u), from theory: the exact leading order.

It is the Wick series (docs/theory.md, section 4), summed to the precision that a sample needs. The series and the
sampled control both contain every power of epsilon, so that they differ only by the orders left out and the error of
the integrals.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eftcore.specs import EnsembleSpec, PredictionSpec
from eftcore.theory.truncation import ORDERS, Raised, entries, raised_orders

MAX_ENTRIES = 2**19
"""Largest size of the series' state, P x P x Wick powers, up to which an order is tried: some ten seconds of work."""


@dataclass(frozen=True, eq=False)
class LeadingOrder:
    """V4 (R, P, P), O(1), and its estimated error, same shape."""

    covariance: np.ndarray
    error: np.ndarray

    @property
    def relative_error(self) -> float:
        """Estimated relative error of V4 (Frobenius norm, largest over depth)."""
        sizes = [np.linalg.norm(array, axis=(1, 2)) for array in (self.error, self.covariance)]
        return float((sizes[0] / np.where(sizes[1] > 0, sizes[1], 1.0)).max())


def leading_order(spec: EnsembleSpec, rtol: float) -> LeadingOrder | None:
    """The leading order to relative error ``rtol``, or as close as MAX_ENTRIES allows; None if no order is allowed."""
    wanted = PredictionSpec(model=spec.model, kernel=spec.kernel, depths=spec.depths, closure="wick", order="auto")
    return _series(wanted).to(rtol)


@lru_cache(maxsize=8)
def _series(spec: PredictionSpec) -> _Series:
    return _Series(spec)


class _Series:
    """A Wick series that keeps its sums up to each order computed so far, and adds orders for more precision."""

    def __init__(self, spec: PredictionSpec) -> None:
        self._next = _rising(spec)
        self._found: list[LeadingOrder] = []
        self._lock = threading.Lock()  # tasks of one process share a series

    def to(self, rtol: float) -> LeadingOrder | None:
        with self._lock:
            for found in self._found:
                if found.relative_error <= rtol:
                    return found
            for found in self._next:
                self._found.append(found)
                if found.relative_error <= rtol:
                    return found
            return self._found[-1] if self._found else None


def _rising(spec: PredictionSpec) -> Iterator[LeadingOrder]:
    solutions = raised_orders(spec)
    for order in ORDERS:
        if entries(spec, order) > MAX_ENTRIES:
            return
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = next(solutions, None)
        if found is None:
            return
        yield _with_error(found)


def _with_error(found: Raised) -> LeadingOrder:
    """V4 of a solution with its error: the bound of the orders left out (eq. 4.24) plus the error of the integrals.

    The error of the integrals is distributed over the entries in proportion to sqrt(V4_pp V4_qq).
    """
    covariance, error = found.solution.covariance, found.solution.numerical_error["V4"]
    assert covariance is not None
    scale = np.sqrt(np.clip(np.diagonal(covariance, axis1=1, axis2=2), 0.0, None))
    left, scale = np.sqrt(found.beyond.variance), np.sqrt(error) * scale
    return LeadingOrder(covariance, sum(x[:, :, None] * x[:, None, :] for x in (left, scale)))
