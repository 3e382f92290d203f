"""Factors of the covariances of layer increments, for many networks at once: Cholesky and the symmetric root.

A matrix is a tuple of its entries, row after row, and each entry is a block with one number per network. A symmetric
matrix has the P entries with a <= b, any other all N^2. Loops over entries are written out in full while the kernel is
compiled.
"""

from __future__ import annotations

import triton
import triton.language as tl

ROUNDING = tl.constexpr(1e-6)
"""A pivot below this times its diagonal entry, and an eigenvalue below this times the trace, count as 0.

The matrices are made of sums of float32 products, whose rounding hides what is smaller. The root of a rounding error
would be 1e-3 or so, and would drive the states of two equal inputs apart."""

OFF_DIAGONAL = tl.constexpr(2e-7)
"""Rotations stop when no off-diagonal entry exceeds this times the trace, which is the rounding of float32."""

SWEEPS = tl.constexpr(12)
"""Most sweeps over all pairs of rows. Convergence is quadratic and takes about 5 sweeps from a random start."""


@triton.constexpr_function
def pair(a, b, n_inputs):
    """Position of the entry (a, b) of a symmetric matrix in its tuple."""
    low, high = min(a, b), max(a, b)
    return low * n_inputs - low * (low - 1) // 2 + high - low


@triton.jit
def cholesky(matrix, N: tl.constexpr):
    """Cholesky factor R of a symmetric matrix, R R^T = matrix: lower triangular, all N^2 entries, float32.

    Where a pivot counts as 0, its column of R is 0. Equal rows of the matrix give rows of R that are equal to the last
    digit.
    """
    rows = matrix
    for j in tl.static_range(N):
        pivot = rows[pair(j, j, N)]
        floor = ROUNDING * matrix[pair(j, j, N)]
        inverse = tl.where(pivot > floor, 1.0 / tl.sqrt(tl.where(pivot > floor, pivot, 1.0)), 0.0)
        # row j of the packed remainder becomes column j of R, the entries below lose its outer product
        updated = rows[: pair(j, j, N)]
        for b in tl.static_range(j, N):
            updated = updated + (rows[pair(j, b, N)] * inverse,)
        for a in tl.static_range(j + 1, N):
            for b in tl.static_range(a, N):
                left = updated[pair(j, a, N)]
                right = updated[pair(j, b, N)]
                updated = updated + (rows[pair(a, b, N)] - left * right,)
        rows = updated
    root = ()
    for a in tl.static_range(N):
        for b in tl.static_range(N):
            if b <= a:
                root = root + (rows[pair(b, a, N)],)
            else:
                root = root + (tl.zeros_like(matrix[0]),)
    return root


@triton.jit
def identity(like, N: tl.constexpr):
    """The N^2 entries of the unit matrix, as blocks of the same shape and type as ``like``."""
    entries = ()
    for a in tl.static_range(N):
        for b in tl.static_range(N):
            if a == b:
                entries = entries + (tl.zeros_like(like) + 1.0,)
            else:
                entries = entries + (tl.zeros_like(like),)
    return entries


@triton.jit
def symmetric_root(matrix, vectors, N: tl.constexpr):
    """matrix^(1/2), all N^2 entries, and the matrix of eigenvectors, by Jacobi rotations in float32.

    ``vectors`` is an orthogonal matrix to start from. With the eigenvectors of the layer before, one or two sweeps are
    enough. Rotations go on until every network of the block has converged.
    """
    vectors = _orthogonal(vectors, N)
    work = _congruence(matrix, vectors, N)
    sweep = 0
    while (tl.max(_coupling(work, N)) > 0.0) & (sweep < SWEEPS):
        for p in tl.static_range(N - 1):
            for q in tl.static_range(p + 1, N):
                work, vectors = _rotate(work, vectors, p, q, N)
        sweep += 1
    floor = tl.zeros_like(matrix[0])
    for k in tl.static_range(N):
        floor += ROUNDING * tl.abs(matrix[pair(k, k, N)])
    lengths = ()
    for k in tl.static_range(N):
        value = work[pair(k, k, N)]
        lengths = lengths + (tl.sqrt(tl.where(value > floor, value, 0.0)),)
    root = ()
    for a in tl.static_range(N):
        for b in tl.static_range(N):
            if b < a:
                root = root + (root[b * N + a],)
            else:
                entry = vectors[a * N] * lengths[0] * vectors[b * N]
                for k in tl.static_range(1, N):
                    entry += vectors[a * N + k] * lengths[k] * vectors[b * N + k]
                root = root + (entry,)
    return root, vectors


@triton.jit
def _orthogonal(vectors, N: tl.constexpr):
    """V (3 - V^T V) / 2 of a nearly orthogonal V: one Newton step towards an orthogonal matrix.

    Without it, rounding would accumulate over the layers.
    """
    excess = ()
    for a in tl.static_range(N):
        for b in tl.static_range(a, N):
            entry = vectors[a] * vectors[b]
            for k in tl.static_range(1, N):
                entry += vectors[k * N + a] * vectors[k * N + b]
            if a == b:
                excess = excess + (0.5 * (entry - 1.0),)
            else:
                excess = excess + (0.5 * entry,)
    corrected = ()
    for a in tl.static_range(N):
        for b in tl.static_range(N):
            entry = vectors[a * N + b]
            for k in tl.static_range(N):
                entry -= vectors[a * N + k] * excess[pair(k, b, N)]
            corrected = corrected + (entry,)
    return corrected


@triton.jit
def _congruence(matrix, vectors, N: tl.constexpr):
    """V^T matrix V, a symmetric matrix."""
    product = ()
    for a in tl.static_range(N):
        for b in tl.static_range(N):
            entry = matrix[a] * vectors[b]
            for k in tl.static_range(1, N):
                entry += matrix[pair(a, k, N)] * vectors[k * N + b]
            product = product + (entry,)
    result = ()
    for a in tl.static_range(N):
        for b in tl.static_range(a, N):
            entry = vectors[a] * product[b]
            for k in tl.static_range(1, N):
                entry += vectors[k * N + a] * product[k * N + b]
            result = result + (entry,)
    return result


@triton.jit
def _coupling(work, N: tl.constexpr):
    """For each network, the largest off-diagonal entry minus the size at which it counts as 0.

    A network has converged where this is not positive.
    """
    trace = tl.zeros_like(work[0])
    worst = tl.zeros_like(work[0])
    for a in tl.static_range(N):
        trace += tl.abs(work[pair(a, a, N)])
        for b in tl.static_range(a + 1, N):
            worst = tl.maximum(worst, tl.abs(work[pair(a, b, N)]))
    return worst - OFF_DIAGONAL * trace


@triton.jit
def _rotate(work, vectors, p: tl.constexpr, q: tl.constexpr, N: tl.constexpr):
    """One rotation that makes the entry (p, q) of ``work`` 0, applied to ``vectors`` too."""
    low = work[pair(p, p, N)]
    high = work[pair(q, q, N)]
    off = 2.0 * work[pair(p, q, N)]
    gap = high - low
    size = tl.abs(gap) + tl.sqrt(gap * gap + off * off)
    tangent = tl.where(gap >= 0.0, off, -off) / tl.where(size > 0.0, size, 1.0)
    cosine = 1.0 / tl.sqrt(1.0 + tangent * tangent)
    sine = tangent * cosine
    shift = 0.5 * tangent * off
    rotated = ()
    for a in tl.static_range(N):
        for b in tl.static_range(a, N):
            entry = work[pair(a, b, N)]
            if a == p and b == p:
                entry = low - shift
            elif a == q and b == q:
                entry = high + shift
            elif a == p and b == q:
                entry = tl.zeros_like(entry)
            elif a == p:
                entry = cosine * entry - sine * work[pair(q, b, N)]
            elif b == p:
                entry = cosine * entry - sine * work[pair(a, q, N)]
            elif a == q:
                entry = cosine * entry + sine * work[pair(p, b, N)]
            elif b == q:
                entry = cosine * entry + sine * work[pair(a, p, N)]
            rotated = rotated + (entry,)
    turned = ()
    for a in tl.static_range(N):
        for b in tl.static_range(N):
            if b == p:
                turned = turned + (cosine * vectors[a * N + p] - sine * vectors[a * N + q],)
            elif b == q:
                turned = turned + (sine * vectors[a * N + p] + cosine * vectors[a * N + q],)
            else:
                turned = turned + (vectors[a * N + b],)
    return rotated, turned
