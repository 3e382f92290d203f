"""Carry a closure through depth: layer by layer, or as the epsilon -> 0 ordinary differential equation.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from eftcore.errors import InputError
from eftcore.gaussian.pair_moments import Expectations
from eftcore.pairs import to_matrix, to_pairs
from eftcore.specs import ResNet
from eftcore.theory.closures.base import Closure, Ingredients, Observed, State
from eftcore.theory.depth_interpolation import interpolate_pieces, layer_by_layer
from eftcore.theory.mean_field import MeanField, proportional_pairs, straighten

EXPLICIT_EVALUATIONS = 6000
"""Evaluations of the right-hand side after which the continuous equations count as stiff."""

IMPLICIT_EVALUATIONS = 60000
"""Most evaluations of the right-hand side that an implicit method may take."""

IMPLICIT_SIZE = 400
"""Largest number of variables for which an implicit method is tried, since it needs the full Jacobian."""


LOOKS = 32
"""Number of layers at which the share of V4 that forward Euler leaves out is computed."""


@dataclass
class LeftOut:
    """Accumulates over depth an estimate of the share of V4 that forward Euler leaves out (eq. 3.9).

    Attributes:
        log: sum over layers of log(1 + eps^4 |s| / |V4|).
    """

    log: float = 0.0

    @property
    def share(self) -> float:
        """Estimated share, 0 to 1, of the V4 with all powers of epsilon that Euler leaves out; rather too large."""
        return -math.expm1(-self.log)

    def look(self, closure: Closure, at: Ingredients, state: State, h: float, layers: float) -> None:
        """Add the share of one layer, which stands for ``layers`` layers."""
        covariance = closure.observe(at, state).covariance
        if covariance is not None:
            left = h * h * sum(float(np.linalg.norm(part)) for part in closure.second_order(at, state).values())
            self.log += layers * math.log1p(left / max(float(np.linalg.norm(covariance)), 1e-300))


def step_through(
    closure: Closure, path: MeanField, depths: Sequence[int], *, exact: bool, rtol: float
) -> tuple[Iterator[Observed], float, LeftOut]:
    """Layer by layer along K0; observations at ``depths``. ``exact`` keeps every power of epsilon (eq. 3.6).

    Ingredients are smooth in depth, so deep networks compute them at Chebyshev points only and interpolate. Returns the
    observations, the largest relative interpolation error found (0 where every layer was computed), and, unless
    ``exact``, the share of V4 that forward Euler leaves out.
    """
    model, wanted = path.model, set(depths)
    looks = set() if exact else set(np.linspace(0, model.depth - 1, min(LOOKS, model.depth)).astype(int).tolist())
    left_out = LeftOut()
    h = model.epsilon**2
    runs, error = layer_by_layer(lambda rows: closure.ingredients(path.kernel[rows], path.engine), model.depth, rtol)

    def observations() -> Iterator[Observed]:
        state = closure.initial()
        if not state:  # nothing to be carried from layer to layer
            yield from (closure.observe({}, {}) for _ in depths)
            return
        for layers, stack in runs:
            for row, layer in enumerate(layers):
                at = {name: value[row] for name, value in stack.items()}
                if layer in wanted:
                    yield closure.observe(at, state)
                if layer in looks:
                    left_out.look(closure, at, state, h, model.depth / len(looks))
                if layer < model.depth:
                    state = closure.step(at, state, h, exact=exact)

    return observations(), error, left_out


class MeanFlow:
    """K0 of the continuous equation K0' = C_b + C_W E2(K0), by an adaptive Runge-Kutta method of order 8 (eq. 3.8).

    Raises InputError where the solution leaves the range of floating-point numbers.
    """

    def __init__(self, model: ResNet, kernel: np.ndarray, engine: Expectations, end: float, rtol: float) -> None:
        scale = max(float(np.abs(kernel).max()), end * model.bias_variance, 1e-300)
        self._tied = proportional_pairs(model, kernel)
        solution = _integrate(
            lambda _, k: model.bias_variance + model.weight_variance * engine.moments(self._kernel(k)).value,
            end,
            to_pairs(kernel),
            rtol,
            1e-3 * rtol * scale,
        )
        self._dense = solution.sol

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """(M, N, N) K0 at the times (M,)."""
        return self._kernel(self._dense(times).T)

    def _kernel(self, pairs: np.ndarray) -> np.ndarray:
        kernel = to_matrix(pairs)
        straighten(kernel, self._tied)
        return kernel


def flow(
    closure: Closure, mean: MeanFlow, engine: Expectations, times: np.ndarray, rtol: float
) -> tuple[Iterator[Observed], float]:
    """The limit epsilon -> 0 at fixed t along ``mean`` (eq. 3.8).

    Returns the observations at ``times`` and the largest relative interpolation error found.
    Raises InputError where the solution leaves the range of floating-point numbers.
    """
    end = float(times[-1])

    def compute(points: np.ndarray) -> Ingredients:
        return closure.ingredients(mean(points), engine)

    found = interpolate_pieces(compute, 0.0, end, rtol)
    ingredients = found or compute
    state = closure.initial()
    if not state:
        at = ingredients(times)
        rows = range(len(times))
        return (closure.observe({name: value[row] for name, value in at.items()}, {}) for row in rows), 0.0
    names, shapes = list(state), [value.shape for value in state.values()]
    splits = np.cumsum([value.size for value in state.values()])[:-1]

    def unpack(y: np.ndarray) -> State:
        return {name: part.reshape(shape) for name, part, shape in zip(names, np.split(y, splits), shapes, strict=True)}

    def at_time(t: float) -> Ingredients:
        return {name: value[0] for name, value in ingredients(np.array([t])).items()}

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        rates = closure.rates(at_time(t), unpack(y))
        return np.concatenate([rates[name].ravel() for name in names])

    scale = max(float(np.abs(closure.final).max()), 1e-300)
    absolute = np.concatenate([np.full(state[name].size, scale ** closure.powers[name]) for name in names])
    start = np.concatenate([value.ravel() for value in state.values()])
    solution = _integrate(slope, end, start, rtol, 1e-2 * rtol * absolute)
    observed = (closure.observe(at_time(t), unpack(solution.sol(t))) for t in times)
    return observed, found.error if found else 0.0


class _TooManyEvaluations(Exception):
    pass


def _integrate(slope: Any, end: float, start: np.ndarray, rtol: float, atol: Any) -> Any:
    """Integrate by an explicit method or, where the equations are stiff, by an implicit one.

    In the sigma closure X_S relaxes at the rates of eq. 5.5, which may be large (eq. 5.1). Raises InputError where
    neither method reaches the end.
    """
    from scipy.integrate import solve_ivp  # a third of the time that importing eftcore takes

    for method, evaluations in (("DOP853", EXPLICIT_EVALUATIONS), ("Radau", IMPLICIT_EVALUATIONS)):
        if method == "Radau" and start.size > IMPLICIT_SIZE:
            break
        try:
            solution: Any = solve_ivp(
                _counted(slope, evaluations),
                (0.0, max(end, 1e-300)),
                start,
                method=method,
                dense_output=True,
                rtol=max(rtol, 1e-13),
                atol=atol,
            )
        except _TooManyEvaluations:
            continue
        if not solution.success or not np.isfinite(solution.y).all():
            raise InputError(
                f"the continuous equations could not be solved up to t = {end:g} ({solution.message})",
                place="model",
                remedy="take a smaller depth",
            )
        return solution
    raise InputError(
        f"the continuous equations up to t = {end:g} are too stiff to be solved",
        place="model",
        remedy="leave out continuous = true, or take a smaller depth or a larger numerics.rtol",
    )


def _counted(slope: Any, limit: int) -> Any:
    calls = count()

    def counted(t: float, y: np.ndarray) -> np.ndarray:
        if next(calls) >= limit:
            raise _TooManyEvaluations
        value: np.ndarray = slope(t, y)
        return value

    return counted
