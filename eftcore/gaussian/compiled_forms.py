"""The recursion of the mean kernel with closed forms of E2, compiled, for networks of very many layers.

Formulas, rounding bounds and the treatment of equal and proportional inputs are those of closed_forms.py and
closed_moments.py, to which the values agree up to rounding. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from eftcore.activation_families import Parity
from eftcore.activations import Activation
from eftcore.compiled import compiled
from eftcore.gaussian.closed_forms import PROPORTIONAL
from eftcore.gaussian.closed_moments import KERNEL_ROUNDING, OWN, ROUNDING, VALUE
from eftcore.gaussian.summed import LARGE, SMALL

FAMILIES = ("linear", "leaky_relu", "erf", "gelu", "sin", "cos")
"""The families with a compiled closed form, by their number."""

_PARITIES: tuple[Parity | None, ...] = (None, "even", "odd")
_SPLIT = 2.0**27 + 1


def family_of(activation: Activation) -> tuple[int, float] | None:
    """(number, parameter) of an activation; None where it has no compiled closed form."""
    family = "leaky_relu" if activation.family == "relu" else activation.family
    if not activation.builtin or family not in FAMILIES:
        return None
    usual = 1.0 if family == "erf" else 0.0
    return FAMILIES.index(family), float(next(iter(activation.parameters.values()), usual))


def parity_of(activation: Activation) -> int:
    """The number of a parity in compiled code: 0 none, 1 even, 2 odd."""
    return _PARITIES.index(activation.parity)


@njit(error_model="numpy")
def _product(x: float, y: float) -> tuple[float, float]:
    """(p, e) with p + e = x y exactly (Dekker 1971)."""
    product = x * y
    scaled_x, scaled_y = _SPLIT * x, _SPLIT * y
    x_high, y_high = scaled_x - (scaled_x - x), scaled_y - (scaled_y - y)
    x_low, y_low = x - x_high, y - y_high
    return product, ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low


@njit(error_model="numpy")
def _correlation(a: float, c: float, b: float) -> tuple[float, float]:
    """(rho^2, 1 - rho^2) as eftcore.gaussian.summed.correlation has them (eq. 6.19)."""
    if not (a > 0 and b > 0):
        return 0.0, 1.0
    if SMALL < a < LARGE and SMALL < b < LARGE and (SMALL < abs(c) < LARGE or c == 0):
        return _from_products(*_product(a, b), *_product(c, c))
    ma, ea = math.frexp(a)
    mc, ec = math.frexp(c)
    mb, eb = math.frexp(b)
    product, product_error = _product(ma, mb)
    square, square_error = _product(mc, mc)
    shift = 2 * ec - ea - eb
    return _from_products(product, product_error, math.ldexp(square, shift), math.ldexp(square_error, shift))


@njit(error_model="numpy")
def _from_products(product: float, product_error: float, square: float, square_error: float) -> tuple[float, float]:
    rest = min(max(((product - square) + (product_error - square_error)) / product, 0.0), 1.0)
    return min(max(square / product, 0.0), 1.0), rest


@njit(error_model="numpy")
def _sine_less(angle: float) -> float:
    """sin x - x cos x; where that cancels, by its series."""
    if angle >= 1.0:
        return math.sin(angle) - angle * math.cos(angle)
    square, term, series = angle * angle, angle, 0.0
    for k in range(1, 11):
        term = term * -square / ((2 * k) * (2 * k + 1))
        series -= 2 * k * term
    return series


@njit(error_model="numpy")
def _single(family: int, parameter: float, k: float) -> tuple[float, float]:
    """<sigma^2> of one input of variance k, with the sum of its absolute terms."""
    if family == 0:
        value = size = k
    elif family == 1:
        value = size = (1 + parameter**2) / 2 * k
    elif family == 2:
        x = 2 * parameter**2 * k
        value = size = 2 / math.pi * math.atan2(x, math.sqrt(1 + 2 * x))
    elif family == 3:
        root = math.sqrt(1 + 2 * k)
        one = k * (math.atan2(root, -k) / (2 * math.pi))
        value = size = one + 2 * (1 / (2 * math.pi * root)) * (k / (1 + k)) * k
    else:
        value = -math.expm1(-2 * k) / 2 if family == 4 else (1 + math.exp(-2 * k)) / 2
        size = value
    return value, size


@njit(error_model="numpy")
def _pair(
    family: int, parameter: float, a: float, c: float, b: float, square: float, rest: float
) -> tuple[float, float]:
    """E2 of two inputs, square = rho^2 and rest = 1 - rho^2, with the sum of its absolute terms (eq. 6.8-6.12)."""
    if family == 0:
        return c, abs(c)
    if family >= 4:
        total = a + b
        shift = total - a
        lost = (a - (total - shift)) + (b - shift)
        size = abs(c)
        gap = size - total / 2
        shift = gap - size
        left = (size - (gap - shift)) - (total / 2 + shift)
        near = math.exp(gap + (left - lost / 2)) / 2
        fast = -2 * size
        value = near * (1 + math.exp(fast)) if family == 5 else math.copysign(-near * math.expm1(fast), c)
        return value, abs(value)
    if family == 1:
        scale = (1 - parameter) ** 2
        if rest <= PROPORTIONAL:
            wedge = max(c, 0.0) * math.pi
        else:
            wedge = (
                math.sqrt(a)
                * math.sqrt(b)
                * _sine_less(math.atan2(math.sqrt(rest), -math.copysign(math.sqrt(square), c)))
            )
        one, other = parameter * c, scale / (2 * math.pi) * wedge
        return one + other, abs(one) + abs(other)
    if family == 2:
        unit = 2 * parameter**2
        a, c, b = unit * a, unit * c, unit * b
        value = 2 / math.pi * math.atan2(c, math.sqrt(1 + a + b + rest * a * b))
        return value, abs(value)
    spread = rest * a * b
    root = math.sqrt(1 + a + b + spread)
    front = 1 / (2 * math.pi * root)
    one, other = c * (math.atan2(root, -c) / (2 * math.pi)), front * spread
    third = front * c * (1 / (1 + a) + 1 / (1 + b)) * c
    return one + other + third, abs(one) + abs(other) + abs(third)


@njit(error_model="numpy")
def _second_moment(
    family: int, parameter: float, parity: int, a: float, c: float, b: float, own: bool, disturbed: bool
) -> float:
    """E2 of a pair, as ``ClosedMoments`` has it; ``own`` for a pair of an input with itself."""
    if own and not disturbed:
        return _single(family, parameter, a)[0]
    same = own or (a == b and c == a)
    opposite = a == b and c == -a and not same and parity > 0
    # sin and cos need no correlation
    square, rest = _correlation(a, c, b) if disturbed or family < 4 else (0.0, 1.0)
    tied = same or opposite or rest <= PROPORTIONAL
    if disturbed:
        a, b = a * (1 - KERNEL_ROUNDING), b * (1 - KERNEL_ROUNDING)
        c *= 1 - KERNEL_ROUNDING if tied else 1 + KERNEL_ROUNDING
    if same or opposite:
        value, size = _single(family, parameter, a)
        if opposite and parity == 2:
            value = -value
    else:
        if disturbed and family < 4:
            square, rest = _correlation(a, c, b)
        value, size = _pair(family, parameter, a, c, b, square, rest)
    if disturbed:
        value += ROUNDING * size * (OWN[0] if tied else VALUE)
    return value


@compiled(error_model="numpy")
def carry(
    family: int,
    parameter: float,
    parity: int,
    disturbed: bool,
    constants: tuple[float, float, float],
    straight: np.ndarray,
    drift: float,
    path: np.ndarray,
    source: np.ndarray,
) -> None:
    """Fill ``path`` and ``source`` (L + 1, N, N), K0 and E2(K0), from ``path[0]`` on (eq. 3.1).

    Args:
        family, parameter, parity: the activation, see ``family_of`` and ``parity_of``.
        disturbed: with every entry moved by a bound of its rounding error (eq. 6.22).
        constants: epsilon^2, C_W and C_b.
        straight: (2, M) pairs of inputs that are kept proportional while 1 - rho^2 is at most ``drift``.
    """
    step, weight, bias = constants
    n = path.shape[1]
    for layer in range(len(path)):
        here, found = path[layer], source[layer]
        for a in range(n):
            for b in range(a, n):
                value = _second_moment(family, parameter, parity, here[a, a], here[a, b], here[b, b], a == b, disturbed)
                found[a, b] = found[b, a] = value
        if layer + 1 == len(path):
            return
        after = path[layer + 1]
        for a in range(n):
            for b in range(n):
                after[a, b] = here[a, b] + step * (bias + weight * found[a, b])
        for m in range(straight.shape[1]):
            a, b = straight[0, m], straight[1, m]
            one, c, two = after[a, a], after[a, b], after[b, b]
            if _correlation(one, c, two)[1] <= drift:
                root = one if one == two else math.sqrt(one) * math.sqrt(two)
                after[a, b] = after[b, a] = math.copysign(root, c) if c != 0 else 0.0
