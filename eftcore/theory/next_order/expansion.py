"""The system-size expansion through one layer: moments of the deviations x in powers of 1/n, exact in epsilon.

    E x = a/n + b/n^2,   Cov x = C/n + D/n^2,   third cumulants of x = T/n^2.

Given a layer, the mean of the next one's x is J x + B(x, x) + Gamma(x, x, x) + Delta(x, x, x, x), where B, Gamma and
Delta are symmetric, its covariance is (A0 + A1 x + A2(x, x)) / n, and its third cumulant is that of independent neurons
over n^2; all follow from exp(h sum_q Q_q D_q) with Q = Q0 + F x (eq. 10.2). The laws of total cumulance then give the
moments one layer deeper (eq. 10.3). Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eftcore.compiled import compiled
from eftcore.theory.next_order.basis import At, Basis


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of M deviations: a, b (M,), C, D (M, M) and T (M, M, M)."""

    a: np.ndarray
    C: np.ndarray
    T: np.ndarray
    D: np.ndarray
    b: np.ndarray


def initial(basis: Basis, at: At) -> Moments:
    """The moments at layer 0, whose neurons are independent and Gaussian: there are no corrections in 1/n."""
    m = basis.size
    covariance = at.second[:m] - np.outer(at.mean[:m], at.mean[:m])
    none = np.zeros((m, m, m))
    kept, no_pairs = np.zeros(m), np.zeros((1, m, m))
    third = _third(
        none, kept, np.zeros((1, m)), no_pairs, np.zeros((1, m)), no_pairs,
        basis.products.start, basis.products.result, at.coefficient, np.zeros_like(at.coefficient),
        np.zeros_like(at.coefficient), np.zeros((m, m)), at.mean, at.second, at.mean, at.second,
    )  # fmt: skip
    return Moments(np.zeros(m), covariance, third, np.zeros((m, m)), np.zeros(m))


def advance(basis: Basis, before: At, after: At, carried: np.ndarray, h: float, x: Moments) -> Moments:
    """The moments one layer deeper (eq. 10.3).

    Args:
        before, after: the functions at K0 of this layer and of the next.
        carried: (E,) by what the mean part of a layer multiplies each function.
        h: epsilon^2.
        x: the moments at this layer.
    """
    m, lowered, dot = basis.size, basis.lowered, np.einsum
    F, e, a, C = before.response, carried[:m], x.a, x.C
    # D_q, D_q D_p, ... on the means
    all1 = basis.lowered_means(before.mean)
    all2 = basis.lowered_means(all1)
    m1, m2 = all1[:, :m], all2[..., :m]
    all3 = basis.lowered_means(all2)
    m3, m4 = all3[..., :m], basis.lowered_means(all3)[..., :m]
    # contractions with the response
    FC, fa, fb, FD = F @ C, F @ a, F @ x.b, F @ x.D
    FT = (F @ x.T.reshape(m, -1)).reshape(-1, m, m)
    FFT = F @ FT
    FFFT = FFT @ F.T
    S, FDF = FC @ F.T, FD @ F.T
    # C J^T and F C J^T
    V = (e[:, None] * (C + h * m1.T @ FC)).T
    G = e * (FC + h * S @ m1)
    lowC, lowV, lowa = lowered(C), lowered(V), lowered(a)
    low = dot("qqi->i", lowered(FC.T).transpose(0, 2, 1))  # sum_q D_q (F C)_q
    lowlow = lowered(low)

    half = dot("qp,qpi->i", S, m2)
    mean1 = e * (a + h * (fa @ m1 + low + 0.5 * h * half))
    covariance = e[:, None] * (V + h * m1.T @ G)

    two_a = dot("q,p,qpi->i", fa, fa, m2)
    mean2 = x.b + h * (fb @ m1 + dot("qqi->i", lowered(FD.T).transpose(0, 2, 1)) + fa @ lowa)
    mean2 += 0.5 * h * h * (dot("qp,qpi->i", FDF, m2) + two_a)
    mean2 += h * h * (fa @ lowlow + 0.5 * dot("qp,qpi->i", S, lowered(lowa.T).transpose(0, 2, 1)))
    mean2 += 0.5 * h**3 * dot("qp,r,qpri->i", S, fa, m3)
    lowT = lowered(lowered(FFT.transpose(2, 0, 1)).transpose(1, 0, 2, 3))
    mean2 += 0.5 * h * h * dot("qipqp->i", lowT) + h**3 / 6 * dot("qpr,qpri->i", FFFT, m3)
    mean2 += 0.5 * h**3 * dot("qp,qpi->i", S, lowered(lowlow.T).transpose(0, 2, 1))
    mean2 += h**4 / 8 * dot("qp,rs,qprsi->i", S, S, m4)
    mean2 *= e

    noise = _Noise(basis, before, after, carried, h)
    covariance += noise.constant
    linear = noise.linear()

    # 2 B(a, C J^T) + B:T J^T + 3 Gamma(C, C J^T)
    FTJ = e * (FT + h * dot("pj,qpr->qrj", m1, FFT))
    FFTJ = e * (FFT + h * dot("rj,qpr->qpj", m1, FFFT))
    L = dot("q,qij->ij", fa, lowV) + lowa.T @ G + h * dot("q,pj,qpi->ij", fa, G, m2)
    L += dot("qiqj->ij", lowered(FTJ.transpose(1, 0, 2)))
    L += 0.5 * h * dot("qpi,qpj->ij", m2, FFTJ)
    L += h * (lowlow.T @ G + 0.5 * dot("qp,qipj->ij", S, lowered(lowV.transpose(1, 0, 2))))
    L += 0.5 * h * h * dot("qp,rj,qpri->ij", S, G, m3)
    L *= h * e[:, None]
    # 2 B(C, C) B^T
    W = lowered(FC.T).transpose(2, 0, 1)  # [q, p, j] D_p (F C)_q
    both = dot("qjqi->ij", lowered(dot("qp,pij->jqi", S, lowC)))
    B = both + dot("qpj,pqi->ij", W, W)
    mixed = h * dot("prj,qp,rqi->ij", m2, S, W)
    B += mixed + mixed.T + 0.5 * h * h * dot("qpi,qpj->ij", dot("rsi,qr,ps->qpi", m2, S, S), m2)
    B *= h * h * np.outer(e, e)
    carried_D = (e[:, None] * (x.D + h * m1.T @ FD)).T
    FDJ = e * (FD + h * FDF @ m1)
    second = e[:, None] * (carried_D + h * m1.T @ FDJ) + L + L.T + B
    second += noise.applied(a) + dot("q,qij->ij", fa, linear) + noise.quadratic(FC, S)

    # T: every term is a product of one function with a pair, at the three positions
    Y = FT + 0.5 * h * (dot("pj,qpk->qjk", m1, FFT) + dot("pk,qpj->qjk", m1, FFT))
    Y += h * h / 3 * dot("pj,rk,qpr->qjk", m1, m1, FFFT)
    H = h * e[:, None] * (lowV + 0.5 * h * dot("qpi,pk->qik", m2, G))
    pairs = linear + H + H.transpose(0, 2, 1)
    free = V - (before.second[:m] - np.outer(before.mean[:m], before.mean[:m])) * e
    third = _third(
        x.T, e, h * e * m1, np.outer(e, e) * Y, G, pairs,
        basis.products.start, basis.products.result, after.coefficient, before.coefficient, noise.coefficient,
        free, after.mean, after.second, before.mean, before.second,
    )  # fmt: skip
    return Moments(mean1, covariance, third, second, mean2)


class _Noise:
    """Covariance of the next layer's means given this layer, times n: A0 + A1 x + A2(x, x) (eq. 10.2).

    It is the mean over neurons of exp(h Q D) (u_j u_k) - (exp(h Q D) u_j) (exp(h Q D) u_k), with the product u_j u_k of
    the next layer's functions.
    """

    def __init__(self, basis: Basis, before: At, after: At, carried: np.ndarray, h: float) -> None:
        self.basis, self.before, self.after, self.carried, self.h = basis, before, after, carried, h
        m = self.size = basis.size
        self.factors = np.outer(carried[:m], carried[:m])
        self.constant = after.second[:m] - self.factors * before.second[:m]
        starts = basis.products.start
        first, second = np.triu_indices(m)
        each = np.repeat(carried[first] * carried[second], np.diff(starts))
        self.coefficient = after.coefficient * carried[basis.products.result] - before.coefficient * each
        self.low, self.where = basis.factor[:, :m], basis.index[:, :m]
        table = np.empty((m + 1, m + 1))
        table[:m, :m], table[m, :m], table[:m, m], table[m, m] = before.second[:m], before.mean[:m], before.mean[:m], 1
        self.table = table

    def applied(self, x: np.ndarray) -> np.ndarray:
        """(M, M) the terms in x that come without the deviation of Q."""
        found: np.ndarray = self.basis.products.applied(self.coefficient, self._padded(x))
        return found

    def linear(self) -> np.ndarray:
        """(P, M, M) A1 in the deviation of Q_q."""
        means = self.basis.lowered_means(self.before.mean)
        return self._change(means, np.broadcast_to(self.table, (len(means), *self.table.shape)))

    def quadratic(self, FC: np.ndarray, S: np.ndarray) -> np.ndarray:
        """(M, M) A2:C, from F C (P, M) and F C F^T (P, P)."""
        h, table = self.h, self.table
        values = self._padded(FC)
        tables = np.zeros((len(FC), *table.shape))
        tables[:, :-1, :-1] = self.basis.products.applied(self.before.coefficient, values)
        tables[:, -1, :-1] = tables[:, :-1, -1] = FC
        lowered = np.einsum("qqr->qr", self.basis.lowered_means(values))
        found: np.ndarray = self._change(lowered, tables).sum(0)
        twice = np.einsum("qp,qpr->r", S, self.basis.lowered_means(self.basis.lowered_means(self.before.mean)))
        found += 0.5 * h * h * self.basis.products.applied(self.after.coefficient, self.carried * twice)
        # sum_qp S_qp [D_q D_p u_j u_k / 2 + D_q u_j D_p u_k + u_j D_q D_p u_k / 2]
        one = self.low[:, :, None] * table[self.where]  # [q, j, (M + 1)] D_q u_j u_.
        both = np.einsum("qp,qjpk->jk", S, self.low[None, None] * one[:, :, self.where])
        lower = np.zeros((len(FC), self.size + 1, self.size + 1))
        lower[:, :-1] = one
        again = np.einsum("qp,qj,pqjk->jk", S, self.low, lower[:, self.where][..., :-1])
        found -= h * h * self.factors * (both + 0.5 * (again + again.T))
        return found

    def _change(self, lowered: np.ndarray, tables: np.ndarray) -> np.ndarray:
        """(P, M, M) h (D_q of the product - products of D_q), for D_q values (P, E) and products (P, M + 1, M + 1)."""
        whole = self.basis.products.applied(self.after.coefficient, self.carried * lowered)
        pairs = np.arange(len(tables))[:, None]
        parts = self.low[:, :, None] * tables[pairs, self.where][..., :-1]
        found: np.ndarray = self.h * (whole - self.factors * (parts + parts.transpose(0, 2, 1)))
        return found

    def _padded(self, x: np.ndarray) -> np.ndarray:
        """(..., E) deviations x (..., M) of the functions that are followed; the others have none."""
        return np.concatenate([x, np.zeros((*x.shape[:-1], len(self.carried) - self.size))], axis=-1)


@compiled(nogil=True, error_model="numpy", fastmath=True)
def _third(  # type: ignore[no-untyped-def]
    T, e, one, rest, alone, pairs, start, result, after, before, noise, free, mean1, second1, mean0, second0
):
    """(M, M, M) third cumulants one layer deeper: e e e T, products of single functions (P, M) with pairs (P, M, M) at
    three positions, the noise of pairs with each function, and what independent neurons add.

    For each product, ``after`` and ``before`` are its coefficients at the next and at this layer, and ``noise`` those
    of the noise; ``free`` (M, M) is C J^T less its value for independent neurons.
    """
    m, P = len(e), len(one)
    found = np.empty_like(T)
    row = np.empty((m, m), np.int64)
    p = 0
    for i in range(m):
        for j in range(i, m):
            row[i, j] = row[j, i] = p
            p += 1
    for i in range(m):
        for j in range(i, m):
            ij, ee = row[i, j], e[i] * e[j]
            mean_ij1, mean_ij0 = mean1[i] * mean1[j], mean0[i] * mean0[j]
            for k in range(j, m):
                value = ee * e[k] * T[i, j, k]
                for q in range(P):
                    value += one[q, i] * rest[q, j, k] + one[q, j] * rest[q, i, k] + one[q, k] * rest[q, i, j]
                    value += alone[q, i] * pairs[q, j, k] + alone[q, j] * pairs[q, i, k] + alone[q, k] * pairs[q, i, j]
                after_ijk = before_ijk = 0.0
                for s in range(start[ij], start[ij + 1]):
                    r = result[s]
                    after_ijk += after[s] * second1[r, k]
                    before_ijk += before[s] * second0[r, k]
                    if r < m:
                        value += noise[s] * free[r, k]
                jk = row[j, k]
                for s in range(start[jk], start[jk + 1]):
                    if result[s] >= m:
                        break
                    value += noise[s] * free[result[s], i]
                ik = row[i, k]
                for s in range(start[ik], start[ik + 1]):
                    if result[s] >= m:
                        break
                    value += noise[s] * free[result[s], j]
                after_ijk -= mean1[i] * second1[j, k] + mean1[j] * second1[i, k] + mean1[k] * second1[i, j]
                before_ijk -= mean0[i] * second0[j, k] + mean0[j] * second0[i, k] + mean0[k] * second0[i, j]
                after_ijk += 2 * mean_ij1 * mean1[k]
                before_ijk += 2 * mean_ij0 * mean0[k]
                value += after_ijk - ee * e[k] * before_ijk
                found[i, j, k] = found[i, k, j] = found[j, i, k] = value
                found[j, k, i] = found[k, i, j] = found[k, j, i] = value
    return found
