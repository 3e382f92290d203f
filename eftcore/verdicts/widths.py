"""From which width on a theory can be trusted (docs/theory.md, section 9).

At width n a quantity is X0 + X1 / n + O(1/n^2): V4 + D/n, E[G] = K0 + K1/n, and K1 + K2/n. The exact closure with its
next order gives both coefficients, so that the region of depth and width in which a theory stays within a tolerance
follows from theory alone. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from eftcore.errors import InputError
from eftcore.quantities import COMPARED, QUANTITIES
from eftcore.results import Theory
from eftcore.verdicts.windows import DEFAULT_TOLERANCES, check_tolerances
from eftcore.words import spec_name

UNKNOWN = 0.5
"""Relative error of X1 from which on a width is not given."""


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
    frames = []
    for theory in (exact, *theories):
        found = widths_of(theory, exact, tolerances)
        # only the leading order is judged, whether or not the next one was found with it
        name = spec_name(theory.spec.model_copy(update={"next_order": False}))
        found.insert(0, "theory", name)
        frames.append(found)
    return pd.concat(frames, ignore_index=True)


def widths_of(theory: Theory, exact: Theory, tolerances: Sequence[float] = DEFAULT_TOLERANCES) -> pd.DataFrame:
    """The rows of ``width_windows`` of one theory, which may be ``exact`` itself, without its name."""
    if exact.covariance_next is None:
        raise InputError(
            "widths need the next order",
            place="exact",
            remedy="predict it with closure = 'exact' and next_order = True",
        )
    check_tolerances(tolerances)
    if not theory.spec.of_same_network(exact.spec) or theory.depth.tolist() != exact.depth.tolist():
        raise InputError("is of another network, other inputs or other layers", place="theories")
    frames = []
    for quantity in (each.name for each in COMPARED):
        values = QUANTITIES[quantity].of(theory)
        if values is not None:
            mine = _flat(quantity, values)
            frames += [_rows(mine, exact, quantity, tolerance) for tolerance in tolerances]
    return pd.concat(frames, ignore_index=True)


def _rows(mine: np.ndarray, exact: Theory, quantity: str, tolerance: float) -> pd.DataFrame:
    """One row per layer, from a theory's entries (R, E) and those of the exact closure whose X1 is known."""
    leading, following = coefficients(exact, quantity)
    known = np.isfinite(following)
    mine, x0, x1 = (np.where(known, values, 0.0) for values in (mine, leading, following))
    error = error_of_next(exact, quantity)
    unknown = ~known.any(axis=1) | x1.any(axis=1) & (not error < UNKNOWN)
    bound = error if error < UNKNOWN else UNKNOWN
    width, least, most = (smallest_width(mine, x0, scale * x1, tolerance) for scale in (1, 1 - bound, 1 + bound))
    low = np.minimum(width, np.minimum(least, most)) * (1 - tolerance)
    high = np.maximum(width, np.maximum(least, most))
    status = np.where(np.isinf(width), "never", np.where(unknown, "unknown", "from"))
    hidden = status == "unknown"
    return pd.DataFrame(
        {
            "quantity": quantity,
            "tolerance": tolerance,
            "depth": exact.depth.astype(int),
            "time": exact.time.astype(float),
            "width": np.where(hidden, np.nan, width),
            "width_low": np.where(hidden, np.nan, np.maximum(low, 1.0)),
            "width_high": np.where(hidden, np.nan, np.where(high > 1, high * (1 + tolerance), high)),
            "status": status.astype(object),
        }
    )


def coefficients(exact: Theory, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """(R, E) X0 and X1 of a quantity, every pair of inputs once."""
    leading, following = QUANTITIES[quantity].of(exact), QUANTITIES[quantity].next_of(exact)
    assert leading is not None
    assert following is not None
    return _flat(quantity, leading), _flat(quantity, following)


def error_of_next(exact: Theory, quantity: str) -> float:
    """Relative error of X1 of a quantity; infinite where no entry of it is known."""
    following = QUANTITIES[quantity].next_order
    assert following is not None
    error = exact.relative_error(following)
    return np.inf if error is None else error


def smallest_width(theory: np.ndarray, x0: np.ndarray, x1: np.ndarray, tolerance: float) -> np.ndarray:
    """The smallest n >= 1 from which on ||theory - x0 - x1/n|| <= tolerance ||x0 + x1/n||; infinite if there is none.

    Norms are over the last axis of the three arrays (..., E). It is 1 where the theory and X0 are both exactly 0, as K1
    is at the first layers: what X1 is there is rounding.

    >>> round(float(smallest_width(np.array([1.0]), np.array([1.0]), np.array([3.0]), 0.05)), 9)
    57.0
    """
    # a u^2 + b u + c <= 0 for all u = 1/n from 0 up to 1 / n*; where c < 0 one root is positive
    missed, square = theory - x0, tolerance**2
    a = (x1 * x1).sum(-1) * (1 - square)
    b = -2 * (missed * x1 + square * x0 * x1).sum(-1)
    c = (missed * missed).sum(-1) - square * (x0 * x0).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.abs(b) + np.sqrt(b * b - 4 * a * c)
        inverse = np.where(b > 0, q / (-2 * c), 2 * a / q)  # without cancellation
    ends = np.where((a > 0) & (c < 0), np.maximum(inverse, 1.0), 1.0)
    found: np.ndarray = np.where(c > 0, np.inf, ends)
    return found


def _flat(quantity: str, values: np.ndarray) -> np.ndarray:
    """(R, E) entries of a quantity over depth, every pair of inputs once."""
    if QUANTITIES[quantity].over == "inputs":
        first, second = np.triu_indices(values.shape[-1])
        values = values[:, first, second]
    return values.reshape(len(values), -1)
