"""Factors R of increment covariances, R R^T = Q, of LANES netroots side by side: any rank, no hidden jitter."""

from __future__ import annotations

from eftcore.ensemble.cpu.lanes import Array, Code, Lanes, vector_code

ROUNDING = 3e-7
"""Pivots below this times the diagonal entry count as 0: sums of float32 products cannot tell them from 0, and their
roots would drive duplicated inputs apart."""


@vector_code
def cholesky(code: Code, matrix: Array, factor: Array) -> None:
    """Lower triangular factor of positive semi-definite matrices; where a pivot counts as 0 the column is 0.

    Equal rows of a matrix give rows of its factor that differ by float64 rounding, which float32 states do not see.

    Args:
        code: where instructions go.
        matrix: (N, N, LANES) float64, of which the upper triangle is read.
        factor: (N, N, LANES) float64, written.
    """
    size = matrix.shape[0]
    zero = code.zero("float64")
    for k in code.loop(0, size):
        for row in code.loop(k, size):
            entry = code.variable(matrix[k, row])
            for j in code.loop(0, k):
                entry.set(entry.get() - factor[row, j] * factor[k, j])
            factor[row, k] = entry.get()
        pivot = factor[k, k]
        inverse = pivot.where(">", matrix[k, k] * ROUNDING, 1.0 / pivot.sqrt(), 0.0)
        for row in code.loop(0, k):
            factor[row, k] = zero
        for row in code.loop(k, size):
            factor[row, k] = factor[row, k] * inverse


@vector_code
def symmetrise(code: Code, factor: Array, rotation: Array, root: Array) -> None:
    """root = R U of a lower triangular factor R, with U orthogonal and R U nearly symmetric: nearly Q^(1/2).

    R U is a factor whatever U is, so only the variance of what follows depends on how symmetric it is. One round of
    plane rotations improves on the U that is there; each makes one pair of entries equal, at the largest trace that
    the rotation can reach. For N = 2 that is exact; for N > 2 the rounds converge to Q^(1/2), and a Q that changes
    little from layer to layer stays close to it with one round a layer.

    Args:
        code: where instructions go.
        factor: (N, N, LANES) float64.
        rotation: (N, N, LANES) float64, orthogonal: U of the last layer, then of this one.
        root: (N, N, LANES) float64, written.
    """
    size = factor.shape[0]
    zero = code.zero("float64")
    for a in code.loop(0, size):
        for b in code.loop(0, size):
            entry = code.variable(zero)
            for k in code.loop(0, code.add(a, 1)):
                entry.set(entry.get() + factor[a, k] * rotation[k, b])
            root[a, b] = entry.get()
    for p in code.loop(0, size):
        for q in code.loop(code.add(p, 1), size):
            along = root[p, p] + root[q, q]
            across = root[q, p] - root[p, q]
            length = (along * along + across * across).sqrt()
            known = length.where(">", 0.0, length, 1.0)
            inverse = 1.0 / known
            cosine = length.where(">", 0.0, along * inverse, 1.0)
            sine = across * inverse
            for k in code.loop(0, size):
                for array in (root, rotation):
                    _rotate(array, k, p, q, cosine, sine)


def _rotate(array: Array, k: object, p: object, q: object, cosine: Lanes, sine: Lanes) -> None:
    left, right = array[k, p], array[k, q]
    array[k, p] = cosine * left - sine * right
    array[k, q] = sine * left + cosine * right
