"""sigma of one input for the independent solver: g = sigma^2, its half second derivative, and their Gaussian means.

Formulas and integrals are written anew here; nothing of eftcore is used, so that an error there is not repeated.
Integrals are composite Gauss-Legendre sums over panels that end at 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import erfc, expit, ndtr

Array = np.ndarray
TAIL = 10.0
"""Gaussian integrals end this many standard deviations from 0."""


@dataclass(frozen=True)
class Homogeneous:
    """g = right x^2 for x > 0, left x^2 for x < 0: linear, ReLU and leaky ReLU."""

    right: float
    left: float

    def mean(self, kernel: float) -> tuple[float, float, float]:
        """<g> and its first two derivatives with respect to K."""
        half = (self.right + self.left) / 2
        return half * kernel, half, 0.0


@dataclass(frozen=True)
class Wave:
    """g = 1/2 + amplitude cos 2x: sin (amplitude -1/2) and cos (1/2)."""

    amplitude: float

    def mean(self, kernel: float) -> tuple[float, float, float]:
        """<g> and its first two derivatives with respect to K."""
        bell = math.exp(-2 * kernel)
        value = -math.expm1(-2 * kernel) / 2 if self.amplitude < 0 else (1 + bell) / 2
        return value, -2 * self.amplitude * bell, 4 * self.amplitude * bell


@dataclass(frozen=True)
class Smooth:
    """An analytic sigma that is bounded (tanh, erf) or tends to max(x, 0) (GELU, SiLU, softplus).

    Attributes:
        square: x -> g.
        curvature: x -> g'' / 2 = sigma'^2 + sigma sigma''.
        local: x -> g minus its limit, which is 1 (``rises`` False) or max(x, 0)^2 (True).
        scale: width of what happens near 0.
        reach: |x| beyond which ``local`` is negligible.
        spacing: of a uniform grid whose sums over g times a wide Gaussian are exact to rounding.
    """

    square: Callable[[Array], Array]
    curvature: Callable[[Array], Array]
    local: Callable[[Array], Array]
    rises: bool
    scale: float
    reach: float
    spacing: float

    def mean(self, kernel: float, fineness: float = 1.0) -> tuple[float, float, float]:
        """<g> and its first two derivatives with respect to K.

        For K below scale^2 derivatives act on g, above it on the Gaussian weight, so that nothing cancels.
        """
        root = math.sqrt(kernel)
        unit, weight = _panels(round(40 * fineness))
        if root < self.scale:
            x = TAIL * root * unit
            p = TAIL * root * weight * _gauss(x, kernel)
            origin = float(self.curvature(np.zeros(1))[0])
            bend = self.curvature(x) - origin
            second = float((p * bend) @ ((x * x - kernel) / (2 * kernel**2)))
            return float(p @ self.square(x)), origin + float(p @ bend), second
        end = min(self.reach, TAIL * root)
        z = end / root * unit
        local = self.local(root * z) * end * weight * _gauss(root * z, kernel)
        limit, slope = (kernel / 2, 0.5) if self.rises else (1.0, 0.0)
        first = float(local @ (z * z - 1)) / (2 * kernel)
        second = float(local @ (z**4 - 6 * z * z + 3)) / (4 * kernel**2)
        return limit + float(local.sum()), slope + first, second


Sigma = Homogeneous | Wave | Smooth


def _gauss(x: Array, kernel: float) -> Array:
    return np.exp(-x * x / (2 * kernel)) / math.sqrt(2 * math.pi * kernel)


@lru_cache(maxsize=8)
def _panels(count: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights for -1 .. 1 with ``count`` panels on each side of 0."""
    node, weight = np.polynomial.legendre.leggauss(20)
    start = np.arange(count) / count
    right = (start[:, None] + (node + 1) / (2 * count)).ravel()
    return np.concatenate([-right[::-1], right]), np.tile(weight / (2 * count), 2 * count)


def sigma_of(name: str) -> Sigma:
    """The sigma named as in eftcore.

    >>> sigma_of("leaky_relu(slope=0.5)")
    Homogeneous(right=1.0, left=0.25)
    """
    match = re.fullmatch(r"(\w+)(?:\((\w+)=([^)]*)\))?", name)
    if match is None:
        raise ValueError(f"activation = {name!r}: not known to the independent solver")
    family, value = match.group(1), None if match.group(3) is None else float(match.group(3))
    if family == "linear":
        return Homogeneous(1.0, 1.0)
    if family == "relu":
        return Homogeneous(1.0, 0.0)
    if family == "leaky_relu":
        return Homogeneous(1.0, (0.01 if value is None else value) ** 2)
    if family in ("sin", "cos"):
        return Wave(-0.5 if family == "sin" else 0.5)
    if family == "tanh":
        return _tanh()
    if family == "erf":
        return _erf(1.0 if value is None else value)
    if family == "gelu":
        return _gelu()
    if family in ("silu", "swish"):
        return _silu()
    if family == "softplus":
        return _softplus(1.0 if value is None else value)
    raise ValueError(f"activation = {name!r}: not known to the independent solver")


def _sech_squared(x: Array) -> Array:
    decay = np.exp(-2 * np.abs(x))
    return 4 * decay / (1 + decay) ** 2


def _tanh() -> Smooth:
    def curvature(x: Array) -> Array:
        # sigma'^2 + sigma sigma'' = s^2 - 2 (1 - s) s with s = sech^2
        s = _sech_squared(x)
        return s * (3 * s - 2)

    return Smooth(lambda x: np.tanh(x) ** 2, curvature, lambda x: -_sech_squared(x), False, 1.0, 21.0, 0.13)


def _erf(rate: float) -> Smooth:
    def curvature(x: Array) -> Array:
        y = rate * x
        bell = 2 * rate / math.sqrt(math.pi) * np.exp(-y * y)
        return bell**2 - 2 * rate * y * bell * (1 - erfc(y))

    def local(x: Array) -> Array:
        tail = erfc(rate * np.abs(x))
        return -tail * (2 - tail)

    return Smooth(lambda x: (1 - erfc(rate * x)) ** 2, curvature, local, False, 1 / rate, 6.5 / rate, 0.17 / rate)


def _gelu() -> Smooth:
    def curvature(x: Array) -> Array:
        bell = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        first, second = ndtr(x) + x * bell, (2 - x * x) * bell
        return first**2 + x * ndtr(x) * second

    def local(x: Array) -> Array:
        other = ndtr(-np.abs(x))
        return np.where(x > 0, -(x**2) * other * (2 - other), x**2 * other**2)

    return Smooth(lambda x: (x * ndtr(x)) ** 2, curvature, local, True, 1.0, 9.5, 0.2)


def _silu() -> Smooth:
    def curvature(x: Array) -> Array:
        s, bump = expit(x), expit(x) * expit(-x)
        first, second = s + x * bump, 2 * bump + x * bump * (expit(-x) - s)
        return first**2 + x * s * second

    def local(x: Array) -> Array:
        other = expit(-np.abs(x))
        return np.where(x > 0, -(x**2) * other * (2 - other), x**2 * other**2)

    return Smooth(lambda x: (x * expit(x)) ** 2, curvature, local, True, 1.0, 48.0, 0.25)


def _softplus(beta: float) -> Smooth:
    def value(x: Array) -> Array:
        return np.maximum(x, 0) + np.log1p(np.exp(-beta * np.abs(x))) / beta

    def curvature(x: Array) -> Array:
        s = expit(beta * x)
        return s * (s + beta * value(x) * expit(-beta * x))

    def local(x: Array) -> Array:
        rest = np.log1p(np.exp(-beta * np.abs(x))) / beta
        return rest * (rest + 2 * np.maximum(x, 0))

    return Smooth(lambda x: value(x) ** 2, curvature, local, True, 1 / beta, 45.0 / beta, 0.25 / beta)
