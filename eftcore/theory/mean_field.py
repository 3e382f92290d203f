"""The mean kernel K0 at every layer: the infinite-width theory, and the path along which every closure linearises.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from eftcore.activations import get_activation
from eftcore.errors import InputError
from eftcore.gaussian.branch import BranchExpectations
from eftcore.gaussian.closed_moments import ClosedFormExpectations
from eftcore.gaussian.expectations import expectations
from eftcore.gaussian.mehler import concentrated
from eftcore.gaussian.pair_moments import Expectations, PairMoments
from eftcore.gaussian.second_moments import one_by_one
from eftcore.gaussian.summed import independence
from eftcore.inputs.kernel import InputKernel
from eftcore.pairs import pair_indices, to_matrix
from eftcore.specs import Numerics, ResNet
from eftcore.theory.together import Request, alone

PROBES = 5
"""Number of layers at which one resolution of the integrals is compared with a finer one."""

DEEP = 5_000
"""Layers from which on the recursion with closed forms is compiled; below, it takes no longer than loading numba."""

DRIFT = 1e-14
"""Inputs that are proportional at layer 0 count as proportional while 1 - rho^2, by rounding, stays below this."""


@dataclass(frozen=True, eq=False)
class MeanField:
    """K0 at layers 0 .. L with everything linear response needs.

    Attributes:
        model: the network.
        engine: how the Gaussian integrals were done.
        kernel: (L+1, N, N) K0.
        second_moment: (L+1, N, N) E2(K0) = <sigma sigma>.
    """

    model: ResNet
    engine: Expectations
    kernel: np.ndarray
    second_moment: np.ndarray

    @property
    def increment(self) -> np.ndarray:
        """(L+1, N, N) Q = C_b + C_W E2(K0), the increment covariance per unit t (eq. 1.4)."""
        return self.model.bias_variance + self.model.weight_variance * self.second_moment

    @cached_property
    def susceptibility(self) -> np.ndarray:
        """(L+1, P, 3) chi_{p,q} = C_W <D_q f_p>, q = aa, ab, bb of p = (a, b), or column 0 of (a, a) (eq. 1.9)."""
        gradient = self.engine.moments(self.kernel, 1).gradient
        assert gradient is not None
        return self.model.weight_variance * gradient


_shared: ContextVar[dict[Hashable, MeanField] | None] = ContextVar("_shared", default=None)


@contextmanager
def shared_paths() -> Iterator[None]:
    """Within the block each K0 is solved only once and shared by all closures that use the same integrals.

    All paths are held until the outermost such block ends.
    """
    if _shared.get() is not None:
        yield
        return
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def mean_path(model: ResNet, kernel: np.ndarray, engine: Expectations) -> MeanField:
    """Solve K0' = K0 + epsilon^2 (C_b + C_W E2(K0)) (eq. 3.1) with one resolution of the integrals.

    Raises InputError where the kernel leaves the range of floating-point numbers.
    """
    return in_range(_path(model, kernel, engine))


def in_range(path: MeanField) -> MeanField:
    """The path. Raises InputError where the kernel leaves the range of floating-point numbers."""
    finite = np.isfinite(path.kernel).all((1, 2)) & np.isfinite(path.second_moment).all((1, 2))
    if not finite.all():
        raise out_of_range(path.model, "K0", int(np.argmin(finite)))
    return path


class Path(Request[MeanField]):
    """K0 at all layers with one resolution of the integrals, as ``mean_path`` has it, but perhaps out of range."""

    def __init__(self, model: ResNet, kernel: np.ndarray, engine: Expectations) -> None:
        self.model, self.start, self.engine = model, kernel, engine

    @property
    def kind(self) -> Hashable | None:
        if self.engine.kind is None or not self.model.of_the_paper or self.model.depth >= DEEP:
            return None
        return (
            self.engine.kind,
            self.model.depth,
            self.start.shape,
            proportional_pairs(self.model, self.start).tobytes(),
        )

    @property
    def size(self) -> int:
        return len(self.start) * (self.engine.numbers + 2 * self.model.depth * len(self.start))

    def answer(self) -> MeanField:
        return _path(self.model, self.start, self.engine)

    @classmethod
    def answers(cls, requests: Sequence[Path]) -> list[MeanField]:
        # several closures of a network ask for the same one
        keys = [_key(each.model, each.start, each.engine) for each in requests]
        shared = _shared.get()
        known: dict[Hashable, MeanField] = {} if shared is None else shared
        asked = {key: each for key, each in zip(keys, requests, strict=True) if key not in known}
        if asked:
            models, engine = [each.model for each in asked.values()], requests[0].engine
            path, source = _recursion(models, np.stack([each.start for each in asked.values()]), engine)
            for place, (key, model) in enumerate(zip(asked, models, strict=True)):
                known[key] = MeanField(model, engine, path[:, place].copy(), source[:, place].copy())
        return [replace(known[key], engine=each.engine) for key, each in zip(keys, requests, strict=True)]


class Moments(Request[PairMoments]):
    """Gaussian expectations at a few kernels (R, N, N), with derivatives up to ``order``."""

    def __init__(self, engine: Expectations, kernel: np.ndarray, order: int) -> None:
        self.engine, self.kernel, self.order = engine, kernel, order

    @property
    def kind(self) -> Hashable | None:
        return self.engine.kind and (self.engine.kind, self.order, self.kernel.shape[-1])

    @property
    def size(self) -> int:
        return len(self.kernel) * int(self.kernel.shape[-1]) * self.engine.numbers

    def answer(self) -> PairMoments:
        return self.engine.moments(self.kernel, self.order)

    @classmethod
    def answers(cls, requests: Sequence[Moments]) -> list[PairMoments]:
        found = requests[0].engine.moments(np.concatenate([each.kernel for each in requests]), requests[0].order)
        ends = np.cumsum([len(each.kernel) for each in requests])[:-1]
        parts = [
            [None] * len(requests) if values is None else np.split(values, ends)
            for values in (found.value, found.gradient, found.hessian)
        ]
        return [PairMoments(*part) for part in zip(*parts, strict=True)]


def out_of_range(model: ResNet, quantity: str, layer: int) -> InputError:
    """The error for a quantity that overflows at a layer."""
    return InputError(
        f"{quantity} leaves the range of floating-point numbers by layer {layer}"
        f" (weight_variance = {model.weight_variance:g}, epsilon = {model.epsilon:g})",
        place="model",
        remedy="take a smaller depth or weight variance",
    )


def _path(model: ResNet, kernel: np.ndarray, engine: Expectations) -> MeanField:
    shared = _shared.get()
    if shared is None:
        return _solve(model, kernel, engine)
    key = _key(model, kernel, engine)
    if key not in shared:
        shared[key] = _solve(model, kernel, engine)
    return replace(shared[key], engine=engine)


def _key(model: ResNet, kernel: np.ndarray, engine: Expectations) -> Hashable:
    # the model fixes the activation; with it, the description of the engine fixes the integrals
    return model, kernel.tobytes(), *engine.describe().items()


def _solve(model: ResNet, kernel: np.ndarray, engine: Expectations) -> MeanField:
    if model.depth >= DEEP and isinstance(engine, ClosedFormExpectations):
        from eftcore.gaussian.compiled_forms import carry, family_of, parity_of  # a third of a second

        if (family := family_of(engine.activation)) is not None:
            path = np.empty((model.depth + 1, *kernel.shape))
            source = np.empty_like(path)
            path[0] = kernel
            constants = model.epsilon**2, model.weight_variance, model.bias_variance
            tied = proportional_pairs(model, kernel)
            carry(*family, parity_of(engine.activation), engine.disturbed, constants, tied, DRIFT, path, source)
            return MeanField(model, engine, path, source)
    path, source = _recursion([model], kernel[None], engine)
    return MeanField(model, engine, path[:, 0], source[:, 0])


def _recursion(models: list[ResNet], kernel: np.ndarray, engine: Expectations) -> tuple[np.ndarray, np.ndarray]:
    """(L + 1, B, N, N) K0 and E2(K0) of B networks of one depth and activation from their kernels (B, N, N).

    The same inputs of all networks are proportional.
    """
    depth, tied = models[0].depth, proportional_pairs(models[0], kernel[0])
    step, weight, bias = (
        np.array(values)[:, None, None]
        for values in zip(*[(m.epsilon**2, m.weight_variance, m.bias_variance) for m in models], strict=True)
    )
    path = np.empty((depth + 1, *kernel.shape))
    source = np.empty_like(path)
    path[0] = kernel
    second_moments = one_by_one(engine, kernel.shape[-1]) if len(models) == 1 else None
    with np.errstate(all="ignore"):
        for layer in range(depth + 1):
            if second_moments is None:
                source[layer] = to_matrix(engine.moments(path[layer]).value)
            else:
                source[layer, 0] = second_moments(path[layer, 0])
            if layer < depth:
                path[layer + 1] = path[layer] + step * (bias + weight * source[layer])
                straighten(path[layer + 1], tied)
    return path, source


def proportional_pairs(model: ResNet, kernel: np.ndarray) -> np.ndarray:
    """(2, M) pairs of different inputs that are proportional at layer 0 and may stay so with this activation."""
    first, second = pairs = np.stack(pair_indices(len(kernel)))
    rest = independence(kernel[first, first], kernel[first, second], kernel[second, second])
    kinked = bool(get_activation(model.activation).kinks)
    return pairs[:, kinked & (first != second) & (kernel[first, second] != 0) & (rest <= DRIFT)]


def straighten(kernel: np.ndarray, pairs: np.ndarray) -> None:
    """Make pairs that are proportional up to rounding exactly proportional in ``kernel`` (..., N, N), in place.

    ReLU without biases keeps proportional inputs proportional. Over many layers rounding would move them apart, and
    second derivatives of E2, which have a pole there, would see it.
    """
    first, second = pairs
    if not first.size:
        return
    a, c, b = kernel[..., first, first], kernel[..., first, second], kernel[..., second, second]
    root = np.where(a == b, a, np.sqrt(a) * np.sqrt(b))
    c = np.where(independence(a, c, b) <= DRIFT, np.sign(c) * root, c)
    kernel[..., first, second] = kernel[..., second, first] = c


async def choose_engine(
    model: ResNet, kernel: np.ndarray, numerics: Numerics, *, order: int = 2, series: bool = False
) -> Expectations:
    """Refine the integrals until, at a few kernels on the path, moments up to ``order`` change by < rtol (eq. 6.14).

    If no rule meets rtol, the last one that can still be refined is returned: comparing the whole solution with that of
    the finest rule then shows the error.
    ``series`` asks for an engine that also gives Hermite coefficients.
    """
    engine = _coarsest(model, numerics, series=series)
    if isinstance(engine, ClosedFormExpectations):
        return engine
    strides = min(model.depth, 40)
    rough = model.model_copy(update={"epsilon": model.epsilon * np.sqrt(model.depth / strides), "depth": strides})
    path = await Path(rough, kernel, engine)
    layers = np.unique(np.linspace(0, strides, PROBES).astype(int))
    probes = path.kernel[layers[np.isfinite(path.second_moment[layers]).all((1, 2))]]
    if not len(probes):
        raise out_of_range(model, "K0", 0)
    if isinstance(engine, BranchExpectations):
        engine = engine.concentrated(probes)
    else:
        engine = concentrated(engine, float(probes.max()))
    while True:
        here = await Moments(engine, probes, order)
        refinements = [
            finer
            for finer in (engine.refined(nodes=True, terms=False), engine.refined(nodes=False, terms=True))
            if finer is not None
            and finer.refined(nodes=True, terms=True) is not None
            and _change(probes, here, await Moments(finer, probes, order)) > numerics.rtol
        ]
        if not refinements:
            return engine
        # nodes are refined first: refining the terms refines the rule as well, and would use up all terms where only
        # nodes are lacking
        engine = refinements[0]


def _coarsest(model: ResNet, numerics: Numerics, *, series: bool) -> Expectations:
    """The coarsest integrals: E2 as a function of the kernel G of a layer."""
    if not model.of_the_paper:
        return BranchExpectations.of(model, numerics, series=series)
    return expectations(get_activation(model.activation), numerics, series=series)


def mean_field(model: ResNet, kernel: InputKernel, numerics: Numerics | None = None) -> MeanField:
    """K0, E2(K0) and the susceptibility at every layer, converged to ``numerics.rtol`` (eq. 3.1).

    >>> path = mean_field(ResNet(activation="relu", weight_variance=2.0, epsilon=0.1, depth=100),
    ...                   InputKernel.explicit([[1.0]]))
    >>> bool(np.isclose(path.kernel[-1, 0, 0], 1.01**100))
    True
    """
    start, numerics = kernel.array, numerics or Numerics()
    engine = alone(choose_engine(model, start, numerics, order=1))
    probes = np.unique(np.linspace(0, model.depth, PROBES).astype(int))
    while True:
        finer = engine.refined(nodes=True, terms=True) or engine
        path = mean_path(model, start, finer)
        # the kernels compared before came from a path with coarser integrals
        kernels = path.kernel[probes]
        if finer is engine or _change(kernels, engine.moments(kernels, 1), finer.moments(kernels, 1)) <= numerics.rtol:
            return path
        engine = finer


def _change(kernel: np.ndarray, coarse: PairMoments, fine: PairMoments) -> float:
    """Largest change of E2, its gradient or its Hessian, relative to its largest entry or its natural size E2 / K^k."""
    worst = 0.0
    natural = np.abs(fine.value).max(1)
    unit = np.maximum(np.abs(kernel).max((1, 2)), 1e-300)
    for k, (one, two) in enumerate(
        ((coarse.value, fine.value), (coarse.gradient, fine.gradient), (coarse.hessian, fine.hessian))
    ):
        if one is None or two is None:
            continue
        axes = tuple(range(1, two.ndim))
        size = np.maximum(np.abs(two).max(axes), natural / unit**k)
        change = np.abs(two - one).max(axes)
        worst = max(worst, float(np.max(np.divide(change, size, out=np.zeros_like(size), where=size > 0))))
    return worst
