"""Roots of covariances. Equation numbers are those of docs/theory.md."""

from __future__ import annotations

import numpy as np


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """Symmetric root of symmetric positive semi-definite matrices (..., N, N) (eq. 7.1).

    Eigenvalues that are negative by rounding count as 0.

    >>> symmetric_root(np.array([[4.0, 4.0], [4.0, 4.0]])).round(12).tolist()
    [[1.414213562373, 1.414213562373], [1.414213562373, 1.414213562373]]
    """
    values, vectors = np.linalg.eigh(matrix)
    root: np.ndarray = (vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return root


SINGULAR = 1e-13
"""A pivot below this times its diagonal entry counts as 0."""


def lower_root(matrix: np.ndarray) -> np.ndarray:
    """Lower triangular root of symmetric positive semi-definite matrices (..., N, N), of any rank (eq. 7.1).

    The column of a pivot that is 0 up to rounding is 0.

    >>> lower_root(np.array([[4.0, 4.0], [4.0, 4.0]])).tolist()
    [[2.0, 0.0], [2.0, 0.0]]
    """
    root = np.zeros_like(matrix)
    for k in range(matrix.shape[-1]):
        column = matrix[..., k:, k] - np.einsum("...aj,...j->...a", root[..., k:, :k], root[..., k, :k])
        pivot = column[..., 0]
        known = pivot > SINGULAR * matrix[..., k, k]
        root[..., k:, k] = column * np.where(known, 1 / np.sqrt(np.where(known, pivot, 1.0)), 0.0)[..., None]
    return root
