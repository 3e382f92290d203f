"""Linear maps of two variables acting on their Wick powers h_i(z_1) h_j(z_2) of one order k = i + j.

Substituting z -> M z mixes only the k + 1 powers of the same order. A rotation is diagonal in the circular basis
(eigenvectors of the angular momentum), and a diagonal M is diagonal in the powers themselves. A general M is, by its
singular value decomposition, a rotation, a diagonal matrix and a rotation. It costs two products with fixed matrices,
which are the same for all pairs; no polynomial is multiplied out, and nothing cancels.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import eigh_tridiagonal


@dataclass(frozen=True, eq=False)
class Circular:
    """The circular basis of one order k; real coefficients need only the C angular momenta k % 2, .., k - 2, k.

    Attributes:
        to_even: (k // 2 + 1, C) matrix from the coefficients with even i to the real parts.
        to_odd: ((k + 1) // 2, C) matrix from the coefficients with odd i to the imaginary parts.
        from_even: (C, k // 2 + 1) matrix from the real parts to the coefficients with even i.
        from_odd: (C, (k + 1) // 2) matrix from the imaginary parts to the coefficients with odd i.
    """

    to_even: np.ndarray
    to_odd: np.ndarray
    from_even: np.ndarray
    from_odd: np.ndarray


@lru_cache(maxsize=256)
def circular(order: int) -> Circular:
    """The circular basis of an order, from the eigenvectors of the generator of rotations.

    The generator is tridiagonal in the Wick powers; a rotation by an angle multiplies component m by exp(i m angle).
    """
    i = np.arange(order)
    values, vectors = eigh_tridiagonal(np.zeros(order + 1), np.sqrt((i + 1) * (order - i)))
    keep = slice((order + 1) // 2, None)
    values, vectors = values[keep], vectors[:, keep]
    sign = (-1.0) ** (np.arange(order + 1) // 2)
    signed = vectors * sign[:, None]
    both = np.where(values > 0.5, 2.0, 1.0)[:, None]
    return Circular(signed[0::2], signed[1::2], both * signed[0::2].T, both * signed[1::2].T)


def to_circular(order: int, powers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary parts, (..., C) each, of coefficients (..., k + 1) by increasing i, in the circular basis."""
    basis = circular(order)
    even, odd = (np.ascontiguousarray(powers[..., start::2]) for start in (0, 1))
    return even @ basis.to_even, odd @ basis.to_odd


class Turn:
    """Rotation of each of M pairs of variables: f(z) -> f(Rz), R = [[cos, -sin], [sin, cos]]."""

    def __init__(self, angle: np.ndarray, highest: int) -> None:
        phases = _powers(np.exp(1j * angle), highest)
        self.cos, self.sin = phases.real.copy(), phases.imag.copy()

    def powers(self, order: int, parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """(m, k + 1) coefficients of the rotated polynomials of the first m <= M pairs.

        ``parts`` are real and imaginary parts, (m, C) each, in the circular basis.
        """
        basis = circular(order)
        real, imaginary = parts
        count, momenta = len(real), slice(order % 2, order + 1, 2)
        cos, sin = self.cos[:count, momenta], self.sin[:count, momenta]
        found = np.empty((count, order + 1))
        found[:, 0::2] = (real * cos - imaginary * sin) @ basis.from_even
        found[:, 1::2] = (real * sin + imaginary * cos) @ basis.from_odd
        return found


class Substitution:
    """The substitution z -> M z, with M = R(left) diag(s_1, s_2) R(right) by its singular value decomposition.

    M holds correlations between orthonormal variables, so that |s_2| <= s_1 <= 1.
    """

    def __init__(self, matrix: np.ndarray, highest: int) -> None:
        """Decompose M matrices, (M, 2, 2), and prepare powers of their singular values up to order ``highest``."""
        (a, b), (c, d) = matrix[:, 0].T, matrix[:, 1].T
        size, skew = np.hypot(a + d, c - b) / 2, np.hypot(a - d, c + b) / 2
        one, two = np.arctan2(c + b, a - d), np.arctan2(c - b, a + d)
        self.left = Turn((one + two) / 2, highest)
        self.angle = (two - one) / 2
        self.first = _powers(size + skew, highest)
        self.second = _powers(size - skew, highest)

    def scaled(self, order: int, parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """(m, k + 1) coefficients of the first m <= M polynomials after the left rotation and the scaling."""
        found = self.left.powers(order, parts)
        found *= self.first[: len(found), : order + 1]
        found *= self.second[: len(found), order::-1]
        return found


def largest_correlation(matrix: np.ndarray) -> np.ndarray:
    """(...) largest singular value of each matrix (..., 2, 2) of correlations: the first canonical correlation."""
    a, b, c, d = np.moveaxis(matrix.reshape(*matrix.shape[:-2], 4), -1, 0)
    largest: np.ndarray = (np.hypot(a + d, c - b) + np.hypot(a - d, c + b)) / 2
    return largest


def _powers(x: np.ndarray, highest: int) -> np.ndarray:
    """(M, highest + 1) powers x^0 .. x^highest of x, (M,)."""
    found = np.empty((len(x), highest + 1), dtype=x.dtype)
    found[:, 0] = 1.0
    found[:, 1:] = x[:, None]
    return np.cumprod(found, axis=1, out=found)


def shear(powers: np.ndarray, matrix: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., P, I) covariances with the Wick powers h_i h_j of z' = T z (eq. 4.16).

    ``powers`` (..., P, I) are the covariances with the Wick powers of z, ``matrix`` (P, 2, 2) the lower-triangular T.
    Components of all orders are flattened, by increasing i within an order; ``first`` and ``second`` hold i and j. With
    z_2' = gamma z_1 + beta z_2 the binomial weights of eq. 4.16 are those of the exponential of a raising operator, and
    its power series ends where terms are negligible.
    """
    alpha, gamma, beta = matrix[:, 0, 0], matrix[:, 1, 0], matrix[:, 1, 1]
    tilt = np.divide(gamma, alpha, out=np.zeros_like(gamma), where=alpha != 0)[:, None]
    order = np.arange(max(first.max(initial=0), second.max(initial=0)) + 1)
    term = powers * ((alpha[:, None] ** order)[:, first] * (beta[:, None] ** order)[:, second])
    total: np.ndarray = term.copy()
    # a pair with one variable is not tilted
    turned = np.flatnonzero(tilt[:, 0])
    if not len(turned):
        return total
    # h_{i+1} h_{j-1} of the same order stands next to h_i h_j
    raising = np.sqrt(second * (first + 1.0))[:-1] * tilt[turned]
    largest = np.abs(term).max(initial=0.0)
    term = np.take(term, turned, axis=-2)
    sums, after = term.copy(), np.zeros_like(term)
    for power in range(1, int(second.max(initial=0)) + 1):
        shifted = np.multiply(term[..., 1:], raising, out=after[..., :-1])
        shifted /= power
        sums += after
        if max(shifted.max(initial=0.0), -shifted.min(initial=0.0)) <= 1e-18 * largest:
            break
        term, after = after, term
        after[..., -1] = 0.0
    total[..., turned, :] = sums
    return total
