"""V4, K1 and their next order in 1/n, with the third cumulant of the kernel, in the limit of continuous depth.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from scipy.integrate import solve_ivp

from eftcore.activations import Activation, get_activation
from eftcore.errors import InputError
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.inputs.kernel import InputKernel
from eftcore.pairs import to_pairs
from eftcore.specs import Numerics, ResNet
from eftcore.theory.mean_field import choose_engine
from eftcore.theory.next_order.expansion import Moments, initial, rates
from eftcore.theory.next_order.functions import Family
from eftcore.theory.next_order.trigonometric import Cosines
from eftcore.theory.next_order.wick_powers import WickPowers
from eftcore.theory.recursion import MeanFlow

MOST_FUNCTIONS = 90
"""Largest family that is tried: the third cumulants of M functions are M^3 numbers at each step."""

COSINES = (11, 14, 17, 20, 24, 28, 32, 36)
"""Longest wave vectors, in units of pi / L, that are tried one after the other for one input."""

COSINES_OF_SEVERAL = (3.0, 3.5, 4.0, 4.5, 5.0)
"""The same for several inputs."""

HIGHEST = (4, 6, 8, 10, 12, 14, 16)
"""Highest Wick orders that are tried one after the other."""

BEST_FOR_BOUNDED = 6
"""The Wick order after which D of a bounded activation gets worse, since the series diverges."""

VANISHING = 1e-4
"""K1 and K2 that vanish have no scale of their own: errors are relative to this times |V4| / |K0| or |D| / |K0|
at least."""

_FIELDS = {
    "V4": "covariance",
    "K1": "correction",
    "D": "covariance_next",
    "K2": "correction_next",
    "T": "third_cumulant",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class NextOrder:
    """Coefficients of the expansion in 1/n at R times: V4(n) = V4 + D/n + O(1/n^2), E[G] = K0 + K1/n + K2/n^2 + ...

    P pairs a <= b of inputs in row-major order; t = epsilon^2 * layer, in the limit epsilon -> 0.

    Attributes:
        time: (R,) t.
        mean: (R, P) K0.
        covariance: (R, P, P) V4, without truncation.
        correction: (R, P) K1.
        covariance_next: (R, P, P) D.
        correction_next: (R, P) K2.
        third_cumulant: (R, P, P, P) n^2 times the third cumulant of the kernel as n -> infinity.
        error: for each of V4, K1, D, K2 and T the largest change over time between the last two families of functions,
            relative to the largest value over time (Frobenius).
        details: the family and its size, JSON-able.
    """

    time: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    correction: np.ndarray
    covariance_next: np.ndarray
    correction_next: np.ndarray
    third_cumulant: np.ndarray
    error: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)


def next_order(model: ResNet, kernel: InputKernel, times: np.ndarray, *, rtol: float = 1e-3) -> NextOrder:
    """The next order in 1/n at increasing times (R,), t = epsilon^2 * layer in the limit epsilon -> 0 (eq. 10.3).

    The family of functions grows until D changes by less than ``rtol``, or as long as it has at most MOST_FUNCTIONS
    functions; ``error`` says what was reached. For a bounded activation that is neither odd nor even the best Wick
    order is used, with an error of some percent.

    Raises InputError where not even two families can be compared, because there are too many inputs.

    >>> model = ResNet(activation="linear", weight_variance=1.0, epsilon=0.1, depth=1)
    >>> found = next_order(model, InputKernel.explicit([[1.0]]), np.array([0.5]))
    >>> float(found.covariance[0, 0, 0].round(3)), float(found.covariance_next[0, 0, 0].round(2))
    (10.873, 16.31)
    """
    activation = get_activation(model.activation)
    engine = choose_engine(model, kernel.array, Numerics(), series=True)
    assert isinstance(engine, MehlerExpectations)
    flow = MeanFlow(model, kernel.array, engine, float(times[-1]), 1e-10)
    before: NextOrder | None = None
    found: NextOrder | None = None
    for make in _families(activation, engine, model, kernel, flow(times[-1:])[0]):
        family = make()
        if family.size > MOST_FUNCTIONS:
            break
        before, found = found, _solve(family, flow, times, rtol)
        if before is not None and _change(before, found)["D"] <= rtol:
            break
    if before is None or found is None:
        raise InputError(
            f"{kernel.n_inputs} inputs are too many for the next order", place="kernel", remedy="give pairs of inputs"
        )
    found.error.update(_change(before, found))
    return found


def _families(
    activation: Activation, engine: MehlerExpectations, model: ResNet, kernel: InputKernel, last: np.ndarray
) -> Iterator[Callable[[], Family]]:
    """Larger and larger families of functions."""
    variances = model.weight_variance, model.bias_variance
    bounded = is_bounded(activation)
    if bounded and activation.parity is not None:
        widest = np.maximum(np.diag(kernel.array), np.diag(last))
        for modes in COSINES if kernel.n_inputs == 1 else COSINES_OF_SEVERAL:
            yield partial(Cosines, activation, *variances, widest, modes)
        return
    for highest in HIGHEST:
        if not bounded or highest <= BEST_FOR_BOUNDED:
            resolved = MehlerExpectations(activation, engine.level, engine.terms, highest)
            yield partial(WickPowers, resolved, *variances, kernel.n_inputs, highest, np.diag(last))


def is_bounded(activation: Activation) -> bool:
    """Whether sigma stays bounded, as far as its values show.

    >>> [is_bounded(get_activation(name)) for name in ("tanh", "sin", "relu", "softplus")]
    [True, True, False, False]
    """
    near, far = np.linspace(-30, 30, 601), np.linspace(300, 1e4, 601)
    values = [np.abs(activation.function(x)).max() for x in (near, far, -far)]
    return bool(max(values[1:]) <= 2 * values[0])


def _solve(family: Family, flow: MeanFlow, times: np.ndarray, rtol: float) -> NextOrder:
    m, end = family.size, float(times[-1])
    start, last = (family.at(flow(np.array([t]))[0]) for t in (0.0, end))
    s = np.sqrt(np.maximum(np.diag(start.covariance()), np.diag(last.covariance())))
    scale = Moments(s, np.outer(s, s), np.einsum("i,j,k->ijk", s, s, s), np.outer(s, s), s).packed()

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        return rates(family.at(flow(np.array([t]))[0]), Moments.unpacked(y, m)).packed()

    tolerance = 1e-3 * rtol
    solved = solve_ivp(
        slope, (0.0, max(end, 1e-300)), initial(start).packed(), "DOP853", times, rtol=tolerance, atol=tolerance * scale
    )
    if not solved.success or not np.isfinite(solved.y).all():
        raise InputError(
            f"the next order could not be solved up to t = {end:g} ({solved.message})",
            place="model",
            remedy="take a smaller time",
        )
    at = [Moments.unpacked(y, m) for y in solved.y.T]
    g = start.kernel
    return NextOrder(
        time=times,
        mean=to_pairs(flow(times)),
        covariance=np.array([g @ x.C @ g.T for x in at]),
        correction=np.array([g @ x.a for x in at]),
        covariance_next=np.array([g @ x.D @ g.T for x in at]),
        correction_next=np.array([g @ x.b for x in at]),
        third_cumulant=np.array([np.einsum("pi,qj,rk,ijk->pqr", g, g, g, x.T, optimize=True) for x in at]),
        details={"functions": type(family).__name__, "size": m},
    )


def _change(one: NextOrder, two: NextOrder) -> dict[str, float]:
    """Largest change of each quantity over time relative to its largest norm, or to VANISHING of its natural size."""

    def size(values: np.ndarray) -> float:
        return max(float(np.linalg.norm(value)) for value in values)

    natural = {"K1": size(two.covariance), "K2": size(two.covariance_next)}
    found = {}
    for quantity, name in _FIELDS.items():
        a, b = getattr(one, name), getattr(two, name)
        scale = max(size(b), VANISHING * natural.get(quantity, 0.0) / size(two.mean), 1e-300)
        found[quantity] = size(a - b) / scale
    return found
