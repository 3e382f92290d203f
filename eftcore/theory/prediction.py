"""predict: the kernel trajectories of one closure, with an estimate of their numerical error (docs/theory.md)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import numpy as np

from eftcore.errors import InputError, NumericsWarning, StepWarning, TruncationWarning
from eftcore.inputs.kernel import InputKernel
from eftcore.pairs import to_matrix
from eftcore.quantities import COMPARED
from eftcore.results import Theory
from eftcore.specs import Closure, Numerics, PredictionSpec, ResNet
from eftcore.theory.mean_field import out_of_range, shared_paths
from eftcore.theory.solving import Solution, calmly, solve
from eftcore.theory.together import alone
from eftcore.theory.truncation import Raised, raised_orders, truncated
from eftcore.theory.waves import by_waves

LARGE = 0.05
"""Relative share of V4 or K1 that a given Wick order, or forward Euler, may leave out without a warning."""


def predict(
    model: ResNet,
    kernel: InputKernel,
    closure: Closure = "g_only",
    *,
    order: int | Literal["auto"] | None = None,
    truncation: float | None = None,
    step: Literal["euler", "exact"] | None = None,
    continuous: bool = False,
    next_order: bool = False,
    numerics: Numerics | None = None,
    depths: Iterable[int] | None = None,
) -> Theory:
    """Mean kernel K0, covariance V4 and correction K1 of one closure at the recorded layers.

    Args:
        model: the network.
        kernel: K^0, N x N.
        closure: "mean" (K0), "source_only" (V4' = Sigma), "g_only" (the paper's hierarchy), "sigma" (state G and S),
            "wick" (exact as order -> infinity), "particle" (exact up to its own sampling error), "exact" (the exact
            leading order, by sines and cosines for smooth bounded activations and by Wick powers for the others).
        order: wick only: highest Wick order (default 24), or "auto".
        truncation: with "exact" or order="auto", the largest relative error of V4 and K1 from functions left out
            (default 1e-3).
        step: "euler" (forward Euler in t, as in the paper) or "exact" (all powers of epsilon).
        continuous: take epsilon -> 0 at fixed t.
        next_order: with "exact", also D, K2 and the third cumulant, from which on which width the leading order holds
            follows (docs/theory.md, section 10); for at most 8 inputs, and for more than 4 only the entries that belong
            to at most two inputs.
        numerics: quadrature rule and tolerance.
        depths: recorded layers; default about 100 including 0 and L.

    Returns a Theory whose ``numerical_error`` bounds quadrature, ODE and rounding errors (not the error of the closure
    itself). For the wick and exact closures ``details["truncation_error"]`` bounds what the functions left out add to
    V4 and K1, also relative (eq. 4.23-4.26, 4.28), and with ``next_order`` to D, K2 and T.
    ``details["step_error"]`` estimates the share of V4 that forward Euler leaves out (eq. 3.9). Issues a
    NumericsWarning where ``numerics.rtol`` is not met, a TruncationWarning where ``truncation`` is not met or a given
    order may leave out more than 5 %, and a StepWarning where forward Euler may leave out more than 5 %. Raises
    InputError for bad arguments, where the kernel leaves the range of floating-point numbers, and where the next order
    does not converge.

    >>> model = ResNet(activation="linear", weight_variance=1.0, epsilon=0.1, depth=2)
    >>> theory = predict(model, InputKernel.explicit([[1.0]]), "g_only", step="exact")
    >>> round(float(theory.mean[-1, 0, 0]), 6), round(float(theory.covariance[0, 0, 0]), 6)
    (1.0201, 2.0)
    """
    return predict_spec(
        PredictionSpec(
            model=model,
            kernel=kernel,
            closure=closure,
            order=order,
            truncation=truncation,
            step=step,
            continuous=continuous,
            next_order=next_order,
            numerics=numerics or Numerics(),
            depths=None if depths is None else tuple(depths),
        )
    )


def predict_spec(spec: PredictionSpec) -> Theory:
    """The prediction that a spec describes; see ``predict``. Raises InputError for an older version's spec too."""
    found: list[Warning] = []
    try:
        # the exact closure goes along the same K0 with more and more functions
        with calmly(), shared_paths() if spec.closure == "exact" else nullcontext():
            return alone(prediction(spec, found))
    finally:
        for warning in found:
            warnings.warn(warning, stacklevel=3)


async def prediction(spec: PredictionSpec, found: list[Warning]) -> Theory:
    """What ``predict_spec`` returns. The warnings that it issues are added to ``found``, also where it fails."""
    if spec.superseded:
        raise InputError(
            "this program has a newer algorithm only", place="version", value=spec.version, remedy="leave version out"
        )
    if spec.closure == "exact":
        solution = await _chain(spec) if spec.model.block == "two_matrix" else await _exact(spec, found)
    elif spec.closure == "wick":
        solution = await _raise_order(spec, found) if spec.order == "auto" else await _fixed_order(spec, found)
    else:
        solution = await solve(spec)
    _check_finite(spec, solution)
    details = {**solution.details, **_left_out_by_steps(spec, solution, found), **_exactness(spec)}
    fixed = spec.numerics.quadrature == "gauss_hermite"
    missed = {name: error for name, error in solution.numerical_error.items() if not error <= spec.numerics.rtol}
    if missed and not fixed and spec.closure != "particle":
        shown = ", ".join(f"{name} {error:.1e}" for name, error in missed.items())
        text = f"numerics: rtol = {spec.numerics.rtol:g} was not met; estimated relative errors: {shown}"
        found.append(NumericsWarning(text))
    if spec.next_order:
        solution, details = _beyond(spec, solution, details, found)
    return Theory(spec=spec, converged=not missed and not fixed, details=details, **solution.trajectories())


def _exactness(spec: PredictionSpec) -> dict[str, object]:
    """``leading_order`` for the details of the G-only hierarchy of two matrices; empty for other predictions."""
    if spec.model.block == "one_matrix" or spec.closure not in ("g_only", "exact"):
        return {}
    return {"leading_order": "exact as epsilon -> 0" if spec.step == "euler" else "exact"}


def _beyond(
    spec: PredictionSpec, solution: Solution, details: dict[str, object], warned: list[Warning]
) -> tuple[Solution, dict[str, object]]:
    """The solution with D, K2 and the third cumulant, whose relative errors ``details["truncation_error"]`` has too."""
    assert solution.covariance is not None
    from eftcore.theory.next_order import next_order  # half the time that importing this module takes

    with calmly(), shared_paths():
        found = next_order(spec, solution.covariance)
    solution = replace(
        solution,
        covariance_next=found.covariance,
        correction_next=to_matrix(found.correction),
        third_cumulant=found.third,
    )
    of_pairs = {"D": found.covariance[-1].diagonal(), "K2": found.correction[-1]}
    if missing := [name for name, values in of_pairs.items() if not np.isfinite(values).all()]:
        text = f"next_order = True: left out where it does not converge: {' and '.join(missing)} of some inputs"
        warned.append(TruncationWarning(text))
    rest = _truncation_error(solution) | found.error
    return solution, {**details, "truncation_error": rest, "next_order": found.details}


def _left_out_by_steps(spec: PredictionSpec, solution: Solution, warned: list[Warning]) -> dict[str, object]:
    """``step_error`` for the details, with a warning where it is large; empty unless forward Euler is used for V4."""
    if spec.step != "euler" or solution.covariance is None:
        return {}
    if solution.left_out > LARGE:
        text = "step = 'euler': the terms of order epsilon^4 that it leaves out may be up to"
        warned.append(StepWarning(f"{text} {solution.left_out:.0%} of V4; step = 'exact' keeps them"))
    return {"step_error": {"V4": solution.left_out}}


async def _exact(spec: PredictionSpec, warned: list[Warning]) -> Solution:
    """By sines and cosines where they suit the activation, and otherwise by Wick powers of rising order."""
    assert spec.truncation is not None
    best = await by_waves(spec)
    if best is None or _left_out(best) > spec.truncation:
        raised = await _highest_order(spec.model_copy(update={"closure": "wick", "order": "auto"}))
        wick = _with_rest(raised, wick_order=raised.order, basis="wick")
        best = wick if best is None or _left_out(wick) < _left_out(best) else best
    if _left_out(best) > spec.truncation:
        text = f"closure = 'exact': truncation = {spec.truncation:g} was not met"
        warned.append(_truncation_warning(text, _truncation_error(best)))
    return best


async def _chain(spec: PredictionSpec) -> Solution:
    """With two matrices in a block, whose G-only hierarchy leaves out nothing of the leading order (eq. 11.4)."""
    solution = await solve(spec)
    nothing = {"basis": "Markov chain of G", "truncation_error": {"V4": 0.0, "K1": 0.0}}
    return replace(solution, details={**solution.details, **nothing})


async def _raise_order(spec: PredictionSpec, warned: list[Warning]) -> Solution:
    """Raise the Wick order until the orders left out add less than ``spec.truncation`` to V4 and K1."""
    assert spec.truncation is not None
    found = await _highest_order(spec)
    if max(found.rest.values()) > spec.truncation:
        text = f"order = 'auto': truncation = {spec.truncation:g} was not met by order {found.order}"
        warned.append(_truncation_warning(text, found.rest))
    return _with_rest(found, wick_order=found.order)


async def _highest_order(spec: PredictionSpec) -> Raised:
    """The first order that meets ``spec.truncation``, or the last that is tried."""
    assert spec.truncation is not None
    async for found in raised_orders(spec):
        if max(found.strict.values()) <= spec.truncation:
            break
    return found


async def _fixed_order(spec: PredictionSpec, warned: list[Warning]) -> Solution:
    assert isinstance(spec.order, int)
    solution = await solve(spec)
    _check_finite(spec, solution)
    found = truncated(spec, solution, spec.order)
    if max(found.rest.values()) > LARGE:
        text = f"order = {spec.order}: the Wick orders above may matter; order = 'auto' finds one that suffices"
        warned.append(_truncation_warning(text, found.rest))
    return _with_rest(found)


def _with_rest(found: Raised, **more: object) -> Solution:
    details = {**found.solution.details, **more, "truncation_error": found.rest}
    return replace(found.solution, details=details)


def _truncation_error(solution: Solution) -> dict[str, float]:
    rest = solution.details["truncation_error"]
    assert isinstance(rest, dict)
    return rest


def _left_out(solution: Solution) -> float:
    """The larger of the truncation errors of V4 and K1."""
    return max(_truncation_error(solution).values())


def _truncation_warning(text: str, rest: dict[str, float]) -> TruncationWarning:
    shown = ", ".join(f"{name} {error:.1e}" for name, error in rest.items())
    return TruncationWarning(f"{text}; left out at most, relative: {shown}")


def _check_finite(spec: PredictionSpec, solution: Solution) -> None:
    assert spec.depths is not None
    for quantity in COMPARED:
        values = quantity.of(solution)
        if values is not None and not np.isfinite(values).all():
            bad = int(np.argmin(np.isfinite(values).all((1, 2))))
            raise out_of_range(spec.model, quantity.name, spec.depths[bad])
