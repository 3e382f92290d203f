"""The law of one network's kernel at finite width, from theory alone (docs/theory.md, section 10.2).

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import fsolve
from scipy.special import ndtr, ndtri

from eftcore.errors import InputError, LawWarning
from eftcore.gaussian.pair_moments import correlation_derivatives
from eftcore.pairs import pair_table, to_pairs
from eftcore.results import Theory

NARROWEST = 8
"""Smallest width for which the laws were measured."""

STRONGEST = 0.5
"""Largest D / (n V4) for which the laws were measured."""

MOST_BENT = -0.1
"""Smallest lambda times the relative standard deviation: below it no power law has such moments, or only with tails
that hardly any network is in. Lambda itself is at most 3."""

EXPONENTIAL = 0.3
"""D / (n V4) from which on the variance is V4 exp(D / (n V4)) / n in place of (V4 + D/n) / n."""

SMALLEST_BASE = 1e-3
"""1 + lambda y of a negative lambda is kept above this: nothing that has any weight is below."""

_NODES = np.linspace(-7, 7, 141)
_WEIGHTS = np.exp(-0.5 * _NODES**2)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
"""A rule for means over a Gaussian that leaves out its far tails, where the power law of a negative power diverges."""


class Law(ABC):
    """A distribution of one number.

    Attributes:
        in_range: whether coverage was measured for networks like this one: width >= NARROWEST, |D| / (n V4) <=
            STRONGEST, and a lambda within its limits.
    """

    in_range: bool

    @abstractmethod
    def cdf(self, x: np.ndarray | float) -> np.ndarray:
        """P(value <= x), of the shape of x."""

    @abstractmethod
    def quantile(self, p: np.ndarray | float) -> np.ndarray:
        """The x with P(value <= x) = p, for 0 < p < 1, of the shape of p."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The central interval that holds the value with this probability."""
        if not 0 < level < 1:
            raise InputError("must lie between 0 and 1", place="level", value=level)
        low, high = self.quantile(np.array([0.5 - level / 2, 0.5 + level / 2]))
        return float(low), float(high)

    def sample(self, size: int, seed: int = 0) -> np.ndarray:
        """(size,) independent draws."""
        return self.quantile(np.random.default_rng(seed).uniform(size=size))


@dataclass(frozen=True)
class PowerLaw(Law):
    """A positive number, a power of which is Gaussian: x = c (1 + lambda y)^(1 / lambda), y ~ N(mu, s^2) (eq. 10.7).

    lambda = 1/3 is Wilson and Hilferty's law of a chi-squared number; lambda -> 0 is the log-normal law.
    """

    scale: float
    power: float
    mu: float
    deviation: float
    in_range: bool

    @classmethod
    def of_moments(cls, mean: float, variance: float, power: float, in_range: bool) -> PowerLaw:
        """The law with this mean and variance, and with this lambda or the nearest that is allowed."""
        spread = math.sqrt(variance) / mean
        wanted, power = power, float(np.clip(power, MOST_BENT / spread, 3.0))
        in_range = in_range and power == wanted

        def missed(unknown: np.ndarray) -> np.ndarray:
            values = _power(unknown[0] + math.exp(unknown[1]) * _NODES, power)
            first = float(_WEIGHTS @ values)
            return np.array([first - 1, float(np.sqrt(_WEIGHTS @ (values - first) ** 2)) / spread - 1])

        mu, log_s = fsolve(missed, np.array([0.5 * (power - 1) * spread**2, math.log(spread)]))
        return cls(mean, power, float(mu), math.exp(log_s), in_range)

    def cdf(self, x: np.ndarray | float) -> np.ndarray:
        ratio = np.maximum(np.asarray(x, dtype=float), 0.0) / self.scale
        with np.errstate(divide="ignore"):
            y = np.log(ratio) if self.power == 0 else (ratio**self.power - 1) / self.power
        found: np.ndarray = ndtr((y - self.mu) / self.deviation)
        return found

    def quantile(self, p: np.ndarray | float) -> np.ndarray:
        return self.scale * _power(self.mu + self.deviation * ndtri(np.asarray(p, dtype=float)), self.power)


def _power(y: np.ndarray, power: float) -> np.ndarray:
    """(1 + lambda y)^(1 / lambda), with 0 where 1 + lambda y is not positive; exp(y) at lambda = 0."""
    if abs(power) < 1e-8:
        exponential: np.ndarray = np.exp(y)
        return exponential
    base = np.maximum(1 + power * y, SMALLEST_BASE if power < 0 else 0.0)
    found: np.ndarray = base ** (1 / power)
    return found


@dataclass(frozen=True)
class CorrelationLaw(Law):
    """A correlation: artanh of it has this mean, deviation and skewness (Cornish and Fisher's expansion, eq. 10.9)."""

    mean: float
    deviation: float
    skewness: float
    in_range: bool

    def cdf(self, x: np.ndarray | float) -> np.ndarray:
        w = (np.arctanh(np.clip(x, -1, 1)) - self.mean) / self.deviation
        if abs(self.skewness) < 1e-12:
            found: np.ndarray = ndtr(w)
            return found
        c = self.skewness / 6
        # the root of w = z + c (z^2 - 1) next to w
        found = ndtr(2 * (w + c) / (1 + np.sqrt(np.maximum(1 + 4 * c * (w + c), 0.0))))
        return found

    def quantile(self, p: np.ndarray | float) -> np.ndarray:
        z = ndtri(np.asarray(p, dtype=float))
        found: np.ndarray = np.tanh(self.mean + self.deviation * (z + self.skewness / 6 * (z * z - 1)))
        return found


class DifferenceLaw(Law):
    """c (A - B) of two positive numbers with power laws whose Gaussians are correlated (eq. 10.8)."""

    def __init__(self, factor: float, one: PowerLaw, two: PowerLaw, correlation: float) -> None:
        self.in_range = one.in_range and two.in_range
        self._factor = factor
        rest = math.sqrt(max(1 - correlation**2, 1e-12))
        z, weights = _NODES, _WEIGHTS
        first = one.quantile(ndtr(z))
        middle = factor * (one.scale - two.scale)
        spread = factor * (_spread(one) + _spread(two))
        x = middle + spread * np.sinh(np.linspace(-4, 4, 801)) / np.sinh(1.0) * 0.5
        # A - B <= x / factor where B >= A - x / factor
        least = first[:, None] - x / factor
        with np.errstate(divide="ignore"):
            score = ndtri(two.cdf(least))
        above = ndtr(-(score - correlation * z[:, None]) / rest)
        values = np.clip(weights @ np.where(least <= 0, 1.0, above), 0.0, 1.0)
        values = np.maximum.accumulate(values)
        self._x = x
        self._cdf = PchipInterpolator(x, values)
        inside = (values > 1e-10) & (values < 1 - 1e-10) & (np.diff(values, prepend=-1.0) > 1e-13)
        self._score = PchipInterpolator(ndtri(values[inside]), x[inside])

    def cdf(self, x: np.ndarray | float) -> np.ndarray:
        found: np.ndarray = np.clip(self._cdf(np.clip(x, self._x[0], self._x[-1])), 0.0, 1.0)
        return found

    def quantile(self, p: np.ndarray | float) -> np.ndarray:
        found: np.ndarray = self._score(ndtri(np.asarray(p, dtype=float)))
        return found


def _spread(law: PowerLaw) -> float:
    low, high = law.quantile(np.array([0.16, 0.84]))
    return float(high - low) / 2


@dataclass(frozen=True, eq=False)
class KernelLaw:
    """The law of the kernel of one network of a given width, at the recorded layers of a prediction.

    Attributes:
        theory: the exact closure with its next order.
        width: neurons n.
    """

    theory: Theory
    width: int

    def entry(self, a: int, b: int | None = None, layer: int | None = None) -> Law:
        """The law of G_ab at a recorded layer, by default the last; of G_aa where b is left out.

        Issues a LawWarning where its coverage was not measured for networks like this one.
        """
        b = a if b is None else b
        found = self._diagonal(a, layer) if a == b else self._crossed(a, b, layer)
        self._warn(found)
        return found

    def correlation(self, a: int, b: int, layer: int | None = None) -> Law:
        """The law of G_ab / sqrt(G_aa G_bb) at a recorded layer, by default the last; likewise.

        Raises InputError for inputs that are proportional, whose correlation does not vary.
        """
        fixed = InputError("the inputs are proportional: their correlation does not vary", place="b", value=b)
        if a == b:
            raise fixed
        moments = self._moments(a, b, layer)
        k, n = moments.mean0, self.width
        rho = k[1] / math.sqrt(k[0] * k[2])
        if 1 - rho * rho < 1e-9:
            raise fixed
        g, h = _artanh_derivatives(k)
        C, T = moments.covariance, moments.third
        shift = moments.correction
        mean = math.atanh(rho) + (g @ shift + 0.5 * np.sum(h * C)) / n
        variance = g @ C @ g
        step = 1e-4 * k[[0, 2, 2]]
        slope = np.array(
            [
                (np.sum(_artanh_derivatives(k + d)[1] * C) - np.sum(_artanh_derivatives(k - d)[1] * C)) / (2 * d.sum())
                for d in np.diag(step)
            ]
        )
        second = g @ moments.following @ g + 2 * g @ C @ h @ shift + np.einsum("i,jk,ijk->", g, h, T)
        second += g @ C @ slope + 0.5 * np.sum((h @ C) * (h @ C).T)
        own = C @ g
        third = np.einsum("i,j,k,ijk->", g, g, g, T) + 3 * own @ h @ own
        total = _widened(variance, second, n)
        found = CorrelationLaw(mean, math.sqrt(total), third / n**2 / total**1.5, self._in_range(variance, second))
        self._warn(found)
        return found

    def _diagonal(self, a: int, layer: int | None) -> PowerLaw:
        moments = self._moments(a, a, layer)
        return self._power_law(np.array([1.0]), moments)

    def _crossed(self, a: int, b: int, layer: int | None) -> DifferenceLaw:
        """G_ab = (c / 4) (A - B) with c = sqrt(K_aa K_bb), A and B = |phi_a / sqrt(K_aa) +- phi_b / sqrt(K_bb)|^2 / n.

        At layer 0 A and B are independent.
        """
        moments = self._moments(a, b, layer)
        k = moments.mean0
        c = math.sqrt(k[0] * k[2])
        w = [np.array([1 / k[0], sign * 2 / c, 1 / k[2]]) for sign in (1, -1)]
        one, two = (self._power_law(x, moments) for x in w)
        joint = [[x @ moments.covariance @ y + x @ moments.following @ y / self.width for y in w] for x in w]
        correlation = joint[0][1] / math.sqrt(max(joint[0][0] * joint[1][1], 1e-300))
        return DifferenceLaw(c / 4, one, two, float(np.clip(correlation, -0.999, 0.999)))

    def _power_law(self, w: np.ndarray, moments: _Moments) -> PowerLaw:
        """The law of a positive combination w of the entries."""
        n = self.width
        mean0, variance = float(w @ moments.mean0), float(w @ moments.covariance @ w)
        following = float(w @ moments.following @ w)
        third = float(np.einsum("i,j,k,ijk->", w, w, w, moments.third))
        power = 1 - third * mean0 / (3 * variance**2)
        mean = mean0 + float(w @ moments.correction) / n
        total = _widened(variance, following, n)
        return PowerLaw.of_moments(mean, total, power, self._in_range(variance, following))

    def _in_range(self, variance: float, following: float) -> bool:
        return self.width >= NARROWEST and abs(following) <= STRONGEST * self.width * variance

    def _warn(self, law: Law) -> None:
        if not law.in_range:
            warnings.warn(
                f"width = {self.width}: the law was measured for widths from {NARROWEST} on with |D| / (n V4) up to"
                f" {STRONGEST:g} and moderate skewness; its intervals may be wrong here",
                LawWarning,
                stacklevel=3,
            )

    def _moments(self, a: int, b: int, layer: int | None) -> _Moments:
        theory, inputs = self.theory, self.theory.mean.shape[1]
        for name, index in (("a", a), ("b", b)):
            if not 0 <= index < inputs:
                raise InputError(f"must be an input from 0 to {inputs - 1}", place=name, value=index)
        rows = np.flatnonzero(theory.depth == layer) if layer is not None else [len(theory.depth) - 1]
        if not len(rows):
            raise InputError("is not a recorded layer", place="layer", value=layer, remedy="record it with depths")
        row, table = int(rows[0]), pair_table(inputs)
        p = np.array([table[a, a], table[a, b], table[b, b]] if a != b else [table[a, a]])
        assert theory.covariance is not None
        assert theory.correction is not None
        assert theory.covariance_next is not None
        assert theory.third_cumulant is not None
        for name, index in (("a", a), ("b", b)):
            if not theory.mean[row, index, index] > 0:
                raise InputError("the input is 0 there, and its kernel does not vary", place=name, value=index)
        third = theory.third_cumulant[row][np.ix_(p, p, p)]
        if not np.isfinite(third).all():
            raise InputError("the next order of these inputs is not known", place="b", value=b)
        return _Moments(
            to_pairs(theory.mean[row])[p],
            to_pairs(theory.correction[row])[p],
            theory.covariance[row][np.ix_(p, p)],
            theory.covariance_next[row][np.ix_(p, p)],
            third,
        )


@dataclass(frozen=True, eq=False)
class _Moments:
    """K0, K1, V4, D and T of the entries aa, ab and bb, or of aa alone."""

    mean0: np.ndarray
    correction: np.ndarray
    covariance: np.ndarray
    following: np.ndarray
    third: np.ndarray


def kernel_law(theory: Theory, width: int) -> KernelLaw:
    """The law of the kernel G of one network of ``width`` neurons (eq. 10.7-10.9).

    ``theory`` is a prediction of the exact closure with its next order. Raises InputError for any other.

    >>> from eftcore import InputKernel, ResNet, predict
    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.2, depth=25)
    >>> law = kernel_law(predict(model, InputKernel.explicit([[2.0]]), "exact", next_order=True), width=64).entry(0)
    >>> [round(x, 2) for x in law.interval(0.95)]
    [2.04, 4.42]
    """
    if theory.third_cumulant is None:
        raise InputError(
            "the law of the kernel needs the next order",
            place="theory",
            remedy="predict it with closure = 'exact' and next_order = True",
        )
    if isinstance(width, bool) or int(width) != width or width < 1:
        raise InputError("must be a whole number of at least 1", place="width", value=width)
    return KernelLaw(theory, int(width))


def _widened(variance: float, following: float, n: int) -> float:
    """The variance at width n: (V4 + D/n) / n, or an exponential where D/n is large or as negative as V4."""
    ratio = following / (n * variance)
    return float(variance / n * (math.exp(ratio) if abs(ratio) > EXPONENTIAL else 1 + ratio))


def _artanh_derivatives(k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3,) gradient and (3, 3) Hessian of artanh(k1 / sqrt(k0 k2))."""
    root = math.sqrt(k[0] * k[2])
    rho = k[1] / root
    g, h = correlation_derivatives(*k)
    rest = 1 - rho * rho
    return g / rest, h / rest + 2 * rho / rest**2 * np.outer(g, g)
