"""Solve one closure at two resolutions; their difference is the error estimate (docs/theory.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from eftcore.errors import InputError
from eftcore.gaussian.pair_moments import Expectations
from eftcore.pairs import to_matrix
from eftcore.quantities import COMPARED, MEASURED, QUANTITIES
from eftcore.results import KernelTrajectories, Theory
from eftcore.specs import Numerics, PredictionSpec
from eftcore.theory.closures import builder, closure_class
from eftcore.theory.closures.base import Closure
from eftcore.theory.mean_field import Path, choose_engine, in_range, mean_field
from eftcore.theory.memory import check_memory
from eftcore.theory.particle import PATHS, SCRAMBLINGS, sample_paths
from eftcore.theory.recursion import MeanFlow, flow, step_through
from eftcore.theory.wick_remainder import STEPS, Track, steps_in_depth

ROUNDING = 2e-13
"""Relative error that accumulated rounding is assumed to cause."""

TINY = 1e-4
"""The error of a K1 that vanishes by cancellation is relative to this fraction of |V4| / |K0|."""

UNKNOWN = 1e-3
"""A K1 as small as rounding errors counts as vanishing by cancellation if it changes by more than this fraction of
itself between two resolutions."""

SAFETY = 2.0
"""The change between two resolutions, times this, is the error estimate of the finer one."""

SOLVER = 0.1
"""Tolerance of the ODE solver as a fraction of the requested tolerance."""

LOOSE = 30.0
"""Factor by which the coarser solution's tolerances of the ODE solver and of interpolation are larger."""

TIGHTEST = 1e-2
"""Where integrals have no finer resolution, tolerances are divided by LOOSE until they are below this."""

NORM_ENTRIES = 1_000_000
"""Numbers of which norms are computed at a time."""

ATTEMPTS = 4
"""Refinements of the whole solution that are tried when the first does not meet the tolerance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution(KernelTrajectories):
    """Kernel trajectories of a closure, with what the numerics found out on the way.

    Attributes:
        interpolation: estimated relative error of the ingredients that were interpolated between depths.
        left_out: the share of V4 at the last layer that forward Euler leaves out.
        details: what the numerics chose, JSON-able.
        track: K0 between the recorded depths, for the wick closure.
    """

    interpolation: float = 0.0
    left_out: float = 0.0
    details: dict[str, object] = field(default_factory=dict)
    track: Track | None = None

    def plus(self, more: Solution) -> Solution:
        """This solution with the contributions ``more`` of further Wick orders to V4, K1 and U1 added."""

        def add(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
            return None if a is None or b is None else a + b

        return replace(
            self,
            covariance=add(self.covariance, more.covariance),
            correction=add(self.correction, more.correction),
            source=add(self.source, more.source),
        )


SMALLEST = 1e-75
"""Largest variance of a kernel below which V4, of size K^2, and its norm underflow."""

Builder = Callable[[np.ndarray, np.ndarray], Closure]
"""Makes a closure from the first and the last mean kernel, (N, N) each."""


@contextmanager
def calmly() -> Iterator[None]:
    """Within the block the many small matrix products take one thread each, and overflow is looked for afterwards.

    Several threads inside each product would only wait for one another.
    """
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
    with quiet, _libraries().limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


async def starting_engine(spec: PredictionSpec) -> Expectations:
    """The integrals of the first, coarser solution: chosen for the kernels on the path, and refined from there."""
    kind = closure_class(spec)
    return await choose_engine(
        spec.model, spec.kernel.array, spec.numerics, order=kind.moments_order, series=kind.needs_series
    )


async def solve(spec: PredictionSpec, build: Builder | None = None) -> Solution:
    """The finer of two resolutions that agree to ``spec.numerics.rtol``, or the finest there is (eq. 6.15).

    ``build`` makes the closure; by default it is the one that ``spec`` names.
    Raises InputError for a kernel whose V4 underflows, and where integrals leave the range of floating-point numbers;
    InputError or OutOfMemory, before anything is computed, where the memory does not suffice.
    """
    check_memory(spec)
    try:
        if spec.closure == "particle":
            return _solve_by_paths(spec)
        _check_range(spec)
        return await _refined(spec, build or builder(spec))
    except np.linalg.LinAlgError:
        raise InputError(
            f"integrals of {spec.model.activation!r} leave the range of floating-point numbers"
            f" (weight_variance = {spec.model.weight_variance:g}, epsilon = {spec.model.epsilon:g})",
            place="model",
            remedy="take a smaller kernel, depth or weight variance",
        ) from None


async def _refined(spec: PredictionSpec, build: Builder) -> Solution:
    engine = await starting_engine(spec)
    coarse = await at_resolution(spec, engine, build, loosen=LOOSE)
    loosen = 1.0
    for _ in range(ATTEMPTS):
        finer = engine.refined(nodes=True, terms=True) or engine
        fine = await at_resolution(spec, finer, build, loosen)
        fine = replace(fine, details=finer.describe() | _floor(coarse, fine))
        error = {
            name: SAFETY * change + _rounding(name, fine) + _tolerated(name, fine, spec, loosen)
            for name, change in relative_change(coarse, fine).items()
        }
        if fine.covariance is not None:
            error["V4"] += negative_variance(fine.covariance)
        fine = replace(fine, numerical_error=error)
        if all(value <= spec.numerics.rtol for value in error.values()):
            break
        if finer.refined(nodes=True, terms=True) is not None:
            engine, coarse = finer, fine
        elif spec.continuous and loosen > TIGHTEST:
            # the integrals cannot be refined; the change may come from the coarse solution's looser ODE tolerance alone
            coarse = await at_resolution(spec, engine, build, loosen)
            loosen /= LOOSE
        else:
            break
    if spec.numerics.quadrature == "gauss_hermite":
        return replace(fine, numerical_error=await _of_fixed_rule(spec, fine))
    return fine


async def _of_fixed_rule(spec: PredictionSpec, found: Solution) -> dict[str, float]:
    """Error of a fixed rule, which has no second resolution: its distance from converged integrals plus their error."""
    exact = await solve(spec.model_copy(update={"numerics": Numerics(rtol=spec.numerics.rtol)}))
    own, other = error_scales(found), error_scales(exact)
    distance = relative_change(exact, found)
    known = {name: exact.numerical_error[name] * float(_ratio(other[name], own[name]).max()) for name in distance}
    return {name: distance[name] + known[name] for name in distance}


def _check_range(spec: PredictionSpec) -> None:
    variance = float(np.abs(spec.kernel.array).max())
    if spec.closure != "mean" and 0 < variance < SMALLEST:
        raise InputError(
            f"V4, of size K^2, underflows for its largest variance, {variance:g}, which is below {SMALLEST:g}",
            place="kernel",
            remedy="rescale the inputs",
        )


def negative_variance(covariance: np.ndarray) -> float:
    """The most negative diagonal entry of covariances (R, P, P) relative to their norm, largest over depth (eq. 6.17).

    It is 0 where no variance is negative. Two resolutions may share an unstable scheme and agree; a negative variance
    reveals it.

    >>> negative_variance(np.array([[[3.0, 0.0], [0.0, -4.0]]]))
    0.8
    """
    if not np.isfinite(covariance).all():
        return float("inf")
    lowest = np.diagonal(covariance, axis1=1, axis2=2).min(1)
    return float(_ratio(np.maximum(-lowest, 0.0), _norm(covariance)).max())


def _solve_by_paths(spec: PredictionSpec) -> Solution:
    """Solve the one-particle form. Its numerical error is the standard error over the largest value over depth."""
    mean = mean_field(spec.model, spec.kernel, spec.numerics)
    found = sample_paths(spec, mean)

    def relative(error: np.ndarray, value: np.ndarray) -> float:
        sizes = [np.sqrt((x**2).sum(tuple(range(1, x.ndim)))).max() for x in (error, value)]
        return float(sizes[0] / sizes[1]) if sizes[1] > 0 else 0.0

    return Solution(
        depth=np.array(spec.depths),
        time=spec.time,
        mean=mean.kernel[list(spec.depths or ())],
        covariance=found.covariance,
        correction=to_matrix(found.correction),
        source=to_matrix(found.source),
        numerical_error={
            "K0": spec.numerics.rtol,
            "V4": relative(found.covariance_se, found.covariance),
            "K1": relative(found.correction_se, found.correction),
        },
        details={"rule": "one-particle paths, scrambled Sobol", "scramblings": SCRAMBLINGS, "paths": PATHS},
        covariance_se=found.covariance_se,
        correction_se=to_matrix(found.correction_se),
    )


def relative_change(one: Solution | Theory, two: Solution | Theory) -> dict[str, float]:
    """Largest relative change over depth (Frobenius) of each quantity (eq. 6.15)."""
    found: dict[str, float] = {}
    for name, scale in error_scales(two).items():
        a, b = QUANTITIES[name].of(one), QUANTITIES[name].of(two)
        if a is not None and b is not None:
            distance = _norm(b, a)
            # where one resolution gives no number, not a single digit is known
            found[name] = float(np.nan_to_num(_ratio(distance, scale), nan=np.inf, posinf=np.inf).max())
    return found


def error_scales(solution: Solution | Theory, tiny: float = TINY) -> dict[str, np.ndarray]:
    """(R,) scales by which errors of K0, V4, K1, D and K2, where present, are divided to be relative (eq. 6.15).

    The scale is the Frobenius norm of the quantity. For K1, which starts at 0, it is at least 1e-3 of the largest norm
    over depth, and at least ``details["K1_floor"]``, which is 0 unless K1 vanishes by cancellation. Where ``details``
    lacks that entry, the floor is ``tiny`` times the natural size |V4| / |K0|. For D and K2 it is the largest norm over
    depth, of the entries that are known.
    """
    present = {quantity.name: quantity.of(solution) for quantity in COMPARED}
    scales = {name: _norm(values) for name, values in present.items() if values is not None}
    if "K1" in scales:
        floor: object = solution.details.get("K1_floor")
        if not isinstance(floor, int | float):
            floor = tiny * (_ratio(scales["V4"], scales["K0"]) if "V4" in scales else np.zeros(len(solution.mean)))
        scales["K1"] = np.maximum(scales["K1"], np.maximum(1e-3 * scales["K1"].max(), floor))
    for quantity in MEASURED:
        values = quantity.of(solution)
        if values is not None:
            scales[quantity.name] = np.full(len(values), _norm(np.nan_to_num(values)).max())
    return scales


def _floor(coarse: Solution, fine: Solution) -> dict[str, object]:
    """``K1_floor``: smallest scale for the error of a K1 that is 0 up to rounding; 0 for any other K1 (eq. 6.15)."""
    if fine.covariance is None or coarse.correction is None or fine.correction is None:
        return {}
    natural = float(_ratio(_norm(fine.covariance), _norm(fine.mean)).max())
    largest = float(_norm(fine.correction).max())
    change = float(_norm(fine.correction, coarse.correction).max())
    vanishes = largest <= ROUNDING * natural and change > UNKNOWN * largest
    return {"K1_floor": TINY * natural if vanishes else 0.0}


def _norm(x: np.ndarray, from_: np.ndarray | None = None) -> np.ndarray:
    """(R,) Frobenius norms of x, or of its distance from another array.

    For a few depths at a time, since V4 may fill most of the memory.
    """
    rows = max(1, NORM_ENTRIES // max(x[0].size, 1))
    parts = []
    for start in range(0, len(x), rows):
        here = slice(start, start + rows)
        part = (x[here] if from_ is None else x[here] - from_[here]).reshape(len(x[here]), -1)
        parts.append(np.sqrt(np.einsum("ri,ri->r", part, part)))
    return np.concatenate(parts)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(a, b, out=np.zeros_like(a), where=b > 0)
    return ratio


async def at_resolution(spec: PredictionSpec, engine: Expectations, build: Builder, loosen: float = 1.0) -> Solution:
    """One solution with fixed integrals; ``loosen`` multiplies the tolerances of the ODE solver and interpolation."""
    start = spec.kernel.array
    assert spec.depths is not None
    rtol = spec.numerics.rtol * loosen
    if spec.continuous:
        end = float(spec.time[-1])
        flowing = MeanFlow(spec.model, start, engine, end, SOLVER * rtol)
        mean = flowing(spec.time)
        closure = build(start, mean[-1])
        course, interpolation = await flow(closure, flowing, engine, spec.time, SOLVER * rtol)
        steps = np.linspace(0.0, end, STEPS + 1)
        along = partial(Track, steps, flowing(steps), False)
    else:
        path = in_range(await Path(spec.model, start, engine))
        closure = build(start, path.kernel[-1])
        exact = spec.step == "exact"
        course, interpolation = await step_through(closure, path, spec.depths, exact=exact, rtol=0.01 * rtol)
        mean = path.kernel[list(spec.depths)]
        layers = steps_in_depth(spec.model.depth, spec.model.epsilon**2)
        along = partial(Track, layers * spec.model.epsilon**2, path.kernel[layers], len(layers) > spec.model.depth)
    return Solution(
        depth=np.array(spec.depths),
        time=spec.time,
        mean=mean,
        **_as_matrices(course.observed),
        interpolation=interpolation,
        left_out=course.left_out,
        track=along(engine) if closure_class(spec).needs_series else None,
    )


def _tolerated(name: str, fine: Solution, spec: PredictionSpec, loosen: float) -> float:
    """Errors of interpolation and of the ODE solver, which may be equal at both resolutions and are added."""
    interpolated = 0.0 if name == "K0" else 10 * fine.interpolation
    return interpolated + (SOLVER * spec.numerics.rtol * loosen if spec.continuous else 0.0)


def _rounding(name: str, fine: Solution) -> float:
    """Relative rounding error, which both resolutions may share.

    For a K1 that vanishes by cancellation it is larger: rounding acts on the terms that cancelled.
    """
    vanishes = name == "K1" and fine.details.get("K1_floor", 0.0) != 0.0
    return ROUNDING * (1 + 0.1 / TINY) if vanishes else ROUNDING


def _as_matrices(observed: dict[str, np.ndarray]) -> dict[str, Any]:
    """Quantities over inputs as matrices (R, N, N) instead of over pairs (R, P)."""
    matrices = {quantity.attribute for quantity in QUANTITIES.values() if quantity.over == "inputs"}
    return {name: to_matrix(values) if name in matrices else values for name, values in observed.items()}
