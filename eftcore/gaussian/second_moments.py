"""E2 alone of one kernel after the other, as the recursion of the mean kernel needs it (docs/theory.md, section 6).

What the engines do for stacks of kernels and with derivatives, with all that does not depend on the kernel done once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eftcore.gaussian.closed_forms import PROPORTIONAL
from eftcore.gaussian.closed_moments import (
    KERNEL_ROUNDING,
    OWN,
    ROUNDING,
    VALUE,
    ClosedFormExpectations,
)
from eftcore.gaussian.mehler import BEYOND, MehlerExpectations, check_growth, check_values
from eftcore.gaussian.pair_moments import Expectations, correlations, powers
from eftcore.gaussian.summed import independence
from eftcore.pairs import pair_indices, to_matrix


def one_by_one(engine: Expectations, n_inputs: int) -> Callable[[np.ndarray], np.ndarray]:
    """(N, N) kernel to (N, N) E2, the value of ``engine.moments`` up to rounding; it raises the same errors."""
    if isinstance(engine, MehlerExpectations) and not any(engine.activation.kinks):
        return _BySeries(engine, n_inputs)
    if isinstance(engine, ClosedFormExpectations):
        return _ByClosedForm(engine, n_inputs)
    return lambda kernel: to_matrix(engine.moments(kernel).value)


class _ByClosedForm:
    """E2 of kernels (N, N) by a closed form (eq. 6.8-6.12), as it is or moved by its rounding bound (eq. 6.22)."""

    def __init__(self, engine: ClosedFormExpectations, n_inputs: int) -> None:
        self.engine, self.form, self.opposites = engine, engine.form, engine.activation.parity is not None
        first, second = pair_indices(n_inputs)
        self.first, self.second = first[first != second], second[first != second]
        self.diagonal = np.arange(n_inputs)

    def __call__(self, kernel: np.ndarray) -> np.ndarray:
        """(N, N) E2 (eq. 1.6)."""
        variance = kernel.diagonal()
        a, c, b = variance[self.first], kernel[self.first, self.second], variance[self.second]
        equal = a == b
        if (equal & (np.abs(c) == a if self.opposites else c == a)).any():
            return to_matrix(self.engine.moments(kernel).value)
        found = np.empty_like(kernel)
        if self.engine.disturbed:
            variance = variance * (1 - KERNEL_ROUNDING)
            tied = independence(a, c, b) <= PROPORTIONAL
            a, b = variance[self.first], variance[self.second]
            c = c * np.where(tied, 1 - KERNEL_ROUNDING, 1 + KERNEL_ROUNDING)
        own, cross = self.form.single(variance)[0], self.form.pair(a, c, b).value
        value, shared = own.value, cross.value
        if self.engine.disturbed:
            value = value + ROUNDING * own.size * OWN[0]
            shared = shared + ROUNDING * cross.size * np.where(tied, OWN[0], VALUE)
        found[self.diagonal, self.diagonal] = value
        found[self.first, self.second] = found[self.second, self.first] = shared
        return found


class _BySeries:
    """E2 of kernels (N, N), for an activation without kinks away from 0, whose nodes follow none (eq. 6.1)."""

    def __init__(self, engine: MehlerExpectations, n_inputs: int) -> None:
        self.activation, self.rule = engine.activation, engine.rule
        # an odd or even sigma has coefficients of one parity alone
        parity = self.activation.parity
        self.orders = slice(1 if parity == "odd" else 0, engine.terms, 1 if parity is None else 2)
        self.table = np.ascontiguousarray(self.rule.table[:, self.orders])
        first, second = pair_indices(n_inputs)
        self.first, self.second = first[first != second], second[first != second]

    def __call__(self, kernel: np.ndarray) -> np.ndarray:
        """(N, N) E2 (eq. 1.6, 6.1)."""
        variance, where = kernel.diagonal(), np.zeros(len(kernel), dtype=np.intp)
        if (variance == variance[0]).all():
            variance = variance[:1]
        else:
            variance, where = np.unique(variance, return_inverse=True)
        deviation = np.sqrt(variance)
        values = self._values(deviation)
        square = self.rule.mean(values * values)
        self._check(deviation, values, square)
        found = np.empty_like(kernel)
        np.fill_diagonal(found, square[where])
        if self.first.size:
            found[self.first, self.second] = found[self.second, self.first] = self._cross(kernel, values, where)
        return found

    def _values(self, deviation: np.ndarray) -> np.ndarray:
        x = deviation[:, None] * self.rule.nodes
        values = np.asarray(self.activation.function(x), dtype=float)
        if not np.isfinite(values.sum()):
            check_values(self.activation, x, values)
        return values

    def _check(self, deviation: np.ndarray, values: np.ndarray, square: np.ndarray) -> None:
        edge = np.maximum(values[:, 0] ** 2, values[:, -1] ** 2) * self.rule.table[0, 0]
        if (edge > BEYOND * np.maximum(square, deviation**2)).any():
            check_growth(self.activation, deviation, values**2, self.rule, 2)

    def _cross(self, kernel: np.ndarray, values: np.ndarray, where: np.ndarray) -> np.ndarray:
        a, b = where[self.first], where[self.second]
        rho = correlations(kernel, self.first, self.second)
        series = values @ self.table
        terms = powers(rho if self.orders.step == 1 else rho * rho, series.shape[1])
        terms *= series[a]
        found: np.ndarray = np.einsum("pk,pk->p", terms, series[b])
        if self.orders.start == 1:
            found *= rho
        tied = np.abs(rho) == 1
        if tied.any():
            right = values[b[tied]]
            right = np.where(rho[tied][:, None] > 0, right, right[:, ::-1])
            found[tied] = self.rule.mean(values[a[tied]] * right)
        return found
