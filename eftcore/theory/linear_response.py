"""How pair quantities respond to a change of the mean kernel (docs/theory.md, eq. 1.9 and 1.10)."""

from __future__ import annotations

import numpy as np

from eftcore.pairs import blocks, pair_indices, pair_table


def with_transpose(x: np.ndarray) -> np.ndarray:
    """x + x^T for x of shape (P, P, *B).

    >>> with_transpose(np.array([[1.0, 2.0], [0.0, 3.0]])).tolist()
    [[2.0, 2.0], [2.0, 6.0]]
    """
    result = np.empty_like(x)
    for rows in blocks(len(x), x.size):
        np.add(x[rows], np.swapaxes(x[:, rows], 0, 1), out=result[rows])
    return result


class LinearResponse:
    """Products with chi and with the Hessian H of E2, for N inputs and P = N (N + 1) / 2 pairs a <= b row-major.

    E2 of the pair p = (a, b) depends on three entries of the kernel, K_aa, K_ab and K_bb. So chi and H are stored by
    pair, (P, 3) and (P, 3, 3), with columns in this order; a diagonal pair (a, a) uses column 0 alone. All arrays may
    have one more axis at their end, *B, over networks that are solved together.

    Attributes:
        n_inputs: N.
        neighbours: (P, 3) positions of the pairs aa, ab, bb for each pair (a, b).
    """

    def __init__(self, n_inputs: int) -> None:
        self.n_inputs = n_inputs
        first, second = pair_indices(n_inputs)
        table = pair_table(n_inputs)
        self.neighbours = np.stack([table[first, first], np.arange(len(first)), table[second, second]], axis=-1)

    def respond(self, chi: np.ndarray, x: np.ndarray) -> np.ndarray:
        """chi x for x of shape (P, ..., *B), chi (P, 3, *B): at most three entries per row (eq. 1.10)."""
        aa, _, bb = self.neighbours.T
        shape = (len(aa),) + (1,) * (x.ndim + 1 - chi.ndim) + chi.shape[2:]
        own, cross, other = chi[:, 0].reshape(shape), chi[:, 1].reshape(shape), chi[:, 2].reshape(shape)
        result = np.empty_like(x)
        for rows in blocks(len(aa), x.size):
            part = np.multiply(own[rows], x[aa[rows]], out=result[rows])
            part += cross[rows] * x[rows]
            part += other[rows] * x[bb[rows]]
        return result

    def respond_right(self, x: np.ndarray, chi: np.ndarray) -> np.ndarray:
        """x chi^T for x (P, P, *B), chi (P, 3, *B): at most three entries per column (eq. 1.10)."""
        aa, _, bb = self.neighbours.T
        own, cross, other = chi[:, 0], chi[:, 1], chi[:, 2]
        result = np.empty_like(x)
        for rows in blocks(len(x), x.size):
            here = x[rows]
            part = np.multiply(own, here[:, aa], out=result[rows])
            part += cross * here
            part += other * here[:, bb]
        return result

    def respond_both(self, chi: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """chi C + C chi^T for a symmetric C, (P, P, *B) (eq. 1.10)."""
        return with_transpose(self.respond(chi, covariance))

    def tadpole(self, hessian: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """(1/2) H : C, (P, *B): half the sum over q, r of H_p[q, r] C[q, r] (eq. 1.10)."""
        q, r = self.neighbours[:, :, None], self.neighbours[:, None, :]
        half: np.ndarray = 0.5 * np.einsum("pqr...,pqr...->p...", hessian, covariance[q, r])
        return half
