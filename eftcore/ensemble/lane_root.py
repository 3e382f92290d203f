"""Symmetric square roots of LANES matrices side by side, by Jacobi rotations."""

from __future__ import annotations

import numpy as np
from numba import njit

from eftcore.ensemble.sums import LANES
from eftcore.ensemble.vector_math import STRICT

OFF_DIAGONAL = 1e-8
"""Rotations stop when no off-diagonal entry exceeds this times the trace: the square of the root is then that close to
the matrix, closer than float32 can tell."""

ROUNDING = 3e-7
"""Eigenvalues below this times the trace count as 0: sums of float32 products cannot tell them from 0, and their roots
would drive duplicated inputs apart."""

SWEEPS = 20
"""A bound never met in practice: convergence is quadratic, from a random start after about 6 sweeps."""


@njit(fastmath=STRICT, error_model="numpy")
def symmetric_roots(
    matrix: np.ndarray, vectors: np.ndarray, work: np.ndarray, scratch: np.ndarray, scale: float, out: np.ndarray
) -> None:
    """scale * matrix^(1/2) of symmetric positive semi-definite matrices into ``out`` (N, N, LANES) float32.

    Any rank is fine: eigenvalues within ROUNDING of 0 count as 0, and nothing is added to the diagonal.

    Args:
        matrix: (N, N, LANES) float64.
        vectors: (N, N, LANES) float64, orthogonal; eigenvectors in its columns on return. What the last layer left is
            a start from which one or two sweeps suffice.
        work, scratch: (N, N, LANES) float64.
    """
    n_inputs = matrix.shape[0]
    _congruence(matrix, vectors, work, scratch)
    for _ in range(SWEEPS):
        if not _coupled(work, scratch):
            break
        for p in range(n_inputs - 1):
            for q in range(p + 1, n_inputs):
                _rotate(work, vectors, p, q, scratch[0, 0], scratch[0, 1])
    floor = out[0, 0]
    for lane in range(LANES):
        floor[lane] = np.float32(0)
    for k in range(n_inputs):
        for lane in range(LANES):
            floor[lane] += np.float32(ROUNDING * np.abs(matrix[k, k, lane]))
    for k in range(n_inputs):
        for lane in range(LANES):
            value = work[k, k, lane]
            scratch[0, k, lane] = scale * np.sqrt(0.0 if value < floor[lane] else value)
    for a in range(n_inputs):
        for b in range(a, n_inputs):
            for lane in range(LANES):
                work[a, b, lane] = 0.0
            for k in range(n_inputs):
                for lane in range(LANES):
                    work[a, b, lane] += vectors[a, k, lane] * scratch[0, k, lane] * vectors[b, k, lane]
            for lane in range(LANES):
                out[a, b, lane] = np.float32(work[a, b, lane])
                out[b, a, lane] = np.float32(work[a, b, lane])


@njit(fastmath=STRICT, error_model="numpy")
def _congruence(matrix, vectors, work, scratch):
    """work = vectors^T matrix vectors."""
    n_inputs = matrix.shape[0]
    scratch[:] = 0.0
    work[:] = 0.0
    for a in range(n_inputs):
        for b in range(n_inputs):
            for k in range(n_inputs):
                for lane in range(LANES):
                    scratch[a, b, lane] += matrix[a, k, lane] * vectors[k, b, lane]
    for a in range(n_inputs):
        for b in range(n_inputs):
            for k in range(n_inputs):
                for lane in range(LANES):
                    work[a, b, lane] += vectors[k, a, lane] * scratch[k, b, lane]


@njit(fastmath=STRICT, error_model="numpy")
def _coupled(work, scratch):
    """Whether any lane's matrix is not diagonal yet."""
    n_inputs = work.shape[0]
    if n_inputs == 1:
        return False
    trace, worst = scratch[0, 0], scratch[0, 1]
    for lane in range(LANES):
        trace[lane] = 0.0
        worst[lane] = 0.0
    for a in range(n_inputs):
        for lane in range(LANES):
            trace[lane] += np.abs(work[a, a, lane])
        for b in range(a + 1, n_inputs):
            for lane in range(LANES):
                off = np.abs(work[a, b, lane])
                worst[lane] = off if off > worst[lane] else worst[lane]
    coupled = False
    for lane in range(LANES):
        coupled |= worst[lane] > OFF_DIAGONAL * trace[lane]
    return coupled


@njit(fastmath=STRICT, error_model="numpy")
def _rotate(work, vectors, p, q, cosine, sine):
    """One rotation in every lane that makes work[p, q] zero."""
    n_inputs = work.shape[0]
    for lane in range(LANES):
        gap = work[q, q, lane] - work[p, p, lane]
        off = 2.0 * work[p, q, lane]
        size = np.abs(gap) + np.sqrt(gap * gap + off * off)
        tangent = (off if gap >= 0.0 else -off) / (size if size > 0.0 else 1.0)
        cosine[lane] = 1.0 / np.sqrt(1.0 + tangent * tangent)
        sine[lane] = tangent * cosine[lane]
    for k in range(n_inputs):
        for lane in range(LANES):
            left, right = work[k, p, lane], work[k, q, lane]
            work[k, p, lane] = cosine[lane] * left - sine[lane] * right
            work[k, q, lane] = sine[lane] * left + cosine[lane] * right
    for k in range(n_inputs):
        for lane in range(LANES):
            left, right = work[p, k, lane], work[q, k, lane]
            work[p, k, lane] = cosine[lane] * left - sine[lane] * right
            work[q, k, lane] = sine[lane] * left + cosine[lane] * right
    for k in range(n_inputs):
        for lane in range(LANES):
            left, right = vectors[k, p, lane], vectors[k, q, lane]
            vectors[k, p, lane] = cosine[lane] * left - sine[lane] * right
            vectors[k, q, lane] = sine[lane] * left + cosine[lane] * right
