"""Pair space: symmetric N x N matrices as vectors over pairs p = (a <= b), row-major.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BLOCK = 1 << 15
"""Numbers of matrices over pairs that are worked on at a time."""


@lru_cache(maxsize=128)
def pair_indices(n_inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """(P,), (P,): first and second input of each pair a <= b in row-major order, P = N (N + 1) / 2 (eq. 1.7).

    >>> [index.tolist() for index in pair_indices(2)]
    [[0, 0, 1], [0, 1, 1]]
    """
    first, second = np.triu_indices(n_inputs)
    first.setflags(write=False)
    second.setflags(write=False)
    return first, second


@lru_cache(maxsize=128)
def pair_table(n_inputs: int) -> np.ndarray:
    """(N, N) integer table: position of the pair {a, b} in pair space."""
    first, second = pair_indices(n_inputs)
    table = np.empty((n_inputs, n_inputs), dtype=np.intp)
    table[first, second] = table[second, first] = np.arange(len(first))
    table.setflags(write=False)
    return table


def pair_name(first: int, second: int) -> str:
    """Name of the pair of inputs, such as "01"; with a dash, "3-12", where the second index has two digits.

    >>> pair_name(0, 1), pair_name(3, 12)
    ('01', '3-12')
    """
    return f"{first}{second}" if second < 10 else f"{first}-{second}"


def pair_names(n_inputs: int) -> list[str]:
    """(P,) names of the pairs a <= b.

    >>> pair_names(2), pair_names(11)[10]
    (['00', '01', '11'], '0-10')
    """
    return [pair_name(a, b) for a, b in zip(*pair_indices(n_inputs), strict=True)]


def to_pairs(matrix: np.ndarray) -> np.ndarray:
    """Symmetric matrices (..., N, N) as vectors (..., P) over pairs a <= b.

    >>> to_pairs(np.array([[1.0, 2.0], [2.0, 3.0]])).tolist()
    [1.0, 2.0, 3.0]
    """
    first, second = pair_indices(matrix.shape[-1])
    return matrix[..., first, second]


def to_matrix(vector: np.ndarray) -> np.ndarray:
    """Vectors (..., P) over pairs a <= b as symmetric matrices (..., N, N); the inverse of to_pairs."""
    return vector[..., pair_table(inputs_of(vector.shape[-1]))]


def inputs_of(pairs: int) -> int:
    """The number of inputs N for a number of pairs P = N (N + 1) / 2."""
    return (int(np.sqrt(8 * pairs + 1)) - 1) // 2


def product_covariance(a: np.ndarray, b: np.ndarray, axis: int = -2) -> np.ndarray:
    """(..., P, P): A_ac B_bd + A_ad B_bc for symmetric (..., N, N) matrices A, B, at pairs (ab), (cd) (eq. 1.11).

    With A = B = K it is the Wishart covariance n Cov(G) of Gaussian neurons (eq. 2.6). ``axis`` is the first one of the
    matrices: 0 where they are (N, N, ...), for a result (P, P, ...).
    """
    row = axis % a.ndim
    column = row + 1
    first, second = pair_indices(a.shape[row])
    shape = (*a.shape[:row], len(first), len(first), *a.shape[column + 1 :])
    result = np.empty(shape, dtype=np.result_type(a, b))  # complex where a step is
    for rows in blocks(len(first), result.size):
        left, right = np.take(a, first[rows], axis=row), np.take(b, second[rows], axis=row)
        part = np.take(left, first, axis=column) * np.take(right, second, axis=column)
        part += np.take(left, second, axis=column) * np.take(right, first, axis=column)
        result[(slice(None),) * row + (rows,)] = part
    return result


def blocks(rows: int, size: int) -> list[slice]:
    """Slices of consecutive rows of an array with ``size`` numbers in all: as many as a processor's cache holds.

    >>> blocks(3, 9), len(blocks(2080, 2080**2))
    ([slice(None, None, None)], 139)
    """
    if size <= BLOCK:
        return [slice(None)]
    count = max(1, BLOCK * rows // size)
    return [slice(start, start + count) for start in range(0, rows, count)]
