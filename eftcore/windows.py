"""Errors of a theory against a reference, and how deep it can be trusted (docs/theory.md, section 9).

For X in {K0, V4, K1}: e(t) = ||X_theory - X_ref||_F / ||X_ref||_F over pair space. With eta the reference's error and
||eta|| about sqrt(sum se^2), the triangle inequality gives |e - e_true| <= ||eta|| / ||X_ref|| whatever the
correlations between entries, so error_se = sqrt(sum se^2) / ||X_ref|| is a conservative standard error (eq. 9.1).
A reference that is a theory has no noise, but an error that it estimates itself; that takes its place (eq. 9.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from eftcore.errors import InputError
from eftcore.pairs import to_pairs
from eftcore.results import Theory
from eftcore.solving import error_scales

DEFAULT_TOLERANCES = (0.01, 0.05, 0.10)

QUANTITIES = {"K0": "mean", "V4": "covariance", "K1": "correction"}
"""Compared quantities and the attributes of a theory or sample that hold them."""


class Reference(Protocol):
    """What a theory is compared with: a simulated sample, or another theory."""

    @property
    def depth(self) -> np.ndarray: ...
    @property
    def time(self) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Comparison:
    """Errors over depth and validity windows.

    Attributes:
        errors: one row per quantity and recorded depth: quantity, depth, time (t = epsilon^2 * layer), error and
            error_se (relative, NaN where undefined), absolute_error, absolute_error_se (Frobenius), defined. The two
            ``_se`` are the reference's: standard errors of a simulation; of a theory the error that it estimates.
        windows: one row per quantity and tolerance: quantity, tolerance, certified_until, refuted_from (times, NaN
            where there is none) and status: "bounded" (the theory fails at a time between the two), "beyond" (certified
            up to T: the window ends later, if at all), "undecided" (never refuted, certified only up to
            certified_until), "too_noisy" (the reference cannot resolve this tolerance).
    """

    errors: pd.DataFrame
    windows: pd.DataFrame


def compare(theory: Theory, reference: Reference, tolerances: Sequence[float] = DEFAULT_TOLERANCES) -> Comparison:
    """Compare a theory with a simulation (or a better theory) of the same model and kernel at the same layers.

    Depths that only one of the two recorded are left out. A theory as the reference counts as known up to its
    ``numerical_error``, with order="auto" also up to what its series leaves out (``details["truncation_error"]``); a
    Wick order that was given says nothing of the orders above. The closure "particle" has standard errors, as a
    simulation has. Errors of the compared theory's own numerics are part of what it is judged by.

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
    windows: list[dict] = []
    for quantity, attribute in QUANTITIES.items():
        mine, true = getattr(theory, attribute), getattr(reference, attribute)
        if mine is None or true is None:
            continue
        frame = _errors(quantity, mine[ours], true[theirs], _spread(reference, quantity)[theirs])
        frame.insert(1, "depth", depths)
        frame.insert(2, "time", np.asarray(theory.time)[ours])
        errors.append(frame)
        windows.extend({"quantity": quantity, **validity_window(frame, tolerance)} for tolerance in tolerances)
    if not errors:
        raise InputError("compare: the theory and the reference have no quantity in common")
    columns = ["quantity", "tolerance", "certified_until", "refuted_from", "status"]
    return Comparison(pd.concat(errors, ignore_index=True), pd.DataFrame(windows, columns=columns))


def validity_window(errors: pd.DataFrame, tolerance: float) -> dict[str, object]:
    """t*(tau) as an interval from error, error_se, defined at increasing time (eq. 9.3).

    certified_until is the last time with e + 2 se <= tau there and everywhere before; refuted_from the first time with
    e - 2 se > tau. Depths where the relative error is undefined (K1 at 0, or below its own noise) are passed over.
    """
    rows = errors[errors["defined"]]
    time, e, se = (rows[name].to_numpy(dtype=float) for name in ("time", "error", "error_se"))
    holds, fails = e + 2 * se <= tolerance, e - 2 * se > tolerance
    nowhere = {"tolerance": tolerance, "certified_until": np.nan, "refuted_from": np.nan}
    if len(rows) == 0:
        return {**nowhere, "status": "too_noisy"}
    certified = int(np.argmin(holds)) if not holds.all() else len(holds)
    if fails.any():
        first = int(np.argmax(fails))
        return {
            "tolerance": tolerance,
            "certified_until": float(time[certified - 1]) if certified else 0.0,
            "refuted_from": float(time[first]),
            "status": "bounded",
        }
    if certified == len(holds):
        return {**nowhere, "certified_until": float(time[-1]), "status": "beyond"}
    if certified == 0 and (2 * se > tolerance).all():
        return {**nowhere, "status": "too_noisy"}
    return {**nowhere, "certified_until": float(time[certified - 1]) if certified else 0.0, "status": "undecided"}


def _spread(reference: Reference, quantity: str) -> np.ndarray:
    """(R,) how far the reference may be off, as a Frobenius norm over pair space (eq. 9.1, 9.2)."""
    noise = getattr(reference, QUANTITIES[quantity] + "_se", None)
    if noise is not None:
        return _norms(quantity, noise)
    if not isinstance(reference, Theory):
        return np.zeros(len(reference.depth))
    left_out = reference.details.get("truncation_error")
    truncation = left_out.get(quantity, 0.0) if isinstance(left_out, dict) else 0.0
    return (reference.numerical_error.get(quantity, 0.0) + float(truncation)) * error_scales(reference)[quantity]


def _norms(quantity: str, values: np.ndarray) -> np.ndarray:
    """(R,) Frobenius norms over pair space."""
    entries = values if quantity == "V4" else to_pairs(values)
    return np.linalg.norm(entries.reshape(len(entries), -1), axis=1)


def _errors(quantity: str, mine: np.ndarray, true: np.ndarray, spread: np.ndarray) -> pd.DataFrame:
    absolute, size = _norms(quantity, mine - true), _norms(quantity, true)
    defined = size > (2 * spread if quantity == "K1" else 0.0)
    blank = np.full(len(size), np.nan)
    return pd.DataFrame(
        {
            "quantity": quantity,
            "error": np.divide(absolute, size, out=blank.copy(), where=defined),
            "error_se": np.divide(spread, size, out=blank.copy(), where=defined),
            "absolute_error": absolute,
            "absolute_error_se": spread,
            "defined": defined,
        }
    )


def _check_same(theory: Theory, reference: Reference, tolerances: Sequence[float]) -> None:
    if any(not 0 < tolerance < 1 for tolerance in tolerances):
        raise InputError(f"tolerances = {list(tolerances)!r}: each must lie between 0 and 1, such as 0.05")
    spec = getattr(reference, "spec", None)
    if spec is not None and (spec.model, spec.kernel.matrix) != (theory.spec.model, theory.spec.kernel.matrix):
        raise InputError("compare: the theory and the reference describe different networks or input kernels")
    if not np.intersect1d(theory.depth, reference.depth).size:
        raise InputError("compare: the theory and the reference have no recorded layer in common")
