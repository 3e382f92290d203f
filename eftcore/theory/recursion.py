"""Carry a closure through depth: layer by layer, or as the epsilon -> 0 ordinary differential equation.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from eftcore.errors import InputError
from eftcore.gaussian.pair_moments import Expectations
from eftcore.pairs import to_matrix, to_pairs
from eftcore.specs import ResNet
from eftcore.theory.closures.base import Closure, Ingredients, Observed, State
from eftcore.theory.depth_interpolation import Interpolant, interpolate_pieces, over_layers
from eftcore.theory.mean_field import MeanField, proportional_pairs, straighten
from eftcore.theory.together import Request

EXPLICIT_EVALUATIONS = 6000
"""Evaluations of the right-hand side after which the continuous equations count as stiff."""

IMPLICIT_EVALUATIONS = 60000
"""Most evaluations of the right-hand side that an implicit method may take."""

IMPLICIT_SIZE = 400
"""Largest number of variables for which an implicit method is tried, since it needs the full Jacobian."""


LOOKS = 32
"""Number of layers at which the share of V4 that forward Euler leaves out is computed."""


CHUNK_BYTES = 16e6
"""Ingredients are held for as many layers at once as fit in this much memory."""


class LeftOut:
    """Accumulates over depth an estimate of the share of V4 that forward Euler leaves out (eq. 3.9).

    Attributes:
        log: (*B) sum over layers of log(1 + eps^4 |s| / |V4|).
    """

    def __init__(self, batch: tuple[int, ...] = ()) -> None:
        self.log = np.zeros(batch)

    @property
    def share(self) -> np.ndarray:
        """(*B) estimated share, 0 to 1, of V4 with all powers of epsilon that Euler leaves out, rather too large."""
        found: np.ndarray = -np.expm1(-self.log)
        return found

    def look(self, closure: Closure, at: Ingredients, state: State, h: float | np.ndarray, layers: float) -> None:
        """Add the share of one layer, which stands for ``layers`` layers."""
        covariance = closure.observe(at, state).covariance
        if covariance is not None:
            parts = closure.second_order(at, state).values()
            left = h * h * sum((self._size(part) for part in parts), np.zeros(()))
            self.log = self.log + layers * np.log1p(left / np.maximum(self._size(covariance), 1e-300))

    def _size(self, x: np.ndarray) -> np.ndarray:
        """(*B) Frobenius norms of x (P, ..., *B)."""
        found: np.ndarray = np.sqrt((x * x).sum(axis=tuple(range(x.ndim - self.log.ndim))))
        return found


class IngredientsAt(Request[Ingredients]):
    """The ingredients of a closure at the kernels (R, N, N) of its network."""

    def __init__(self, closure: Closure, kernel: np.ndarray, engine: Expectations) -> None:
        self.closure, self.kernel, self.engine = closure, kernel, engine

    @property
    def kind(self) -> Hashable | None:
        pattern, integrals = self.closure.pattern, self.engine.kind
        return None if pattern is None or integrals is None else (type(self.closure), pattern, integrals)

    @property
    def size(self) -> int:
        rows, n_inputs = len(self.kernel), self.closure.n_inputs
        return rows * n_inputs * (self.engine.numbers + 40 * n_inputs**3)

    def answer(self) -> Ingredients:
        return self.closure.ingredients(self.kernel, self.engine)

    @classmethod
    def answers(cls, requests: Sequence[IngredientsAt]) -> list[Ingredients]:
        closures = [request.closure for request in requests for _ in request.kernel]
        kernel = np.concatenate([request.kernel for request in requests])
        stacked = type(closures[0]).stacked(closures)
        found = stacked.ingredients(kernel, requests[0].engine)
        ends = np.cumsum([len(request.kernel) for request in requests])
        return [
            stacked.separate({name: values[end - len(request.kernel) : end] for name, values in found.items()}, end - 1)
            for request, end in zip(requests, ends.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Course:
    """What a closure predicts at the R recorded layers.

    Attributes:
        observed: arrays (R, ...) by attribute of ``Observed``.
        left_out: the share of V4 that forward Euler leaves out (eq. 3.9).
    """

    observed: dict[str, np.ndarray]
    left_out: float


class Steps(Request[Course]):
    """A closure carried layer by layer along K0, observed at ``depths``; ``exact`` keeps every power of epsilon."""

    def __init__(
        self, closure: Closure, path: MeanField, found: Interpolant | None, depths: Sequence[int], *, exact: bool
    ) -> None:
        self.closure, self.path, self.found = closure, path, found
        self.depths, self.exact = tuple(depths), exact

    @property
    def kind(self) -> Hashable | None:
        pattern, model = self.closure.pattern, self.path.model
        source = self.path.engine.kind if self.found is None else tuple(self.found.nodes.tolist())
        if pattern is None or source is None:
            return None
        return type(self.closure), pattern, model.depth, self.depths, self.exact, source

    @property
    def size(self) -> int:
        state = 8 * sum(values.size for values in self.closure.initial().values())
        return state + 2 * len(self.depths) * len(self.closure.neighbours) ** 2

    def _compute(self, layers: np.ndarray) -> Ingredients:
        if self.found is not None:
            return self.found(layers)
        return self.closure.ingredients(self.path.kernel[layers], self.path.engine)

    def answer(self) -> Course:
        observed, left_out = self._walk(self.closure, self._compute, self.path.model.epsilon**2)
        return Course(observed, float(left_out.share))

    @classmethod
    def answers(cls, requests: Sequence[Steps]) -> list[Course]:
        one = requests[0]
        closure = type(one.closure).stacked([request.closure for request in requests])
        if one.found is not None:
            tables = [request.found.table for request in requests if request.found is not None]
            compute: Callable[[np.ndarray], Ingredients] = Interpolant(
                one.found.nodes, _last_axis(closure.align(tables)), 0.0
            )
        else:

            def compute(layers: np.ndarray) -> Ingredients:
                parts = [IngredientsAt(each.closure, each.path.kernel[layers], each.path.engine) for each in requests]
                return _last_axis(closure.align(IngredientsAt.answers(parts)))

        h = np.array([request.path.model.epsilon**2 for request in requests])
        observed, left_out = one._walk(closure, compute, h)
        each = {name: np.moveaxis(values, -1, 0).copy() for name, values in observed.items()}
        return [
            Course({name: values[place] for name, values in each.items()}, float(left_out.share[place]))
            for place in range(len(requests))
        ]

    def _walk(
        self, closure: Closure, compute: Callable[[np.ndarray], Ingredients], h: float | np.ndarray
    ) -> tuple[dict[str, np.ndarray], LeftOut]:
        left_out = LeftOut(closure.batch)
        return _collected(self._observations(closure, compute, h, left_out), len(self.depths)), left_out

    def _observations(
        self, closure: Closure, compute: Callable[[np.ndarray], Ingredients], h: float | np.ndarray, left_out: LeftOut
    ) -> Iterator[Observed]:
        depth, wanted = self.path.model.depth, set(self.depths)
        looks = set() if self.exact else set(np.linspace(0, depth - 1, min(LOOKS, depth)).astype(int).tolist())
        state = closure.initial()
        if not state:  # nothing to be carried from layer to layer
            yield from (closure.observe({}, {}) for _ in self.depths)
            return
        for layers, stack in _runs(compute, depth + 1):
            for row, layer in enumerate(layers):
                at = {name: value[row] for name, value in stack.items()}
                if layer in wanted:
                    yield closure.observe(at, state)
                if layer in looks:
                    left_out.look(closure, at, state, h, depth / len(looks))
                if layer < depth:
                    state = closure.step(at, state, h, exact=self.exact)


def _collected(observations: Iterable[Observed], count: int) -> dict[str, np.ndarray]:
    """Arrays over depth by attribute, each allocated once and filled in place, since V4 may fill most of the memory."""
    arrays: dict[str, np.ndarray] = {}
    for row, found in enumerate(observations):
        for name, value in vars(found).items():
            if value is not None:
                arrays.setdefault(name, np.empty((count, *value.shape)))[row] = value
    return arrays


def _last_axis(tables: Sequence[Ingredients]) -> Ingredients:
    """The ingredients of B networks as arrays with one more axis at their end."""
    return {name: np.stack([table[name] for table in tables], axis=-1) for name in tables[0]}


def _runs(compute: Callable[[np.ndarray], Ingredients], total: int) -> Iterator[tuple[range, Ingredients]]:
    start, rows = 0, 1
    while start < total:
        layers = range(start, min(start + rows, total))
        stack = compute(np.arange(layers.start, layers.stop))
        yield layers, stack
        size = sum(value.nbytes for value in stack.values()) / len(layers)
        start, rows = layers.stop, max(1, min(1000, int(CHUNK_BYTES / max(size, 1.0))))


async def step_through(
    closure: Closure, path: MeanField, depths: Sequence[int], *, exact: bool, rtol: float
) -> tuple[Course, float]:
    """Layer by layer along K0; observations at ``depths``. ``exact`` keeps every power of epsilon (eq. 3.6).

    Ingredients are smooth in depth, so deep networks compute them at Chebyshev points only and interpolate. Returns
    what was observed, and the largest relative interpolation error found (0 where every layer was computed).
    """

    async def compute(layers: np.ndarray) -> Ingredients:
        return await IngredientsAt(closure, path.kernel[layers], path.engine)

    found = await over_layers(compute, path.model.depth, rtol)
    return await Steps(closure, path, found, depths, exact=exact), found.error if found else 0.0


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


async def flow(
    closure: Closure, mean: MeanFlow, engine: Expectations, times: np.ndarray, rtol: float
) -> tuple[Course, float]:
    """The limit epsilon -> 0 at fixed t along ``mean`` (eq. 3.8).

    Returns what was observed at ``times`` and the largest relative interpolation error found.
    Raises InputError where the solution leaves the range of floating-point numbers.
    """
    end = float(times[-1])

    def compute(points: np.ndarray) -> Ingredients:
        return closure.ingredients(mean(points), engine)

    async def asked(points: np.ndarray) -> Ingredients:
        return await IngredientsAt(closure, mean(points), engine)

    found = await interpolate_pieces(asked, 0.0, end, rtol)
    ingredients = found or compute
    state = closure.initial()
    if not state:
        at = ingredients(times)
        rows = range(len(times))
        still = (closure.observe({name: value[row] for name, value in at.items()}, {}) for row in rows)
        return Course(_collected(still, len(times)), 0.0), 0.0
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
    return Course(_collected(observed, len(times)), 0.0), found.error if found else 0.0


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
