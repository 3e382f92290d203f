"""Symmetric roots of covariances. Equation numbers are those of docs/theory.md."""

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
