"""Closed forms of E2 = <sigma(phi_a) sigma(phi_b)>, phi ~ N(0, K), with gradient and Hessian in (K_aa, K_ab, K_bb).

Every entry is a sum that carries a bound of its rounding error, because its terms may cancel (eftcore.gaussian.summed).
<sigma^2> of one input has formulas of its own: computed from the gradient and Hessian of two inputs, its derivatives
would be sums over columns that cancel.

Sources: ReLU family, Cho & Saul 2009 (arc-cosine kernel of order 1); erf, Williams 1996; GELU, Tsuchida et al. 2020
(arXiv:2002.08517), rederived here with Stein's identity; sin, cos and linear are elementary.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eftcore.activations import Activation
from eftcore.gaussian.summed import Summed, correlation, half_gap, independence

PROPORTIONAL = 2e-15
"""Inputs with 1 - rho^2 up to this count as proportional for a kinked sigma: rounding of K alone can make it as large.
"""


@dataclass(frozen=True)
class PairEntries:
    """E2 of two inputs, and what computes its derivatives: the mean kernel needs none.

    Attributes:
        value: (...) E2 (eq. 1.6).
        gradient: gives the derivatives by K_aa, K_ab, K_bb; each (...).
        hessian: gives the second derivatives by (aa, aa), (aa, ab), (aa, bb), (ab, ab), (ab, bb), (bb, bb); each (...).
    """

    value: Summed
    gradient: Callable[[], tuple[Summed, Summed, Summed]]
    hessian: Callable[[], tuple[Summed, Summed, Summed, Summed, Summed, Summed]]


@dataclass(frozen=True)
class ClosedForm:
    """Closed forms of <sigma^2> for one input and of E2 for two.

    Attributes:
        single: function of K, (...), that returns <sigma^2> and its first and second derivative in K.
        pair: function of K_aa, K_ab, K_bb, each (...), that returns their PairEntries.
    """

    single: Callable[[np.ndarray], tuple[Summed, Summed, Summed]]
    pair: Callable[[np.ndarray, np.ndarray, np.ndarray], PairEntries]


def closed_form(activation: Activation) -> ClosedForm | None:
    """The closed form of an activation; None where the literature has none (eq. 6.8-6.12).

    >>> from eftcore.activations import get_activation
    >>> form = closed_form(get_activation("relu"))
    >>> form.single(np.array(2.0))[0].value.item()
    1.0
    """
    if not activation.builtin:
        return None
    build = _FORMS.get(activation.family)
    return None if build is None else build(**activation.parameters)


def _linear() -> ClosedForm:
    def single(k: np.ndarray) -> tuple[Summed, Summed, Summed]:
        zero = np.zeros_like(k)
        return Summed.of(k), Summed.of(zero + 1.0), Summed.of(zero)

    def pair(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> PairEntries:
        zero = Summed.of(np.zeros_like(c))
        return PairEntries(
            Summed.of(c), lambda: (zero, Summed.of(np.ones_like(c)), zero), lambda: (zero, zero, zero, zero, zero, zero)
        )

    return ClosedForm(single, pair)


def _leaky_relu(slope: float = 0.0) -> ClosedForm:
    """Leaky ReLU, slope x + (1 - slope) relu(x). With <x_a relu(x_b)> = K_ab / 2 its linear part adds slope K_ab."""
    power, scale = (1 + slope**2) / 2, (1 - slope) ** 2

    def single(k: np.ndarray) -> tuple[Summed, Summed, Summed]:
        zero = np.zeros_like(k)
        return Summed.of(power * k), Summed.of(zero + power), Summed.of(zero)

    def pair(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> PairEntries:
        """E2 = sqrt(K_aa K_bb) (sin x - x cos x) / (2 pi), x = pi - theta, for ReLU (eq. 6.9).

        Second derivatives diverge as 1/D where the two inputs are proportional. There the kernels stay on D = 0, E2
        is linear along it, and the Hessian is set to 0.
        """
        rho, rest = correlation(a, c, b)
        flat = rest <= PROPORTIONAL
        sine = np.where(flat, 0.0, np.sqrt(rest))
        angle = np.where(flat, np.where(rho > 0, np.pi, 0.0), np.arctan2(sine, -rho))
        left, right = np.sqrt(a), np.sqrt(b)
        safe_left, safe_right = np.where(a > 0, left, np.inf), np.where(b > 0, right, np.inf)
        wedge = np.where(flat, np.maximum(c, 0.0) * np.pi, left * right * _sine_less(angle))
        # the two terms cancel only for slope < 0
        value = Summed.of(slope * c, scale / (2 * np.pi) * wedge)

        def gradient() -> tuple[Summed, Summed, Summed]:
            return (
                Summed.of(scale / (4 * np.pi) * sine * right / safe_left),
                Summed.of(slope + np.zeros_like(c), scale / (2 * np.pi) * angle),
                Summed.of(scale / (4 * np.pi) * sine * left / safe_right),
            )

        def hessian() -> tuple[Summed, Summed, Summed, Summed, Summed, Summed]:
            inverse = np.divide(1.0, sine, out=np.zeros_like(sine), where=sine > 0) * (scale / (8 * np.pi))
            aa, bb, mixed = safe_left**2, safe_right**2, safe_left * safe_right
            tilt = Summed.of(np.ones_like(rest), -2 * rest)
            return (
                tilt * (inverse * right / safe_left / aa),
                Summed.of(-2 * rho * inverse / aa),
                Summed.of(inverse / mixed),
                Summed.of(4 * inverse / mixed),
                Summed.of(-2 * rho * inverse / bb),
                tilt * (inverse * left / safe_right / bb),
            )

        return PairEntries(value, gradient, hessian)

    return ClosedForm(single, pair)


def _sine_less(angle: np.ndarray) -> np.ndarray:
    """sin x - x cos x; where that cancels, by its series sum_k (-1)^(k+1) 2k x^(2k+1) / (2k+1)!."""
    small = np.minimum(angle, 1.0)
    square, term, series = small * small, small, np.zeros_like(small)
    for k in range(1, 11):
        term = term * -square / ((2 * k) * (2 * k + 1))
        series = series - 2 * k * term
    found: np.ndarray = np.where(angle < 1.0, series, np.sin(angle) - angle * np.cos(angle))
    return found


def _erf(scale: float) -> ClosedForm:
    unit = 2 * scale**2

    def single(k: np.ndarray) -> tuple[Summed, Summed, Summed]:
        x = unit * k
        root, front = np.sqrt(1 + 2 * x), 2 / np.pi
        return (
            Summed.of(front * np.arctan2(x, root)),
            Summed.of(front * unit / ((1 + x) * root)),
            Summed.of(-front * unit**2 * (2 + 3 * x) / (((1 + x) * root) * ((1 + x) * root**2))),
        )

    def pair(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> PairEntries:
        """E2 of erf by atan2 in place of arcsin, which would lose digits where its argument is near 1 (eq. 6.10)."""
        rest = independence(a, c, b)
        a, c, b = unit * a, unit * c, unit * b
        alpha, beta = 1 + a, 1 + b
        delta = 1 + a + b + rest * a * b
        root = np.sqrt(delta)

        def gradient() -> tuple[Summed, Summed, Summed]:
            front = 2 * unit / (np.pi * root)
            return Summed.of(-front * c / (2 * alpha)), Summed.of(front), Summed.of(-front * c / (2 * beta))

        def hessian() -> tuple[Summed, Summed, Summed, Summed, Summed, Summed]:
            second, square = 2 * unit**2 / (np.pi * root), c / delta * c
            return (
                Summed.of(second * c / (4 * alpha) * (3 + square) / alpha),
                Summed.of(-second * beta / (2 * delta)),
                Summed.of(second * c / (4 * delta)),
                Summed.of(second * c / delta),
                Summed.of(-second * alpha / (2 * delta)),
                Summed.of(second * c / (4 * beta) * (3 + square) / beta),
            )

        return PairEntries(Summed.of(2 / np.pi * np.arctan2(c, root)), gradient, hessian)

    return ClosedForm(single, pair)


def _gelu() -> ClosedForm:
    def single(k: np.ndarray) -> tuple[Summed, Summed, Summed]:
        """<sigma^2> of GELU for one input, with its first and second derivative in K (eq. 6.21)."""
        alpha, square = 1 + k, 1 + 2 * k
        root, part = np.sqrt(square), k / (1 + k)
        half = np.arctan2(root, -k) / (2 * np.pi)
        front = 1 / (2 * np.pi * root)
        # written in powers of 1 / (1 + K) and K / (1 + K), so that no large number is raised to a power
        poly = (5 + k * 11) / alpha + 4 * part * k
        curve = Summed.of(6 / alpha**3, 18 * part / alpha**2, 11 * part**2 / alpha, -5 * part**3)
        return (
            Summed.of(k * half, 2 * front * part * k),
            Summed.of(half, front * part * poly / square),
            curve * (front / square / square),
        )

    def pair(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> PairEntries:
        """E2 of GELU for two inputs (eq. 6.11), with its gradient and Hessian (eq. 6.20)."""
        rest = independence(a, c, b)
        alpha, beta = 1 + a, 1 + b
        spread = rest * a * b
        delta = 1 + a + b + spread
        root = np.sqrt(delta)
        front = 1 / (2 * np.pi * root)
        # <Phi(phi_a) Phi(phi_b)>
        both = np.arctan2(root, -c) / (2 * np.pi)
        inverse = 1 / alpha + 1 / beta

        def gradient() -> tuple[Summed, Summed, Summed]:
            return (
                _gelu_slope(b, c, alpha, beta, delta) * (front / 2),
                Summed.of(both, front * c * (1 / delta + inverse)),
                _gelu_slope(a, c, beta, alpha, delta) * (front / 2),
            )

        def hessian() -> tuple[Summed, Summed, Summed, Summed, Summed, Summed]:
            square = c / delta * c
            return (
                _gelu_curvature(b, c, alpha, beta, delta) * (front / 4),
                Summed.of(
                    -front / 2 * c * ((1 + 2 / alpha) / alpha + (1 + beta / alpha) / delta + 3 * beta / delta**2)
                ),
                Summed.of(front / 4 * (1 + (a + b) / delta + 3 * (1 / delta + square / delta))),
                Summed.of(front * (1 + 1 / delta + inverse + square * (3 / delta + inverse))),
                Summed.of(-front / 2 * c * ((1 + 2 / beta) / beta + (1 + alpha / beta) / delta + 3 * alpha / delta**2)),
                _gelu_curvature(a, c, beta, alpha, delta) * (front / 4),
            )

        return PairEntries(Summed.of(c * both, front * spread, front * c * inverse * c), gradient, hessian)

    return ClosedForm(single, pair)


def _gelu_slope(b: np.ndarray, c: np.ndarray, alpha: np.ndarray, beta: np.ndarray, delta: np.ndarray) -> Summed:
    """4 pi Delta^(1/2) dE2/dK_aa, written for large and for small variances."""
    square = c * c
    large = Summed.of(-beta / delta, -(1 + beta / alpha), delta / alpha * (1 + 2 / alpha))
    small = Summed.of(
        b * beta * (1 + alpha), -square * (1 + 2 * b + 3 * beta / alpha), square / alpha * square * (1 + 2 / alpha)
    ) * (1 / delta)
    return Summed.least(large, small)


def _gelu_curvature(b: np.ndarray, c: np.ndarray, alpha: np.ndarray, beta: np.ndarray, delta: np.ndarray) -> Summed:
    """8 pi Delta^(1/2) d^2 E2/dK_aa^2, written for large and for small variances."""
    share, ratio, square = beta / delta, beta / alpha, c * c
    factor = (1 + 4 / alpha) / alpha
    large = Summed.of(3 * share**2, share * (1 + ratio), 2 * c / alpha * c * factor, -beta * factor)
    small = Summed.of(
        -b * beta * beta * (alpha + 3),
        square * beta * (3 + 4 * b + 15 * ratio),
        -5 * square * square * beta * factor,
        2 * square * square * (square / alpha) * factor,
    ) * (1 / delta / delta)
    return Summed.least(large, small)


def _waves(sign: float) -> Callable[[], ClosedForm]:
    """A function that returns the closed form of sin (sign = -1) or of cos (sign = +1)."""

    def build() -> ClosedForm:
        def single(k: np.ndarray) -> tuple[Summed, Summed, Summed]:
            fast = np.exp(-2 * k)
            value = -np.expm1(-2 * k) / 2 if sign < 0 else (1 + fast) / 2
            return Summed.of(value), Summed.of(-sign * fast), Summed.of(2 * sign * fast)

        def pair(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> PairEntries:
            """E2 of sin or cos for two inputs, with its gradient and Hessian (eq. 6.12)."""
            near = np.exp(half_gap(a, c, b)) / 2
            # sinh by expm1: no cancellation at small K
            sinh = -np.sign(c) * near * np.expm1(-2 * np.abs(c))
            cosh = near * (1 + np.exp(-2 * np.abs(c)))
            wave, other = (Summed.of(sinh), Summed.of(cosh)) if sign < 0 else (Summed.of(cosh), Summed.of(sinh))
            own, mixed = wave * 0.25, other * -0.5
            return PairEntries(
                wave, lambda: (wave * -0.5, other, wave * -0.5), lambda: (own, mixed, own, wave, mixed, own)
            )

        return ClosedForm(single, pair)

    return build


_FORMS: dict[str, Callable[..., ClosedForm]] = {
    "linear": _linear,
    "relu": _leaky_relu,
    "leaky_relu": _leaky_relu,
    "erf": _erf,
    "gelu": _gelu,
    "sin": _waves(-1.0),
    "cos": _waves(1.0),
}
