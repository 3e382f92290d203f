"""Truncated power series in a few variables: sums, products, compositions, and derivatives of every order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, permutations
from math import factorial

import numpy as np

DEGREE = 4
"""Highest total degree that is kept."""


@lru_cache(maxsize=8)
def exponents(variables: int) -> tuple[tuple[int, ...], ...]:
    """The exponents of all monomials in this many variables up to DEGREE, by degree.

    >>> exponents(1), len(exponents(3))
    (((0,), (1,), (2,), (3,), (4,)), 35)
    """
    found = [
        tuple(chosen.count(variable) for variable in range(variables))
        for degree in range(DEGREE + 1)
        for chosen in combinations_with_replacement(range(variables), degree)
    ]
    return tuple(found)


@lru_cache(maxsize=8)
def _products(variables: int) -> tuple[tuple[int, int, int], ...]:
    """(i, j, k) of monomials with i times j = k."""
    place = {monomial: k for k, monomial in enumerate(exponents(variables))}
    found = []
    for i, left in enumerate(exponents(variables)):
        for j, right in enumerate(exponents(variables)):
            k = place.get(tuple(a + b for a, b in zip(left, right, strict=True)))
            if k is not None:
                found.append((i, j, k))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Taylor:
    """A power series sum_k c_k x^{e_k} around a point, truncated above DEGREE; many at once.

    Attributes:
        variables: number of variables.
        coefficients: (..., C), for the monomials of ``exponents(variables)``.
    """

    variables: int
    coefficients: np.ndarray

    @classmethod
    def constant(cls, variables: int, value: np.ndarray) -> Taylor:
        """The series of a constant (...)."""
        coefficients = np.zeros((*np.shape(value), len(exponents(variables))))
        coefficients[..., 0] = value
        return cls(variables, coefficients)

    @classmethod
    def variable(cls, variables: int, index: int, value: np.ndarray) -> Taylor:
        """The series of the variable ``index`` around ``value`` (...).

        >>> x = Taylor.variable(1, 0, np.array(3.0))
        >>> (x * x).coefficients.tolist()
        [9.0, 6.0, 1.0, 0.0, 0.0]
        """
        found = cls.constant(variables, value)
        found.coefficients[..., 1 + index] = 1.0
        return found

    @property
    def value(self) -> np.ndarray:
        """(...) the series at the point itself."""
        found: np.ndarray = self.coefficients[..., 0]
        return found

    def __add__(self, other: Taylor | float | np.ndarray) -> Taylor:
        more = other if isinstance(other, Taylor) else Taylor.constant(self.variables, np.asarray(other))
        return Taylor(self.variables, self.coefficients + more.coefficients)

    __radd__ = __add__

    def __sub__(self, other: Taylor) -> Taylor:
        return Taylor(self.variables, self.coefficients - other.coefficients)

    def __mul__(self, other: Taylor | float | np.ndarray) -> Taylor:
        if not isinstance(other, Taylor):
            return Taylor(self.variables, self.coefficients * np.asarray(other)[..., None])
        a, b = np.broadcast_arrays(self.coefficients, other.coefficients)
        product = np.zeros(a.shape)
        for i, j, k in _products(self.variables):
            product[..., k] += a[..., i] * b[..., j]
        return Taylor(self.variables, product)

    __rmul__ = __mul__

    def compose(self, derivatives: list[np.ndarray]) -> Taylor:
        """f of this series, from f and its derivatives at its value, [f, f', ..., f''''] (...) each.

        >>> x = Taylor.variable(1, 0, np.array(1.0))
        >>> x.compose([np.array(v) for v in (1.0, -1.0, 2.0, -6.0, 24.0)]).coefficients.tolist()  # 1 / x
        [1.0, -1.0, 1.0, -1.0, 1.0]
        """
        rest = Taylor(self.variables, self.coefficients.copy())
        rest.coefficients[..., 0] = 0.0
        found = Taylor.constant(self.variables, derivatives[-1] / factorial(DEGREE))
        for k in range(DEGREE - 1, -1, -1):
            found = found * rest + derivatives[k] / factorial(k)
        return found

    def power(self, exponent: float) -> Taylor:
        """This series, of positive value, to a real power."""
        derivatives = [self.value**exponent]
        for k in range(DEGREE):
            derivatives.append(derivatives[-1] * (exponent - k) / self.value)
        return self.compose(derivatives)

    def derivatives(self, order: int) -> np.ndarray:
        """(..., V, ..., V) all derivatives of one order at the point.

        >>> x, y = (Taylor.variable(2, k, np.array(1.0)) for k in (0, 1))
        >>> (x * x * y).derivatives(2).tolist()
        [[2.0, 2.0], [2.0, 0.0]]
        """
        shape = self.coefficients.shape[:-1]
        found = np.zeros((*shape, *[self.variables] * order))
        for k, monomial in enumerate(exponents(self.variables)):
            if sum(monomial) != order:
                continue
            value = self.coefficients[..., k] * float(np.prod([factorial(e) for e in monomial]))
            which = [variable for variable, e in enumerate(monomial) for _ in range(e)]
            index: tuple[int, ...]
            for index in set(permutations(which)):
                np.moveaxis(found, range(-order, 0), range(order))[index] = value
        return found
