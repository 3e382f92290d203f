"""From which width on a theory can be trusted (docs/theory.md, section 9).

At width n a quantity is X0 + X1 / n + O(1/n^2): V4 + D/n, E[G] = K0 + K1/n, and K1 + K2/n. The exact closure with its
next order gives both coefficients, so that the region of depth and width in which a theory stays within a tolerance
follows from theory alone. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory
from eftcore.verdicts.windows import DEFAULT_TOLERANCES, check_tolerances
from eftcore.words import spec_name

UNKNOWN = 0.5
"""Relative error of X1 from which on a width is not given."""

_NEXT = {"K0": "correction", "V4": "covariance_next", "K1": "correction_next"}
"""Attribute of the coefficient of 1/n of each quantity."""

_ERROR_OF_NEXT = {"K0": "K1", "V4": "D", "K1": "K2"}

_COLUMNS = ("theory", "quantity", "tolerance", "depth", "time", "width", "width_low", "width_high", "status")


def width_windows(
    exact: Theory, theories: Iterable[Theory] = (), tolerances: Sequence[float] = DEFAULT_TOLERANCES
) -> pd.DataFrame:
    """The smallest width from which on each theory stays within a tolerance, at every recorded layer (eq. 9.8).

    The error of a theory at width n is ||X_theory - X(n)||_F / ||X(n)||_F over pair space with X(n) = X0 + X1/n: the
    error of its closure and that of finite width together. It counts where X1 is known (finite).

    Args:
        exact: a prediction of the exact closure with its next order, for the same network, inputs and layers.
        theories: closures to judge beside the exact leading order itself.
        tolerances: relative tolerances tau in (0, 1).

    Returns one row per theory, quantity (K0, V4, K1), tolerance and recorded layer, with the columns theory, quantity,
    tolerance, depth, time, width (n*, a real number of at least 1), width_low and width_high (n* where X1 is as small
    or as large as its error allows, and for what the expansion leaves out, of relative size tau), and status: "from"
    (within the tolerance from ``width`` on), "never" (the closure alone exceeds it) or "unknown" (X1 is not known to
    half of itself). Where the status is not "from" the widths are infinite or NaN.

    Raises InputError where ``exact`` has no next order, a theory is of another network, or a tolerance is not in
    (0, 1).

    >>> from eftcore import InputKernel, ResNet, predict
    >>> model = ResNet(activation="relu", weight_variance=2.0, epsilon=0.2, depth=25)
    >>> exact = predict(model, InputKernel.explicit([[1.0]]), "exact", next_order=True, depths=[0, 25])
    >>> rows = width_windows(exact, tolerances=[0.05]).query("quantity == 'V4' and depth == 25")
    >>> rows.width.round().tolist(), rows.status.tolist()
    ([106.0], ['from'])
    """
    return pd.DataFrame(
        [
            {"theory": judged.name, "quantity": quantity, "tolerance": tolerance, **row}
            for judged in _judged(exact, theories, tolerances)
            for quantity in judged.values
            for tolerance in tolerances
            for row in judged.rows(quantity, tolerance)
        ],
        columns=list(_COLUMNS),
    )


@dataclass(frozen=True, eq=False)
class _Judged:
    """One theory's quantities (R, E) beside X0 and X1 of the exact closure, entries that are known alone."""

    name: str
    exact: Theory
    values: dict[str, np.ndarray]

    def rows(self, quantity: str, tolerance: float) -> list[dict[str, object]]:
        error = error_of_next(self.exact, quantity)
        found: list[dict[str, object]] = []
        leading, following = coefficients(self.exact, quantity)
        for row, (mine, x0, x1) in enumerate(zip(self.values[quantity], leading, following, strict=True)):
            known = np.isfinite(x1)
            mine, x0, x1 = mine[known], x0[known], x1[known]
            width = smallest_width(mine, x0, x1, tolerance)
            ends = [smallest_width(mine, x0, (1 + sign * error) * x1, tolerance) for sign in (-1, 1)]
            status = "never" if math.isinf(width) else "from" if error < UNKNOWN or not x1.any() else "unknown"
            low, high = min(*ends, width) * (1 - tolerance), max(*ends, width)
            high *= 1 + tolerance if high > 1 else 1
            known_ones = [width, max(low, 1.0), high] if status != "unknown" else [math.nan] * 3
            found.append(
                {
                    "depth": int(self.exact.depth[row]),
                    "time": float(self.exact.time[row]),
                    **dict(zip(("width", "width_low", "width_high"), known_ones, strict=True)),
                    "status": status,
                }
            )
        return found


def _judged(exact: Theory, theories: Iterable[Theory], tolerances: Sequence[float]) -> list[_Judged]:
    if exact.covariance_next is None:
        raise InputError(
            "widths need the next order",
            place="exact",
            remedy="predict it with closure = 'exact' and next_order = True",
        )
    check_tolerances(tolerances)
    found = []
    for theory in (exact, *theories):
        if not theory.spec.of_same_network(exact.spec) or theory.depth.tolist() != exact.depth.tolist():
            raise InputError("is of another network, other inputs or other layers", place="theories")
        values = {name: QUANTITIES[name].of(theory) for name in _NEXT}
        present = {name: _flat(name, array) for name, array in values.items() if array is not None}
        # only the leading order is judged, whether or not the next one was found with it
        name = spec_name(theory.spec.model_copy(update={"next_order": False}))
        found.append(_Judged(name, exact, present))
    return found


def coefficients(exact: Theory, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """(R, E) X0 and X1 of a quantity, every pair of inputs once."""
    leading, following = QUANTITIES[quantity].of(exact), getattr(exact, _NEXT[quantity])
    assert leading is not None
    return _flat(quantity, leading), _flat(quantity, following)


def error_of_next(exact: Theory, quantity: str) -> float:
    """Relative error of X1 of a quantity."""
    error = exact.relative_error(_ERROR_OF_NEXT[quantity])
    assert error is not None
    return error


def smallest_width(theory: np.ndarray, x0: np.ndarray, x1: np.ndarray, tolerance: float) -> float:
    """The smallest n >= 1 from which on ||theory - x0 - x1/n|| <= tolerance ||x0 + x1/n||; infinite if there is none.

    >>> smallest_width(np.array([1.0]), np.array([1.0]), np.array([3.0]), 0.05)
    57.0
    """
    # a u^2 + b u + c <= 0 for all u = 1/n from 0 up to 1 / n*
    missed, square = theory - x0, tolerance**2
    a, b, c = (x1 @ x1) * (1 - square), -2 * (missed @ x1 + square * (x0 @ x1)), missed @ missed - square * (x0 @ x0)
    if c > 0:
        return math.inf
    roots = np.roots([a, b, c]) if a > 0 else np.empty(0)
    crossing = [float(root.real) for root in roots if abs(root.imag) < 1e-12 * abs(root) and root.real > 0]
    return max(1.0, 1 / min(crossing)) if crossing else 1.0


def _flat(quantity: str, values: np.ndarray) -> np.ndarray:
    """(R, E) entries of a quantity over depth, every pair of inputs once."""
    if QUANTITIES[quantity].over == "inputs":
        first, second = np.triu_indices(values.shape[-1])
        values = values[:, first, second]
    return values.reshape(len(values), -1)
