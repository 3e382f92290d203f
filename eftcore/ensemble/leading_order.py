"""V4 of the paired estimator's control, n Cov(G~ + u), from theory: the exact leading order.

It is a sum over waves or over Wick orders (docs/theory.md, section 4), continued to the precision that a sample needs.
The sum and the sampled control both contain every power of epsilon, so that they differ only by what is left out of the
sum and the error of the integrals.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eftcore.specs import EnsembleSpec, PredictionSpec
from eftcore.theory.mean_field import shared_paths
from eftcore.theory.memory import entries
from eftcore.theory.solving import Solution, calmly, solve
from eftcore.theory.together import alone, alone_each
from eftcore.theory.truncation import ORDERS, raised_orders
from eftcore.theory.waves import rising_waves

MAX_ENTRIES = 2**19
"""Largest state of the Wick series, P x P x Wick powers, up to which an order is tried: some ten seconds of work."""

MOST_ENTRIES = 2**21
"""The same for the lowest order, without which V4 of many inputs would have no control at all."""


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
    """The leading order to relative error ``rtol``, or as close as can be afforded; None where nothing can be."""
    wanted = PredictionSpec(model=spec.model, kernel=spec.kernel, depths=spec.depths, closure="exact")
    return _series(wanted).to(rtol)


@lru_cache(maxsize=8)
def _series(spec: PredictionSpec) -> _Series:
    return _Series(spec)


class _Series:
    """A sum that keeps what it came to at each number of terms so far, and adds terms for more precision."""

    def __init__(self, spec: PredictionSpec) -> None:
        self._next = _rising(spec)
        self._found: list[LeadingOrder] = []
        self._lock = threading.Lock()  # tasks of one process share a series

    def to(self, rtol: float) -> LeadingOrder | None:
        with self._lock, shared_paths(), calmly():
            for found in self._found:
                if found.relative_error <= rtol:
                    return found
            for found in self._next:
                self._found.append(found)
                if found.relative_error <= rtol:
                    return found
            return min(self._found, key=lambda found: found.relative_error, default=None)


def _rising(spec: PredictionSpec) -> Iterator[LeadingOrder]:
    """Waves as far as they suit the activation, then Wick orders; with two matrices in a block nothing is left out."""
    if spec.model.block == "two_matrix":
        solution = alone(solve(spec))
        assert solution.covariance is not None
        yield _with_error(solution, np.zeros_like(solution.covariance))
        return
    for before, after in alone_each(rising_waves(spec)):
        assert before.covariance is not None
        assert after.covariance is not None
        yield _with_error(after, np.abs(after.covariance - before.covariance))
    wick = spec.model_copy(update={"closure": "wick", "order": "auto"})
    solutions = alone_each(raised_orders(wick))
    for order in ORDERS:
        most = MOST_ENTRIES if order == ORDERS[0] else MAX_ENTRIES
        if entries(wick, order) > most or (found := next(solutions, None)) is None:
            return
        left = np.sqrt(found.beyond.variance)
        yield _with_error(found.solution, left[:, :, None] * left[:, None, :])


def _with_error(solution: Solution, left_out: np.ndarray) -> LeadingOrder:
    """V4 of a solution with its error: what is left out of the sum (R, P, P) plus the error of the integrals.

    What is left out is bounded by the last change of the sum over waves, which converges exponentially, and by eq. 4.24
    for Wick orders. The error of the integrals is distributed over the entries in proportion to sqrt(V4_pp V4_qq).
    """
    covariance = solution.covariance
    assert covariance is not None
    scale = np.sqrt(np.clip(np.diagonal(covariance, axis1=1, axis2=2), 0.0, None))
    integrals = solution.numerical_error["V4"] * scale[:, :, None] * scale[:, None, :]
    return LeadingOrder(covariance, left_out + integrals)
