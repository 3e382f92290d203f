"""predict: one closure's kernel trajectories, with an estimate of the numerics' own error (docs/theory.md)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import Literal

import numpy as np
from threadpoolctl import ThreadpoolController

from eftcore.closures.wick import Wick
from eftcore.errors import InputError, NumericsWarning
from eftcore.mean_field import out_of_range
from eftcore.results import Theory
from eftcore.solving import Solution, at_resolution, relative_change, settled, solve
from eftcore.specs import Closure, InputKernel, Numerics, PredictionSpec, ResNet

WICK_ORDERS = (8, 12, 18, 26, 38, 56, 80, 120)
"""Orders that "auto" tries in turn."""


def predict(
    model: ResNet,
    kernel: InputKernel,
    closure: Closure = "g_only",
    *,
    order: int | Literal["auto"] | None = None,
    truncation: float | None = None,
    step: Literal["euler", "exact"] | None = None,
    continuous: bool = False,
    numerics: Numerics | None = None,
    depths: Iterable[int] | None = None,
) -> Theory:
    """Mean kernel K0, covariance V4 and correction K1 of one closure at the recorded layers.

    Args:
        model: the network.
        kernel: K^0, N x N.
        closure: "mean" (K0), "source_only" (V4' = Sigma), "g_only" (the paper's hierarchy), "sigma" (state G and S),
            "wick" (exact as order -> infinity), "particle" (exact up to its own sampling error).
        order: wick only: highest Wick order (default 24), or "auto".
        truncation: with order="auto", the largest relative change of V4 and K1 that stops raising the order.
        step: "euler" (forward Euler in t, as in the paper) or "exact" (all powers of epsilon).
        continuous: take epsilon -> 0 at fixed t.
        numerics: quadrature rule and tolerance.
        depths: recorded layers; default about 100 including 0 and L.

    Returns a Theory whose ``numerical_error`` bounds quadrature, ODE and rounding errors (not the closure's own).
    Issues a NumericsWarning where ``numerics.rtol`` is not met. Raises InputError for bad arguments and where the
    kernel leaves the range of floating-point numbers.

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
            numerics=numerics or Numerics(),
            depths=None if depths is None else tuple(depths),
        )
    )


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def predict_spec(spec: PredictionSpec) -> Theory:
    """predict, from its spec."""
    # many small matrix products: threads inside each only wait for one another
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    with quiet, _libraries().limit(limits=1, user_api="blas"):
        solution = _raise_order(spec) if spec.order == "auto" else solve(spec)
    _check_finite(spec, solution)
    fixed = spec.numerics.quadrature == "gauss_hermite"
    missed = {name: error for name, error in solution.error.items() if not error <= spec.numerics.rtol}
    if missed and not fixed and spec.closure != "particle":
        shown = ", ".join(f"{name} {error:.1e}" for name, error in missed.items())
        warnings.warn(
            f"numerics: rtol = {spec.numerics.rtol:g} was not met; estimated relative errors: {shown}",
            NumericsWarning,
            stacklevel=3,
        )
    return Theory(
        spec=spec,
        depth=np.array(spec.depths),
        time=spec.time,
        mean=solution.mean,
        covariance=solution.covariance,
        correction=solution.correction,
        source=solution.source,
        increment_covariance=solution.increment_covariance,
        covariance_se=solution.covariance_se,
        correction_se=solution.correction_se,
        numerical_error=solution.error,
        converged=not missed and not fixed,
        details=solution.details,
    )


def _raise_order(spec: PredictionSpec) -> Solution:
    """Raise the Wick order until the estimated rest of the series is below ``spec.truncation`` for V4 and K1."""
    assert spec.truncation is not None
    for solution, _, rest in raised_orders(spec):
        if max(rest.values()) <= spec.truncation:
            return solution
    shown = ", ".join(f"{name} {error:.1e}" for name, error in rest.items())
    warnings.warn(
        f"order = 'auto': truncation = {spec.truncation:g} was not met by order {WICK_ORDERS[-1]}; estimated: {shown}",
        NumericsWarning,
        stacklevel=4,
    )
    return solution


def raised_orders(spec: PredictionSpec) -> Iterator[tuple[Solution, Solution, dict[str, float]]]:
    """Solutions of rising Wick order, each with the one before and the estimated rest of the series for V4 and K1.

    Orders contribute like exp(-c sqrt(k)) (eq. 4.23): between steps of fixed ratio the changes fall faster and
    faster, so the last two changes d', d bound what is left by d / (d' / d - 1). Each step solves for the new orders
    alone; the numerical error is estimated on the lowest ones, which carry almost everything.
    """
    total = solve(spec.model_copy(update={"order": WICK_ORDERS[0]}))
    engine = settled(spec)
    engine = engine.refined(nodes=True, terms=True) or engine
    before: dict[str, float] = {}
    for lower, order in pairwise(WICK_ORDERS):
        more = at_resolution(spec, engine, partial(Wick, spec.model, order=order, above=lower))
        previous, total = total, total.plus(more)
        change = relative_change(previous, total)
        rest = {name: _what_is_left(before.get(name), change[name]) for name in ("V4", "K1")}
        before = change
        details = {**total.details, "wick_order": order, "truncation_error": rest}
        yield replace(total, details=details), previous, rest


def _what_is_left(before: float | None, change: float) -> float:
    if change < 1e-13:
        return change
    if before is None or before <= change:
        return 10 * change
    return max(change / (before / change - 1), 0.1 * change)


def _check_finite(spec: PredictionSpec, solution: Solution) -> None:
    assert spec.depths is not None
    for name, values in (("K0", solution.mean), ("V4", solution.covariance), ("K1", solution.correction)):
        if values is not None and not np.isfinite(values).all():
            bad = int(np.argmin(np.isfinite(values).all((1, 2))))
            raise InputError(out_of_range(spec.model, name, spec.depths[bad]))
