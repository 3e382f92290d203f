"""Errors of a theory against a reference, and how deep it can be trusted (docs/theory.md, section 9).

For X in {K0, V4, K1}, or {D, K2}: e(t) = ||X_theory - X_ref||_F / ||X_ref||_F over pair space (eq. 9.1). The
reference is a simulation, which has statistical errors, or a theory, which estimates its own error (eq. 9.2). These
errors, and the numerical error of the compared theory, widen the bounds of e, which hold at all recorded depths at once
(eq. 9.6). A window is the interval in which, by these bounds, e first exceeds a tolerance (eq. 9.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eftcore.ensemble.bands import CONFIDENCE
from eftcore.errors import InputError
from eftcore.quantities import COMPARED, MEASURED
from eftcore.results import Theory
from eftcore.verdicts.bounds import Reference, error_bounds, own_error, reference_errors

VERDICT_VERSION = 2
"""Bumped by hand whenever the same two results would be judged differently."""

DEFAULT_TOLERANCES = (0.01, 0.05, 0.10)


_WINDOW_COLUMNS = [
    "quantity",
    "tolerance",
    "resolved_from",
    "certified_until",
    "refuted_from",
    "status",
    "numerical_error",
    "confidence",
]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Errors over depth and validity windows.

    Attributes:
        errors: one row per quantity and recorded depth: quantity, depth, time (t = epsilon^2 * layer), error and
            error_se (relative, NaN where the reference cannot be distinguished from 0), error_low and error_high
            (bounds that hold at all depths at once with probability ``confidence``; error_high may be infinite),
            resolution (the smallest tolerance that the reference resolves at that depth; may be infinite),
            absolute_error, absolute_error_se (Frobenius), defined (whether the relative error is a number). The two
            ``_se`` come from the reference: standard errors of a simulation, or the error that a theory estimates.
        windows: one row per quantity and tolerance: quantity, tolerance, resolved_from (the first time at which the
            reference resolves the tolerance), certified_until, refuted_from (times, NaN where there is none), status,
            numerical_error (the compared theory's, relative) and confidence. status is "bounded" (the theory fails
            before refuted_from), "beyond" (certified from resolved_from up to T: the window ends later, if at all),
            "undecided" (never refuted, not certified to the end), "too_noisy" (the reference resolves this tolerance
            nowhere).
    """

    errors: pd.DataFrame
    windows: pd.DataFrame


def compare(theory: Theory, reference: Reference, tolerances: Sequence[float] = DEFAULT_TOLERANCES) -> Comparison:
    """Compare a theory with a simulation (or a better theory) of the same model and kernel at the same layers.

    Against what ``eft.measured_next_order`` gives, D and K2 are compared, over the entries that both know if there are
    any.

    Depths that only one of the two recorded are left out. The error of a theory as the reference is its
    ``numerical_error`` plus what its series leaves out (``details["truncation_error"]``). The closure "particle" has
    standard errors, as a simulation has. The ``numerical_error`` of the compared theory widens the bounds too, so that
    no window is decided by errors of the numerics. The published fixed rule is the exception: the error of its
    integrals counts as an error of the theory.

    Raises InputError where the two describe different networks, share no recorded layer, or a tolerance is not in
    (0, 1).

    >>> from eftcore import InputKernel, ResNet, predict
    >>> model = ResNet(activation="erf", weight_variance=1.0, epsilon=0.1, depth=50)
    >>> kernel = InputKernel.explicit([[1.0]])
    >>> better = predict(model, kernel, "g_only", step="exact")
    >>> result = compare(predict(model, kernel, "source_only"), better, tolerances=[0.05])
    >>> result.windows.status.tolist()
    ['beyond', 'bounded']
    """
    _check_same(theory, reference, tolerances)
    depths, ours, theirs = np.intersect1d(theory.depth, reference.depth, return_indices=True)
    errors: list[pd.DataFrame] = []
    windows: list[dict[str, object]] = []
    measured = [quantity for quantity in MEASURED if quantity.standard_error_of(reference) is not None]
    for quantity in (*COMPARED, *measured):
        mine, true = quantity.of(theory), quantity.of(reference)
        if mine is None or true is None:
            continue
        mine, true = mine[ours], true[theirs]
        counted = np.isfinite(mine) & np.isfinite(true) if quantity.partial else None
        if counted is not None and not counted.any():
            continue
        spread, radius = reference_errors(reference, quantity, theirs, counted)
        if counted is not None:
            mine, true = np.where(counted, mine, 0.0), np.where(counted, true, 0.0)
        frame = error_bounds(quantity, mine, true, spread, radius, own_error(theory, quantity, ours, counted))
        frame.insert(1, "depth", depths)
        frame.insert(2, "time", np.asarray(theory.time)[ours])
        errors.append(frame)
        stated = quantity.numerical_error_of(theory)
        own = {"numerical_error": np.nan if stated is None else stated, "confidence": CONFIDENCE}
        windows.extend({"quantity": quantity.name, **own, **validity_window(frame, tau)} for tau in tolerances)
    if not errors:
        raise InputError("has no quantity in common with the theory", place="reference")
    return Comparison(pd.concat(errors, ignore_index=True), pd.DataFrame(windows, columns=_WINDOW_COLUMNS))


def validity_window(errors: pd.DataFrame, tolerance: float) -> dict[str, object]:
    """The interval that holds t*, where the error first exceeds the tolerance (eq. 9.7).

    It follows from error_low, error_high and resolution, the columns of ``errors`` at increasing time.

    Time 0 certifies nothing: there every theory has the network's own initial condition.
    """
    rows = errors[errors["time"] > 0]
    time, low, high, resolution = (
        rows[name].to_numpy(dtype=float) for name in ("time", "error_low", "error_high", "resolution")
    )
    resolved, fails = resolution <= tolerance, low > tolerance
    first = int(np.argmax(resolved)) if resolved.any() else len(rows)
    holds = high[first:] <= tolerance
    certified = len(holds) if holds.all() else int(np.argmin(holds))
    if fails.any() and int(np.argmax(fails)) < first:
        certified = 0
    if fails.any():
        status = "bounded"
    elif not resolved.any():
        status = "too_noisy"
    else:
        status = "beyond" if certified == len(holds) else "undecided"
    return {
        "tolerance": tolerance,
        "resolved_from": float(time[first]) if resolved.any() else np.nan,
        "certified_until": float(time[first + certified - 1]) if certified else np.nan,
        "refuted_from": float(time[np.argmax(fails)]) if fails.any() else np.nan,
        "status": status,
    }


def check_tolerances(tolerances: Sequence[float]) -> None:
    """Raises InputError unless every tolerance lies between 0 and 1."""
    if any(not 0 < tolerance < 1 for tolerance in tolerances):
        raise InputError("each must lie between 0 and 1, such as 0.05", place="tolerances", value=list(tolerances))


def _check_same(theory: Theory, reference: Reference, tolerances: Sequence[float]) -> None:
    check_tolerances(tolerances)
    if not theory.spec.of_same_network(reference.spec):
        raise InputError("describes another network or input kernel than the theory", place="reference")
    if not np.intersect1d(theory.depth, reference.depth).size:
        raise InputError("has no recorded layer in common with the theory", place="reference")
