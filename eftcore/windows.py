"""Errors of a theory against a reference, and how deep it can be trusted (docs/theory.md, section 9).

For X in {K0, V4, K1}: e(t) = ||X_theory - X_ref||_F / ||X_ref||_F over pair space. With eta the reference's error and
||eta|| about sqrt(sum se^2), the triangle inequality gives |e - e_true| <= ||eta|| / ||X_ref|| whatever the
correlations between entries, so error_se = sqrt(sum se^2) / ||X_ref|| is a conservative standard error (eq. 9.1).
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
            error_se (relative, NaN where undefined), absolute_error, absolute_error_se (Frobenius), defined.
        windows: one row per quantity and tolerance: quantity, tolerance, certified_until, refuted_from (times, NaN
            where there is none) and status: "bounded" (the theory fails at a time between the two), "beyond" (certified
            up to T: the window ends later, if at all), "undecided" (never refuted, certified only up to
            certified_until), "too_noisy" (the reference cannot resolve this tolerance).
    """

    errors: pd.DataFrame
    windows: pd.DataFrame


def compare(theory: Theory, reference: Reference, tolerances: Sequence[float] = DEFAULT_TOLERANCES) -> Comparison:
    """Compare a theory with a simulation (or a better theory) of the same model and kernel at the same layers.

    Depths that only one of the two recorded are left out. Raises InputError where the two describe different networks,
    share no recorded layer, or a tolerance is not in (0, 1).

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
        noise = getattr(reference, attribute + "_se", None)
        noise = np.zeros_like(true) if noise is None else noise
        frame = _errors(quantity, mine[ours], true[theirs], noise[theirs])
        frame.insert(1, "depth", depths)
        frame.insert(2, "time", np.asarray(theory.time)[ours])
        errors.append(frame)
        windows.extend({"quantity": quantity, **validity_window(frame, tolerance)} for tolerance in tolerances)
    if not errors:
        raise InputError("compare: the theory and the reference have no quantity in common")
    columns = ["quantity", "tolerance", "certified_until", "refuted_from", "status"]
    return Comparison(pd.concat(errors, ignore_index=True), pd.DataFrame(windows, columns=columns))


def validity_window(errors: pd.DataFrame, tolerance: float) -> dict[str, object]:
    """t*(tau) as an interval from error, error_se, defined at increasing time (eq. 9.2).

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


def _errors(quantity: str, mine: np.ndarray, true: np.ndarray, noise: np.ndarray) -> pd.DataFrame:
    if quantity != "V4":
        mine, true, noise = to_pairs(mine), to_pairs(true), to_pairs(noise)
    flat = [x.reshape(len(x), -1) for x in (mine, true, noise)]
    absolute = np.linalg.norm(flat[0] - flat[1], axis=1)
    size, spread = np.linalg.norm(flat[1], axis=1), np.linalg.norm(flat[2], axis=1)
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
