"""Factors R of the covariances Q of layer increments, R R^T = Q, for LANES networks side by side.

Q may have any rank; nothing is added to its diagonal to make it regular (docs/theory.md, section 7).
"""

from __future__ import annotations

from eftcore.ensemble.cpu.lanes import Array, Code, Lanes, vector_code

ROUNDING = 3e-7
"""A pivot below this times its diagonal entry of Q counts as 0.

Q is made of sums of float32 products, whose rounding hides a pivot that small. The root of a rounding error would be
5e-4 or so, and would drive the states of two equal inputs apart."""

ROUNDING_OF_DOUBLE = 1e-13
"""The same where the products are float64."""


@vector_code
def cholesky(code: Code, matrix: Array, factor: Array, rounding: Lanes) -> None:
    """Cholesky factors, lower triangular, of positive semi-definite matrices (docs/theory.md, eq. 7.1).

    Where a pivot counts as 0, its column of the factor is 0. Two equal rows of a matrix give rows of its factor that
    differ by no more than rounding in float64, which changes the last digits of a float64 state, and none of float32.

    Args:
        code: writes the instructions.
        matrix: (N, N, LANES) float64; only its upper triangle is read.
        factor: (N, N, LANES) float64, written.
        rounding: a pivot below this times its diagonal entry counts as 0.
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
        inverse = pivot.where(">", matrix[k, k] * rounding, 1.0 / pivot.sqrt(), 0.0)
        for row in code.loop(0, k):
            factor[row, k] = zero
        for row in code.loop(k, size):
            factor[row, k] = factor[row, k] * inverse


@vector_code
def symmetrise(code: Code, factor: Array, rotation: Array, root: Array) -> None:
    """root = R U, with R a lower triangular factor of Q and U orthogonal, close to the symmetric root Q^(1/2).

    R U is a factor of Q for every orthogonal U, so the law of the networks does not depend on U; the variance of the
    paired estimator does, and is smallest near the symmetric root. One call does one round of plane rotations, which
    start from the given U. Each rotation makes one pair of entries of R U, (p, q) and (q, p), equal, and of the two
    angles that do so it takes the one with the larger trace. For N = 2 one round reaches Q^(1/2). For N > 2 repeated
    rounds converge to it, and since Q changes little from layer to layer, one round a layer stays close.

    Args:
        code: writes the instructions.
        factor: (N, N, LANES) float64, R.
        rotation: (N, N, LANES) float64, orthogonal; U of the last layer on entry, of this layer on return.
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
