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

from eftcore.activations import get_activation
from eftcore.prediction import WICK_ORDERS, raised_orders
from eftcore.solving import Solution
from eftcore.specs import EnsembleSpec, PredictionSpec
from eftcore.wick_series import components

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
    for order in WICK_ORDERS[1:]:
        if _entries(spec, order) > MAX_ENTRIES:
            return
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = _with_error(*next(solutions))
        yield found


def _entries(spec: PredictionSpec, order: int) -> int:
    n_inputs = spec.kernel.n_inputs
    even_only = get_activation(spec.model.activation).parity is not None
    pairs = n_inputs * (n_inputs + 1) // 2
    return pairs**2 * len(components(order, even_only=even_only, single=n_inputs == 1).first)


def _with_error(solution: Solution, before: Solution, rest: dict[str, float]) -> LeadingOrder:
    """The rest of the series is to the last step at each depth as it is at the worst one; entries share it by size."""
    assert solution.covariance is not None
    assert before.covariance is not None
    covariance = solution.covariance
    size = np.linalg.norm(covariance, axis=(1, 2))
    size = np.where(size > 0, size, 1.0)
    change = np.linalg.norm(covariance - before.covariance, axis=(1, 2)) / size
    relative = change * (rest["V4"] / change.max() if change.max() > 0 else 0.0) + solution.error["V4"]
    scale = np.sqrt(np.clip(np.diagonal(covariance, axis1=1, axis2=2), 0.0, None))
    return LeadingOrder(covariance, relative[:, None, None] * scale[:, :, None] * scale[:, None, :])
