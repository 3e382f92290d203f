"""Sums with a bound of their rounding error, and exact products: floating-point arithmetic for the closed forms.

A sum of terms t_i, each right to a few units in the last place, is right to a few units of sum |t_i|. Carrying that
sum of absolute values, ``size``, along turns every closed form into a value and a bound of its rounding error.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALL, LARGE = 1e-60, 1e60
"""Between these, products of two numbers and their rounding errors neither overflow nor underflow."""

_SPLIT = 2.0**27 + 1


@dataclass(frozen=True, eq=False)
class Summed:
    """A value with the sum of the absolute terms that made it (eq. 6.18).

    Attributes:
        value: (...) the sum.
        size: (...) sum of the absolute terms, >= |value|; the rounding error is a few units in the last place of size.
    """

    value: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, *terms: np.ndarray) -> Summed:
        """The sum of these arrays.

        >>> total = Summed.of(np.array(1.0), np.array(-0.75))
        >>> total.value.item(), total.size.item()
        (0.25, 1.75)
        """
        return cls(sum(terms, np.zeros(())), sum((np.abs(term) for term in terms), np.zeros(())))

    def __add__(self, other: Summed) -> Summed:
        return Summed(self.value + other.value, self.size + other.size)

    def __mul__(self, factor: np.ndarray | float) -> Summed:
        return Summed(self.value * factor, self.size * np.abs(factor))

    @staticmethod
    def least(one: Summed, other: Summed) -> Summed:
        """Of two ways of computing the same number, element by element the one with the smaller rounding bound."""
        better = other.size < one.size
        return Summed(np.where(better, other.value, one.value), np.where(better, other.size, one.size))


def exact_product(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(p, e) with p + e = x y exactly; T. J. Dekker, Numer. Math. 18 (1971) 224. For |x|, |y| far from overflow."""
    product = x * y
    x_high, y_high = _high(x), _high(y)
    x_low, y_low = x - x_high, y - y_high
    return product, ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low


def _high(x: np.ndarray) -> np.ndarray:
    scaled = _SPLIT * x
    return np.asarray(scaled - (scaled - x))


def half_gap(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|c| - (a + b) / 2, to full precision however much the terms cancel."""
    total = a + b
    shift = total - a
    lost = (a - (total - shift)) + (b - shift)
    c = np.abs(c)
    gap = c - total / 2
    shift = gap - c
    left = (c - (gap - shift)) - (total / 2 + shift)
    half: np.ndarray = gap + (left - lost / 2)
    return half


def correlation(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rho, 1 - rho^2) for variances a, b and covariance c, without cancellation, from exact products (eq. 6.19).

    The mantissas are multiplied, so that neither large nor denormal variances overflow; rho = 0 at variance 0.

    >>> rho, rest = correlation(np.array(4e-320), np.array(4e-320), np.array(4e-320))
    >>> rho.item(), rest.item()
    (1.0, 0.0)
    """
    product, product_error, square, square_error, some = _products(a, c, b)
    rho = np.sign(c) * np.sqrt(np.minimum(np.maximum(square / product, 0.0), 1.0))
    rest = _rest(product, product_error, square, square_error)
    return (rho, rest) if some is None else (np.where(some, rho, 0.0), np.where(some, rest, 1.0))


def independence(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - rho^2, the second number of ``correlation``.

    >>> independence(np.array(4.0), np.array(1.0), np.array(1.0)).item()
    0.75
    """
    *products, some = _products(a, c, b)
    rest = _rest(*products)
    return rest if some is None else np.where(some, rest, 1.0)


def _products(
    a: np.ndarray, c: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """a b and c^2 with their rounding errors, up to a common power of two; and where neither a nor b is 0.

    The last is None where all numbers are of such a size that nothing overflows or underflows as they stand.
    """
    if _ordinary(a) and _ordinary(b) and (not c.size or np.abs(c).max() < LARGE):
        return *exact_product(a, b), *exact_product(c, c), None
    (ma, ea), (mc, ec), (mb, eb) = np.frexp(a), np.frexp(c), np.frexp(b)
    some = (a > 0) & (b > 0)
    product, product_error = exact_product(np.where(some, ma, 1.0), np.where(some, mb, 1.0))
    square, square_error = exact_product(mc, mc)
    shift = np.where(some, 2 * ec - ea - eb, 0)
    return product, product_error, np.ldexp(square, shift), np.ldexp(square_error, shift), some


def _rest(product: np.ndarray, product_error: np.ndarray, square: np.ndarray, square_error: np.ndarray) -> np.ndarray:
    rest = ((product - square) + (product_error - square_error)) / product
    clipped: np.ndarray = np.minimum(np.maximum(rest, 0.0), 1.0)
    return clipped


def _ordinary(x: np.ndarray) -> bool:
    """Whether all numbers are of a size whose products and their errors neither overflow nor underflow."""
    return not x.size or bool(x.min() > SMALL and x.max() < LARGE)
