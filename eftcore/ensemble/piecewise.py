"""Piecewise polynomials that stand for an activation in vector code, with a bound of their error.

The fused pass has hand-made code for some activations (eftcore.ensemble.cpu.vector_math). For every other one the
polynomials are made here, when it is first simulated, from values of sigma alone: at most 32 pieces of one degree,
which end at kinks. A piece is a polynomial in x - r, where r is its point nearest to 0 if that is 0, and its middle
otherwise. The pieces that reach 0 take the value sigma(0) itself there.

From 0 outwards each piece is as long as the bound below allows. Where sigma is a polynomial up to the bound from some
point on, as relu, gelu or any that saturates, the last piece is that polynomial and reaches to FAR. ``limit`` is how
far the pieces reach on both sides; beyond it the pass calls sigma itself.

The bound. A piece is accepted if

    |P(x) - sigma(x)| <= BOUND max(|sigma(x)|, s min(1, |x|)),   s^2 = <sigma(z)^2>, z ~ N(0, 1),

where P is computed by Horner's scheme in the arithmetic of the pass and with its rounded coefficients. The left side
has two parts, bounded at POINTS Chebyshev points of the piece:

* P - sigma in exact arithmetic. If sigma is a polynomial of degree NODES - 1 on the piece, up to a twentieth of the
  bound, as its Chebyshev series there shows, the largest value between the points is at most
  1 / cos(pi NODES / (2 POINTS)) = 1.09 times the largest at the points (Ehlich and Zeller, 1964). MARGIN times that is
  taken, since the right side varies between points too.
* Rounding: a running bound along Horner's scheme (Higham, Accuracy and Stability of Numerical Algorithms, section 5.1),
  with or without fused products.

A kink that was found and not declared is known to 1e-10 or so (eftcore.kinks), and sigma is known no better around it.
The last piece is judged in the same way on intervals of a quarter octave each. What varies on a scale too small for
NODES points of a piece is not seen, as by no method that knows values of sigma alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.polynomial import chebyshev

from eftcore.activations import Activation

SHAPES = {
    "float32": ((16, 5), (16, 7), (16, 9), (32, 7), (32, 9)),
    "float64": ((16, 9), (16, 11), (16, 13)),
}
"""Most pieces and degree of the tables for which the pass has code, the fastest first.

The first that reaches COMFORTABLE is taken, else the one that reaches furthest."""

BOUND = {"float32": 4e-7, "float64": 2e-13}
"""Largest error, see above."""

FAR = 2.0**17
COMFORTABLE, NEAR = 30.0, 4.0
"""The least limit with which a faster table is taken, and the least with which there is a fit at all."""

NODES, POINTS, MARGIN = 33, 128, 1.25

_UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
_SECOND_ORDER = 1.05
_TINY = 1e-30
_LARGEST = {"float32": 1e12, "float64": 1e100}
_SHORTEST = 1e-6

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Piecewise:
    """A fit.

    Attributes:
        table: (degree + 3, pieces) of the type that the pass computes in: where each piece begins, ascending; its point
            r; its coefficients, highest power first. Pieces that are not used begin at infinity.
        limit: it holds for |x| <= limit.
        error: bound of its error in units of that of the module's docstring, at most 1.
    """

    table: np.ndarray
    limit: float
    error: float

    @property
    def shape(self) -> tuple[int, int]:
        """Most pieces and degree, one of SHAPES."""
        return self.table.shape[1], len(self.table) - 3

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The polynomials at |x| <= limit, in the type of the table, without fused products."""
        x = np.asarray(x, self.table.dtype)
        piece = np.searchsorted(self.table[0], x, side="right") - 1
        t = x - self.table[1, piece]
        value: np.ndarray = self.table[2, piece]
        for coefficients in self.table[3:]:
            value = value * t + coefficients[piece]
        return value


@dataclass(frozen=True)
class _Piece:
    begin: float
    end: float
    origin: float
    coefficients: np.ndarray
    error: float


@lru_cache(maxsize=64)
def piecewise(activation: Activation, dtype: str) -> Piecewise | None:
    """The fit of an activation for "float32" or "float64"; None if none reaches NEAR with the bound above.

    >>> from eftcore.activations import get_activation
    >>> fit = piecewise(get_activation("gelu"), "float32")
    >>> fit.shape, fit.limit, fit.error < 1
    ((16, 5), 131071.9921875, True)
    """
    with np.errstate(all="ignore"):
        best: Piecewise | None = None
        for pieces, degree in SHAPES[dtype]:
            fit = _Fitter(activation, dtype, pieces, degree).fit()
            if fit is not None and fit.limit >= (NEAR if best is None else 1.01 * best.limit):
                best = fit
            if best is not None and best.limit >= COMFORTABLE:
                break
    return best


def tolerance(function: Function, x: np.ndarray, dtype: str) -> np.ndarray:
    """The bound of the module's docstring at x."""
    return _tolerance(_values(function, x), x, _size(function), BOUND[dtype])


def _tolerance(values: np.ndarray, x: np.ndarray, size: float, bound: float) -> np.ndarray:
    allowed: np.ndarray = bound * np.maximum(np.abs(values), size * np.minimum(1.0, np.abs(x)))
    return allowed


def _size(function: Function) -> float:
    z, weight = np.polynomial.hermite_e.hermegauss(64)
    return float(np.sqrt(weight @ _values(function, z) ** 2 / weight.sum()))


def _values(function: Function, x: np.ndarray) -> np.ndarray:
    """sigma(x); NaN where it raises, so that no piece reaches there and the simulation raises it if it gets there."""
    try:
        return np.asarray(function(np.array(x, dtype=float)), dtype=float)
    except Exception:
        return np.full_like(x, np.nan, dtype=float)


def _chebyshev(count: int) -> np.ndarray:
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)


_NODES, _POINTS = _chebyshev(NODES), _chebyshev(POINTS)
_SERIES = 2 / NODES * chebyshev.chebvander(_NODES, NODES - 1).T
_SERIES[0] /= 2


_POWERS = np.zeros((NODES, NODES))
"""Row k: the coefficients of the k-th Chebyshev polynomial, the lowest power first."""
_POWERS[0, 0] = _POWERS[1, 1] = 1
for _k in range(2, NODES):
    _POWERS[_k] = 2 * np.roll(_POWERS[_k - 1], 1) - _POWERS[_k - 2]


def _shifted(powers: np.ndarray, by: float) -> np.ndarray:
    """The polynomial in u + ``by``, the lowest power first, as one in u."""
    if by == 0.0:
        return powers
    powers = powers.copy()
    for first in range(len(powers) - 1):
        for k in range(len(powers) - 2, first - 1, -1):
            powers[k] += by * powers[k + 1]
    return powers


class _Fitter:
    """Fits one activation with so many polynomials of one degree."""

    def __init__(self, activation: Activation, dtype: str, pieces: int, degree: int) -> None:
        self._function = activation.function
        self._kinks = activation.kinks
        self._type = np.dtype(dtype).type
        self._dtype, self._most, self._degree = dtype, pieces, degree
        self._size = _size(activation.function)

    def fit(self) -> Piecewise | None:
        """The fit with the largest limit, None where there is none."""
        largest = _LARGEST[self._dtype]
        if self._size and not 1 / largest < self._size < largest:  # the pass adds up products of sigma in this type
            return None
        pieces, start = [], 0.0
        if 0.0 not in self._kinks:
            central = self._longest(self._function, 0.0, min(map(abs, self._kinks), default=FAR))
            if central is None:
                return None
            pieces, start = [replace(central, begin=-central.end)], central.end
        pieces += self._march(self._function, [kink for kink in self._kinks if kink > 0], start)
        left = self._march(lambda y: self._function(-y), [-kink for kink in reversed(self._kinks) if kink < 0], start)
        pieces = [*map(_mirrored, reversed(left)), *pieces]
        if not pieces:
            return None
        furthest = min(pieces[-1].end, -pieces[0].begin)
        ends = {abs(end) for piece in pieces for end in (piece.begin, piece.end)}
        for limit in sorted((end for end in ends if 0 < end <= furthest), reverse=True):
            kept = [piece for piece in pieces if piece.begin < limit and piece.end > -limit]
            table = self._table(kept)
            if table is not None:
                # a jump at the limit itself is beyond it
                limit = float(np.nextafter(self._type(limit), self._type(0)))
                return Piecewise(table=table, limit=limit, error=max(piece.error for piece in kept))
        return None

    def _march(self, function: Function, kinks: list[float], start: float) -> list[_Piece]:
        """Pieces of a function on the positive axis from ``start`` outwards, none longer than the bound allows."""
        tail = self._tail(function)
        pieces: list[_Piece] = []
        begin = start
        while len(pieces) < self._most and begin < FAR:
            stop = next((kink for kink in kinks if kink > begin), FAR)
            if tail is not None:
                known = self._judged(function, tail.coefficients, 0.0, begin, max(tail.begin, begin))
                if known is not None and stop == FAR:
                    return [*pieces, replace(tail, begin=begin, error=max(known, tail.error))]
                stop = min(stop, tail.begin) if tail.begin > begin else stop
            piece = self._longest(function, begin, stop)
            if piece is None:
                break
            pieces.append(piece)
            begin = piece.end
        return pieces

    def _longest(self, function: Function, begin: float, stop: float) -> _Piece | None:
        """The longest piece from ``begin`` to at most ``stop``; one from 0 where sigma has no kink is symmetric."""
        low, high, found = begin, stop, None
        end = min(begin + 1.0, stop)
        for _ in range(40):
            piece = self._piece(function, begin, end)
            if piece is not None:
                found, low = piece, end
                if end == stop:
                    break
                end = min(begin + 2 * (end - begin), stop) if high == stop else (low + high) / 2
            else:
                high = end
                end = (low + high) / 2
            end = stop if end == stop else float(self._type(end))
            if high - low < 0.05 * (low - begin) or high - begin < _SHORTEST:
                break
        return found

    def _piece(self, function: Function, begin: float, end: float) -> _Piece | None:
        if end <= begin:
            return None
        central = begin == 0.0 and 0.0 not in self._kinks
        low = -end if central else begin
        middle, half = (low + end) / 2, (end - low) / 2
        origin = 0.0 if begin == 0.0 else float(self._type(middle))
        x = middle + half * _NODES
        values = _values(function, x)
        at_zero, beside = _values(function, np.array([0.0, _TINY]))
        if not central and abs(at_zero - beside) > _TINY ** (1 / 2):
            at_zero = beside  # sigma jumps at 0
        if not (np.isfinite(values).all() and np.isfinite(at_zero)):
            return None
        pinned = origin == 0.0 and abs(at_zero) < 1e-6 * self._size
        series = _SERIES @ ((values - at_zero) / x if pinned else values)
        terms = self._degree + (0 if pinned else 1)
        powers = _shifted(_POWERS[:terms, :terms].T @ series[:terms], (origin - middle) / half)
        powers = powers / half ** np.arange(terms)
        if pinned:
            powers = np.append(at_zero, powers)
        elif origin == 0.0:
            powers[0] = at_zero
        coefficients = self._type(powers[::-1])
        # whether NODES points resolve sigma here: its series has fallen below what is asked for
        resolved = np.abs(series[-4:]).max() * (np.abs(x) if pinned else 1.0)
        if (resolved > 0.05 * _tolerance(values, x, self._size, BOUND[self._dtype])).any():
            return None
        error = self._judged(function, coefficients, origin, low, end)
        return None if error is None else _Piece(begin, end, origin, coefficients, error)

    def _judged(
        self, function: Function, coefficients: np.ndarray, origin: float, begin: float, end: float
    ) -> float | None:
        """The bound of a polynomial's error from ``begin`` to ``end`` in units of the tolerance; None if above 1."""
        if begin == end:
            return 0.0
        x = (begin + end) / 2 + (end - begin) / 2 * _POINTS
        values = _values(function, x)
        if not np.isfinite(values).all():
            return None
        c, t = coefficients.astype(float), x - origin
        unit = _UNIT[self._dtype]
        value, slope, rounding = np.full_like(t, c[0]), np.zeros_like(t), np.zeros_like(t)
        for coefficient in c[1:]:
            slope = slope * np.abs(t) + np.abs(value)
            product = value * t
            value = product + coefficient
            rounding = rounding * np.abs(t) + unit * (np.abs(product) + np.abs(value))
        rounding = rounding + unit * np.abs(t) * slope * (origin != 0.0)
        allowed = _tolerance(values, x, self._size, BOUND[self._dtype])
        error = MARGIN * np.abs(value - values) + _SECOND_ORDER * rounding
        if not (error <= allowed).all():
            return None
        return float((error / np.maximum(allowed, 1e-300)).max())

    def _tail(self, function: Function) -> _Piece | None:
        """A polynomial of degree 3 at most that holds up to FAR, and from where on it does."""
        edges = np.geomspace(FAR, 2.0**-2, 4 * 19 + 1)
        best: _Piece | None = None
        for degree in range(4):
            for scale in 4.0 ** np.arange(2, 8):
                x = np.linspace(1.0, 2.0, degree + 1)
                values = _values(function, scale * x)
                if not np.isfinite(values).all():
                    continue
                powers = np.linalg.solve(np.vander(x), values) / scale ** np.arange(degree, -1, -1.0)
                coefficients = np.zeros(self._degree + 1)
                coefficients[-degree - 1 :] = powers
                coefficients = self._type(coefficients)
                begin, error = FAR, 0.0
                for end, low in pairwise(edges):
                    judged = self._judged(function, coefficients, 0.0, low, end)
                    if judged is None:
                        break
                    begin, error = float(self._type(low)), max(error, judged)
                if begin < FAR and (best is None or begin < best.begin):
                    best = _Piece(begin, FAR, 0.0, coefficients, error)
            if best is not None:
                break
        return best

    def _table(self, pieces: list[_Piece]) -> np.ndarray | None:
        """The pieces as a table, None where they are too many."""
        begins, chosen = [-np.inf], pieces[:1]
        for left, right in pairwise(pieces):
            place = self._type(right.begin)
            first = place if place >= right.begin else np.nextafter(place, self._type(np.inf))
            after = np.nextafter(first, self._type(np.inf))
            at = np.array([float(first)])
            value = _values(self._function, at)
            allowed = 2 * _tolerance(value, at, self._size, BOUND[self._dtype]) + _TINY
            sides = [
                np.abs(np.polyval(piece.coefficients.astype(float), at - piece.origin) - value) <= allowed
                for piece in (left, right)
            ]
            if sides[1]:
                begins, chosen = [*begins, first], [*chosen, right]
            elif sides[0]:
                begins, chosen = [*begins, after], [*chosen, right]
            else:
                constant = np.zeros(self._degree + 1, self._type)
                constant[-1] = value[0]
                begins, chosen = [*begins, first, after], [*chosen, _Piece(0, 0, 0.0, constant, 0.0), right]
        if len(chosen) > self._most:
            return None
        table = np.zeros((self._degree + 3, self._most), self._type)
        table[0] = np.inf
        table[0, : len(begins)] = begins
        table[1, : len(chosen)] = [piece.origin for piece in chosen]
        table[2:, : len(chosen)] = np.transpose([piece.coefficients for piece in chosen])
        return table


def _mirrored(piece: _Piece) -> _Piece:
    """The piece of sigma(-x)."""
    signs = (-1.0) ** np.arange(len(piece.coefficients) - 1, -1, -1)
    return replace(
        piece, begin=-piece.end, end=-piece.begin, origin=-piece.origin, coefficients=piece.coefficients * signs
    )
