"""Cov(f_q, f_p) of all pairs q, p with three or four different inputs, compiled (docs/theory.md, section 4.3).

The covariance is a sum over orders k of the contraction of the Wick coefficients of f_q and f_p with the 2 x 2 matrix M
of correlations between their orthonormal variables. By the singular value decomposition M = R(left) diag(s_1, s_2)
R(right), both are rotated, and multiplied component by component with s_1^i s_2^j. LANES sets of inputs go through this
side by side; orders and components that add less than a given floor to all of them are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from eftcore.compiled import compiled
from eftcore.gaussian.wick_algebra import circular, to_circular
from eftcore.gaussian.wick_series import Components

LANES = 32
"""Sets of inputs that are contracted side by side."""

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Rotations:
    """The circular bases of the orders that are kept, one after the other, for compiled code.

    Attributes:
        orders: (K,) the orders k.
        first: (K,) position of the first angular momentum of each order among all.
        rows: (K,) position of the first row of each order in ``back``.
        back: (sum of k + 1, C) row i of an order takes its angular momenta to the coefficient of h_i h_{k-i}: from real
            parts for even i, from imaginary parts for odd i. C is the largest number of momenta.
    """

    orders: np.ndarray
    first: np.ndarray
    rows: np.ndarray
    back: np.ndarray

    @classmethod
    def of(cls, basis: Components) -> Rotations:
        orders = np.array(basis.orders)
        momenta = orders // 2 + 1
        first = np.concatenate([[0], np.cumsum(momenta)[:-1]])
        rows = np.concatenate([[0], np.cumsum(orders + 1)[:-1]])
        back = np.zeros((int((orders + 1).sum()), int(momenta.max())))
        for k, row, count in zip(basis.orders, rows, momenta, strict=True):
            back[row : row + k + 1 : 2, :count] = circular(k).from_even.T
            back[row + 1 : row + k + 1 : 2, :count] = circular(k).from_odd.T
        return cls(orders, first, rows, back)


def parts(series: np.ndarray, basis: Components) -> tuple[np.ndarray, np.ndarray]:
    """(P, sum of C) real and imaginary parts of Wick coefficients (P, I), order after order, in circular bases."""
    found = [to_circular(k, series[:, basis.where(k)]) for k in basis.orders]
    real, imaginary = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    return real, imaginary


@njit(error_model="numpy", fastmath={"contract"})
def _correlations(
    kernel: np.ndarray, inverse: np.ndarray, inputs: np.ndarray, q: int, p: int
) -> tuple[float, float, float, float]:
    """The four entries of M, (2, 2), for pairs q and p: C_q^-1 K_qp C_p^-T with lower triangular C."""
    a, b, c, d = inputs[q, 0], inputs[q, 1], inputs[p, 0], inputs[p, 1]
    one, low, two = inverse[q, 0, 0], inverse[q, 1, 0], inverse[q, 1, 1]
    ac, ad = one * kernel[a, c], one * kernel[a, d]
    bc, bd = low * kernel[a, c] + two * kernel[b, c], low * kernel[a, d] + two * kernel[b, d]
    one, low, two = inverse[p, 0, 0], inverse[p, 1, 0], inverse[p, 1, 1]
    return ac * one, ac * low + ad * two, bc * one, bc * low + bd * two


@njit(error_model="numpy", fastmath={"contract"})
def _largest(matrix: tuple[float, float, float, float]) -> float:
    """Twice the largest singular value of a matrix."""
    a, b, c, d = matrix
    return math.sqrt((a + d) ** 2 + (c - b) ** 2) + math.sqrt((a - d) ** 2 + (c + b) ** 2)


@njit(error_model="numpy", fastmath={"contract"})
def _decompose(matrix: np.ndarray, turns: np.ndarray, powers: np.ndarray, highest: int) -> None:
    """From matrices (4, LANES): powers 0 .. ``highest`` of phases and singular values.

    ``turns`` (2, 2, highest + 1, LANES): cosine and sine of multiples of the left and of minus the right angle;
    ``powers`` (2, highest + 1, LANES): those of s_1 and s_2. A common sign of both phases cancels, since
    both have the parity of the order.
    """
    for lane in range(LANES):
        a, b, c, d = matrix[0, lane], matrix[1, lane], matrix[2, lane], matrix[3, lane]
        plus, minus, over, under = a + d, a - d, c + b, c - b
        size, skew = math.sqrt(plus * plus + under * under), math.sqrt(minus * minus + over * over)
        by_size, by_skew = 1.0 / size if size > 0 else 0.0, 1.0 / skew if skew > 0 else 0.0
        one_cos, one_sin = minus * by_skew if skew > 0 else 1.0, over * by_skew
        two_cos, two_sin = plus * by_size if size > 0 else 1.0, under * by_size
        real, imaginary = one_cos * two_cos - one_sin * two_sin, one_cos * two_sin + one_sin * two_cos
        half = math.sqrt(0.5 * (1.0 + abs(real)))
        other = 0.5 * imaginary / half
        left_cos, left_sin = (half, other) if real >= 0 else (other, half)
        turns[0, 0, 1, lane], turns[0, 1, 1, lane] = left_cos, left_sin
        turns[1, 0, 1, lane] = left_cos * two_cos + left_sin * two_sin
        turns[1, 1, 1, lane] = left_sin * two_cos - left_cos * two_sin
        powers[0, 1, lane], powers[1, 1, lane] = 0.5 * (size + skew), 0.5 * (size - skew)
    for k in range(2, highest + 1):
        for side in range(2):
            for lane in range(LANES):
                cos, sin = turns[side, 0, 1, lane], turns[side, 1, 1, lane]
                before, across = turns[side, 0, k - 1, lane], turns[side, 1, k - 1, lane]
                turns[side, 0, k, lane] = before * cos - across * sin
                turns[side, 1, k, lane] = before * sin + across * cos
                powers[side, k, lane] = powers[side, k - 1, lane] * powers[side, 1, lane]


@njit(error_model="numpy", fastmath={"contract"})
def _rotate(
    side: int,
    order: int,
    start: int,
    pair: np.ndarray,
    real: np.ndarray,
    imaginary: np.ndarray,
    turns: np.ndarray,
    out: np.ndarray,
) -> None:
    """``out`` (2, C, LANES): real and imaginary parts of one order of ``pair`` (LANES,), turned by the phases."""
    for momentum in range(order // 2 + 1):
        m = 2 * momentum + order % 2
        for lane in range(LANES):
            x, y = real[pair[lane], start + momentum], imaginary[pair[lane], start + momentum]
            cos, sin = turns[side, 0, m, lane], turns[side, 1, m, lane]
            out[0, momentum, lane] = x * cos - y * sin
            out[1, momentum, lane] = x * sin + y * cos


@njit(error_model="numpy", fastmath={"contract"})
def _largest_term(powers: np.ndarray, i: int, j: int, weight: np.ndarray) -> float:
    largest = 0.0
    for lane in range(LANES):
        largest = max(largest, powers[0, i, lane] * abs(powers[1, j, lane]) * weight[lane])
    return largest


@njit(error_model="numpy", fastmath={"contract"})
def _contract(
    left: np.ndarray,
    right: np.ndarray,
    series: Arrays,
    rotations: Arrays,
    floor: float,
    work: Arrays,
    total: np.ndarray,
) -> None:
    """``total`` (LANES,): Cov(f_q, f_p) for q = ``left``, p = ``right``, from the matrices in ``work``."""
    real, imaginary, rest = series
    orders, first, rows, back = rotations
    matrix, turns, powers, turned, weight, sums = work
    _decompose(matrix, turns, powers, orders[-1])
    total[:] = 0.0
    for index in range(len(orders)):
        order = orders[index]
        for lane in range(LANES):
            weight[lane] = rest[left[lane], index] * rest[right[lane], index]
        if _largest_term(powers, order, 0, weight) <= floor:
            return
        _rotate(0, order, first[index], left, real, imaginary, turns, turned[0])
        _rotate(1, order, first[index], right, real, imaginary, turns, turned[1])
        for j in range(order + 1):
            i = order - j
            if _largest_term(powers, i, j, weight) <= floor:
                break
            part, row = i % 2, rows[index] + i
            sums[:] = 0.0
            for momentum in range(order // 2 + 1):
                factor = back[row, momentum]
                for lane in range(LANES):
                    sums[0, lane] += factor * turned[0, part, momentum, lane]
                    sums[1, lane] += factor * turned[1, part, momentum, lane]
            for lane in range(LANES):
                total[lane] += sums[0, lane] * sums[1, lane] * (powers[0, i, lane] * powers[1, j, lane])


@compiled(error_model="numpy", fastmath={"contract"})
def fill(
    covariance: np.ndarray,
    e2: np.ndarray,
    kernel: np.ndarray,
    inverse: np.ndarray,
    inputs: np.ndarray,
    table: np.ndarray,
    series: Arrays,
    rotations: Arrays,
    floor: float,
) -> None:
    """Set the entries of ``covariance`` (P, P) with three and four different inputs (eq. 5.8), at one kernel.

    E4 of a set of inputs is symmetric in them and is found once: of three, a, b and c, as the covariance of aa with bc,
    which is less correlated than that of ab with ac; of four, as that of the two pairs that are least correlated.

    Args:
        e2: (P,) <f_p>.
        kernel: (N, N) K0.
        inverse: (P, 2, 2) orthonormal variables of each pair in terms of its inputs.
        inputs, table: (P, 2) the inputs of each pair, (N, N) the pair of each two inputs.
        series: real and imaginary parts (see ``parts``), and (P, K) the norm of f_p in each order and all above.
        rotations: the fields of ``Rotations``.
        floor: contributions below are left out.
    """
    orders = rotations[0]
    highest = orders[-1]
    momenta = highest // 2 + 1
    work = (
        np.empty((4, LANES)),
        np.empty((2, 2, highest + 2, LANES)),
        np.empty((2, highest + 2, LANES)),
        np.empty((2, 2, momenta, LANES)),
        np.empty(LANES),
        np.empty((2, LANES)),
    )
    work[1][:, 0, 0], work[1][:, 1, 0], work[2][:, 0] = 1.0, 0.0, 1.0
    left, right, sets = np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.empty((LANES, 4), np.int64)
    total = np.empty(LANES)
    count, n = 0, len(kernel)
    # d = c stands for sets of three inputs: a twice, b and c
    for a in range(n):
        for b in range(n):
            for c in range(b + 1, n):
                if a in (b, c):
                    continue
                for d in range(c, n if a < b else c + 1):
                    if d == c:
                        q, p = table[a, a], table[b, c]
                        matrix = _correlations(kernel, inverse, inputs, q, p)
                    else:
                        q, p = table[a, b], table[c, d]
                        matrix = _correlations(kernel, inverse, inputs, q, p)
                        for other in range(2):
                            one, two = (table[a, c], table[b, d]) if other == 0 else (table[a, d], table[b, c])
                            found = _correlations(kernel, inverse, inputs, one, two)
                            if _largest(found) < _largest(matrix):
                                q, p, matrix = one, two, found
                    left[count], right[count] = q, p
                    work[0][0, count], work[0][1, count], work[0][2, count], work[0][3, count] = matrix
                    sets[count, 0], sets[count, 1], sets[count, 2], sets[count, 3] = a, b, c, d
                    count += 1
                    if count == LANES:
                        _contract(left, right, series, rotations, floor, work, total)
                        _scatter(covariance, e2, table, left, right, sets, total, count)
                        count = 0
    if count:
        for lane in range(count, LANES):
            left[lane], right[lane] = left[0], right[0]
            work[0][:, lane] = work[0][:, 0]
        _contract(left, right, series, rotations, floor, work, total)
        _scatter(covariance, e2, table, left, right, sets, total, count)


@njit(error_model="numpy", fastmath={"contract"})
def _scatter(
    covariance: np.ndarray,
    e2: np.ndarray,
    table: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    sets: np.ndarray,
    total: np.ndarray,
    count: int,
) -> None:
    """From the covariance that was found for each set to those of all its pairs of pairs."""
    for lane in range(count):
        a, b, c, d = sets[lane]
        fourth = total[lane] + e2[left[lane]] * e2[right[lane]]
        if c == d:
            q, p = left[lane], right[lane]
            covariance[q, p] = covariance[p, q] = total[lane]
            q, p = table[a, b], table[a, c]
            covariance[q, p] = covariance[p, q] = fourth - e2[q] * e2[p]
            continue
        q, p = table[a, b], table[c, d]
        covariance[q, p] = covariance[p, q] = fourth - e2[q] * e2[p]
        q, p = table[a, c], table[b, d]
        covariance[q, p] = covariance[p, q] = fourth - e2[q] * e2[p]
        q, p = table[a, d], table[b, c]
        covariance[q, p] = covariance[p, q] = fourth - e2[q] * e2[p]
