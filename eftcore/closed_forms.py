"""Closed forms of E2 = <sigma(phi_a) sigma(phi_b)>, phi ~ N(0, K), as jets in (K_aa, K_ab, K_bb).

Sources: ReLU family, Cho & Saul 2009 (arc-cosine kernel of order 1); erf, Williams 1996; GELU, Tsuchida et al. 2020
(arXiv:2002.08517), rederived here with Stein's identity; sin, cos and linear are elementary.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eftcore.activations import Activation
from eftcore.jets import Jet

ClosedForm = Callable[[np.ndarray, np.ndarray, np.ndarray], Jet]


def closed_form(activation: Activation) -> ClosedForm | None:
    """(K_aa, K_ab, K_bb), each (...), to the jet of E2; None where the literature has no closed form (eq. 6.8-6.12).

    >>> from eftcore.activations import get_activation
    >>> form = closed_form(get_activation("relu"))
    >>> form(np.array(2.0), np.array(2.0), np.array(2.0)).value.item()
    1.0
    """
    if not activation.builtin:
        return None
    build = _FORMS.get(activation.family)
    return None if build is None else build(**activation.parameters)


def _linear() -> ClosedForm:
    return lambda a, c, b: Jet.variables(a, c, b)[1]


def _leaky_relu(slope: float = 0.0) -> ClosedForm:
    # sigma = slope * x + (1 - slope) * relu(x), and <x_a relu(x_b)> = K_ab / 2.
    linear = slope**2 + slope * (1 - slope)
    scale = (1 - slope) ** 2

    def form(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> Jet:
        return Jet.variables(a, c, b)[1] * linear + _arc_cosine(a, c, b) * scale

    return form


def _arc_cosine(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> Jet:
    """<relu relu> = (D + K_ab (pi - theta)) / (2 pi), D = sqrt(K_aa K_bb - K_ab^2), theta = atan2(D, K_ab) (eq. 6.9).

    With d theta = -(dK_ab - ...) / D all first derivatives are finite; the second ones diverge as 1/D where
    the two inputs are proportional. There the kernels stay on D = 0, E2 is linear along it, and the
    Hessian is set to 0.
    """
    a, c, b = np.broadcast_arrays(a, c, b)
    size = np.sqrt(a * b)
    # (sqrt(ab) - c)(sqrt(ab) + c) loses no digits near D = 0
    width = np.sqrt(np.maximum((size - c) * (size + c), 0.0))
    flat = width <= 1e-8 * size
    width = np.where(flat, 0.0, width)
    angle = np.pi - np.arctan2(width, c)
    safe_a, safe_b, safe_d = np.where(a > 0, a, 1.0), np.where(b > 0, b, 1.0), np.where(flat, 1.0, width)
    gradient = np.stack([width / (4 * np.pi * safe_a), angle / (2 * np.pi), width / (4 * np.pi * safe_b)], axis=-1)
    # derivatives of D / (4 pi a) etc., with dD = (b da + a db - 2 c dc) / (2 D)
    aa = (b / (2 * safe_d * safe_a) - width / safe_a**2) / (4 * np.pi)
    bb = (a / (2 * safe_d * safe_b) - width / safe_b**2) / (4 * np.pi)
    ab = 1 / (8 * np.pi * safe_d)
    ac = -c / (4 * np.pi * safe_a * safe_d)
    bc = -c / (4 * np.pi * safe_b * safe_d)
    cc = 1 / (2 * np.pi * safe_d)
    hessian = np.stack([aa, ac, ab, ac, cc, bc, ab, bc, bb], axis=-1).reshape(*a.shape, 3, 3)
    hessian = np.where(flat[..., None, None], 0.0, hessian)
    return Jet((width + c * angle) / (2 * np.pi), gradient, hessian)


def _erf(scale: float) -> ClosedForm:
    def form(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> Jet:
        ja, jc, jb = Jet.variables(a, c, b)
        return _arcsine(ja * (2 * scale**2), jc * (2 * scale**2), jb * (2 * scale**2)) * (2 / np.pi)

    return form


def _arcsine(a: Jet, c: Jet, b: Jet) -> Jet:
    """arcsin(c / sqrt((1 + a)(1 + b))) as an atan2, without loss near +-1 (eq. 6.10, 6.11)."""
    return c.arctan2(((a + 1.0) * (b + 1.0) - c * c).sqrt())


def _gelu() -> ClosedForm:
    def form(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> Jet:
        ja, jc, jb = Jet.variables(a, c, b)
        root = ((ja + 1.0) * (jb + 1.0) - jc * jc).sqrt()
        # <x_a x_b g> = c <g> + a c <g_aa> + (a b + c^2) <g_ab> + c b <g_bb> with g = Phi(x_a) Phi(x_b)
        mean = _arcsine(ja, jc, jb) / (2 * np.pi) + 0.25
        square = jc * jc
        rest = ja * jb + square - square * (ja / (ja + 1.0) + jb / (jb + 1.0))
        return jc * mean + rest / root / (2 * np.pi)

    return form


def _waves(sign: float) -> Callable[[], ClosedForm]:
    def build() -> ClosedForm:
        def form(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> Jet:
            ja, jc, jb = Jet.variables(a, c, b)
            half = (ja + jb) * 0.5
            near, far = (jc - half).exp(), (-jc - half).exp()
            wave = (near + far * sign) * 0.5
            if sign > 0:
                return wave
            # sinh by expm1: no cancellation at small K
            value = -0.5 * np.sign(jc.value) * np.exp(np.abs(jc.value) - half.value) * np.expm1(-2 * np.abs(jc.value))
            return Jet(value, wave.gradient, wave.hessian)

        return form

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
