"""How deep a theory can be trusted for networks of one width, from theory alone (docs/theory.md, section 9).

At width n a quantity is X(n) = X0 + X1 / n + O(1/n^2). The coefficient X1 of K0 is K1, which every prediction of the
exact closure has; those of V4 and K1 are D and K2, which it has with the next order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from eftcore.errors import InputError
from eftcore.quantities import COMPARED, Quantity
from eftcore.results import Theory
from eftcore.theory.solving import error_scales
from eftcore.verdicts.bounds import error_bounds, own_error, reference_errors
from eftcore.verdicts.widths import error_of_next
from eftcore.verdicts.windows import DEFAULT_TOLERANCES, check_tolerances, validity_window


def windows_at_width(
    theory: Theory,
    exact: Theory,
    width: int,
    tolerances: Sequence[float] = DEFAULT_TOLERANCES,
    *,
    following: Theory | None = None,
) -> pd.DataFrame:
    """Validity windows in depth at one width: of a theory against the exact leading order with what width n adds.

    The error is ||X_theory - X(n)||_F / ||X(n)||_F over pair space with X(n) = X0 + X1/n, over the entries whose X1 is
    known. Its bounds count the errors that ``exact`` estimates of X0 and of X1, and ||X1/n||^2 / ||X0|| for what the
    expansion leaves out, the next term of a geometric series.

    Args:
        theory: the theory that is judged, which may be ``exact`` itself.
        exact: the exact closure for the same network, inputs and layers.
        width: n, the neurons per layer.
        tolerances: relative tolerances tau in (0, 1).
        following: the same with its next order, from which D and K2 are taken; None takes those of ``exact``.

    Returns one row per quantity and tolerance with the columns quantity, tolerance, resolved_from, certified_until,
    refuted_from (in t = epsilon^2 * layer), status, as ``eft.compare`` has them, and finite_width: False where X1 is
    not known and the window is that against X0, of infinitely wide networks.

    Raises InputError where the two differ in network, inputs or layers, the width is below 1, or a tolerance is not in
    (0, 1).

    >>> from eftcore import InputKernel, ResNet, predict
    >>> model = ResNet(activation="relu", weight_variance=2.0, epsilon=0.2, depth=25)
    >>> exact = predict(model, InputKernel.explicit([[1.0]]), "exact", next_order=True)
    >>> found = [windows_at_width(exact, exact, width, [0.05]).set_index("quantity") for width in (64, 4096)]
    >>> [windows.status["V4"] for windows in found]
    ['bounded', 'beyond']
    """
    check_tolerances(tolerances)
    if width < 1:
        raise InputError("must be at least 1", place="width", value=width)
    following = following or exact
    for place, other in (("theory", theory), ("following", following)):
        if not other.spec.of_same_network(exact.spec) or other.depth.tolist() != exact.depth.tolist():
            raise InputError("is of another network, other inputs or other layers", place=place)
    rows = []
    for quantity in COMPARED:
        mine = quantity.of(theory)
        if mine is None:
            continue
        source = exact if quantity.name == "K0" else following
        errors, counted = _errors_at_width(quantity, mine, theory, exact, source, width)
        rows += [
            {"quantity": quantity.name, **validity_window(errors, tolerance), "finite_width": counted}
            for tolerance in tolerances
        ]
    return pd.DataFrame(rows)


def _errors_at_width(
    quantity: Quantity, mine: np.ndarray, theory: Theory, exact: Theory, source: Theory, width: int
) -> tuple[pd.DataFrame, bool]:
    """Bounds of the error over depth, and whether finite width is in them; X0 is that of exact, X1 that of source."""
    true, following = quantity.of(exact), quantity.next_of(source)
    assert true is not None
    if following is None:
        following = np.full_like(true, np.nan)
    rows = np.arange(len(exact.depth))
    spread, radius = reference_errors(exact, quantity, rows, None)
    known = np.isfinite(following)
    counted = bool(known.any())
    if counted:
        mine, leading = np.where(known, mine, 0.0), np.where(known, true, 0.0)
        more = np.where(known, following, 0.0) / width
        added, size = quantity.norms(more), quantity.norms(leading)
        rest = np.divide(added**2, size, out=np.where(added > 0, np.inf, 0.0), where=size > 0)
        true, radius = leading + more, radius + _error_of_next(quantity, source) / width + rest
    frame = error_bounds(quantity, mine, true, spread, radius, own_error(theory, quantity, rows, None))
    return frame.assign(time=exact.time), counted


def _error_of_next(quantity: Quantity, source: Theory) -> np.ndarray:
    """(R,) error of X1 in its own units; infinite where its estimate failed."""
    assert quantity.next_order is not None
    scale = error_scales(source)[quantity.next_order]
    relative = error_of_next(source, quantity.name)
    found: np.ndarray = relative * scale if np.isfinite(relative) else np.full(len(scale), np.inf)
    return found
