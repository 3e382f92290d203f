"""V4 of the paired estimator's control, n Cov(G~ + u): the exact leading order, summed up as far as a sample needs.

The Wick series (docs/theory.md, section 4) has every power of epsilon, as the sampled control has: only the rest of the
series and the integrals lie between the two.
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
"""Entries of the series' state, P x P x Wick powers, beyond which an order is not tried: some ten seconds."""


@dataclass(frozen=True, eq=False)
class LeadingOrder:
    """V4 (R, P, P), O(1), and its estimated error, same shape."""

    covariance: np.ndarray
    error: np.ndarray

    @property
    def relative_error(self) -> float:
        """Frobenius, largest over depth."""
        sizes = [np.linalg.norm(array, axis=(1, 2)) for array in (self.error, self.covariance)]
        return float((sizes[0] / np.where(sizes[1] > 0, sizes[1], 1.0)).max())


def leading_order(spec: EnsembleSpec, rtol: float) -> LeadingOrder | None:
    """To relative error ``rtol``, or as near to it as MAX_ENTRIES allows; None where that allows nothing."""
    wanted = PredictionSpec(model=spec.model, kernel=spec.kernel, depths=spec.depths, closure="wick", order="auto")
    return _series(wanted).to(rtol)


@lru_cache(maxsize=8)
def _series(spec: PredictionSpec) -> _Series:
    return _Series(spec)


class _Series:
    """Keeps what it has summed up, each order with its error, and goes on where more is asked."""

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
    """What the orders above can add, and the error of the integrals, which entries share by size (eq. 4.24)."""
    covariance, error = found.solution.covariance, found.solution.numerical_error["V4"]
    assert covariance is not None
    scale = np.sqrt(np.clip(np.diagonal(covariance, axis1=1, axis2=2), 0.0, None))
    left, scale = np.sqrt(found.beyond.variance), np.sqrt(error) * scale
    return LeadingOrder(covariance, sum(x[:, :, None] * x[:, None, :] for x in (left, scale)))
