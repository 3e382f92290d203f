"""The system-size expansion through one layer with Wick powers: moments of the deviations x in powers of 1/n.

Given a layer, the covariance of the next layer's deviations is (A0 + A1 x + A2(x, x)) / n (eq. 10.2) and their third
cumulant is that of independent neurons over n^2; ``drift`` has what their mean does. Together they are eq. 10.3.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import numpy as np

from eftcore.compiled import compiled
from eftcore.theory.next_order.drift import Drift, Joint, Moments
from eftcore.theory.next_order.wick_powers import At, WickPowers


def through(basis: WickPowers, path: np.ndarray, h: float, layers: np.ndarray) -> dict[str, np.ndarray]:
    """V4, D, K2 and T of the kernel at some layers, in increasing order, for a mean path (L + 1, N, N)."""
    g, wanted = basis.kernel, set(layers.tolist())
    at = basis.at(path[0])
    x = initial(basis, at)
    rows = []
    for layer in range(int(layers[-1]) + 1):
        if layer:
            before, at = at, basis.at(path[layer])
            x = advance(basis, before, at, h, x)
        if layer in wanted:
            third = np.einsum("pi,qj,rk,ijk->pqr", g, g, g, x.T, optimize=True)
            rows.append((g @ x.C @ g.T, g @ x.D @ g.T, g @ x.b, third))
    return dict(zip(("V4", "D", "K2", "T"), map(np.array, zip(*rows, strict=True)), strict=True))


def initial(basis: WickPowers, at: At) -> Moments:
    """The moments at layer 0, whose neurons are independent and Gaussian: there are no corrections in 1/n."""
    m = basis.size
    none, kept, no_pairs = np.zeros((m, m, m)), np.zeros((1, m)), np.zeros((1, m, m))
    third = _third(
        none, kept, no_pairs, kept, no_pairs, basis.products.start, basis.products.result,
        at.coefficient, np.zeros_like(at.coefficient), np.zeros((m, m)), at.second, at.second,
    )  # fmt: skip
    return Moments(np.zeros(m), at.second[:m], third, np.zeros((m, m)), np.zeros(m))


def advance(basis: WickPowers, before: At, after: At, h: float, x: Moments) -> Moments:
    """The moments one layer deeper (eq. 10.3).

    Args:
        before, after: the functions at K0 of this layer and of the next.
        h: epsilon^2.
        x: the moments at this layer.
    """
    m, F = basis.size, before.response
    means = []
    values = before.mean
    for _ in range(4):
        values = basis.lowered_means(values)
        means.append(values[..., :m])
    joint = _joint(F, x)
    drift = Drift(basis.lowered, means, h, joint)
    noise = _Noise(basis, before, after, h)
    linear = noise.linear()
    second = drift.second + noise.applied(x.a) + np.einsum("q,qij->ij", joint.fa, linear)
    second += noise.quadratic(joint.FC, joint.FCF)
    rest, pairs = drift.paired
    third = _third(
        x.T, h * means[0], rest, drift.response, linear + pairs, basis.products.start, basis.products.result,
        after.coefficient, before.coefficient, drift.crossed - before.second[:m], after.second, before.second,
    )  # fmt: skip
    return Moments(drift.mean, drift.covariance + noise.constant, third, second, drift.correction)


def _joint(F: np.ndarray, x: Moments) -> Joint:
    """The moments of x and of F x together."""
    FC, FD, FT = F @ x.C, F @ x.D, np.tensordot(F, x.T, 1)
    FFT = F @ FT
    return Joint(
        a=x.a, fa=F @ x.a, b=x.b, fb=F @ x.b, C=x.C, FC=FC, FCF=FC @ F.T, D=x.D, FD=FD, FDF=FD @ F.T,
        FT=FT, FFT=FFT, FFFT=FFT @ F.T,
    )  # fmt: skip


class _Noise:
    """Covariance of the next layer's means given this layer, times n: A0 + A1 x + A2(x, x) (eq. 10.2).

    It is the mean over neurons of exp(h Q D) (u_j u_k) - (exp(h Q D) u_j) (exp(h Q D) u_k), with the product u_j u_k of
    the next layer's functions.
    """

    def __init__(self, basis: WickPowers, before: At, after: At, h: float) -> None:
        self.basis, self.before, self.after, self.h = basis, before, after, h
        m = self.size = basis.size
        self.constant = after.second[:m] - before.second[:m]
        self.coefficient = after.coefficient - before.coefficient
        self.low, self.where = basis.factor[:, :m], basis.index[:, :m]
        self.table = np.zeros((m + 1, m + 1))
        self.table[:m, :m], self.table[m, m] = before.second[:m], 1.0

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
        found += 0.5 * h * h * self.basis.products.applied(self.after.coefficient, twice)
        # sum_qp S_qp [D_q D_p u_j u_k / 2 + D_q u_j D_p u_k + u_j D_q D_p u_k / 2]
        one = self.low[:, :, None] * table[self.where]  # [q, j, (M + 1)] D_q u_j u_.
        both = np.einsum("qp,qjpk->jk", S, self.low[None, None] * one[:, :, self.where])
        lower = np.zeros((len(FC), self.size + 1, self.size + 1))
        lower[:, :-1] = one
        again = np.einsum("qp,qj,pqjk->jk", S, self.low, lower[:, self.where][..., :-1])
        found -= h * h * (both + 0.5 * (again + again.T))
        return found

    def _change(self, lowered: np.ndarray, tables: np.ndarray) -> np.ndarray:
        """(P, M, M) h (D_q of the product - products of D_q), for D_q values (P, E) and products (P, M + 1, M + 1)."""
        whole = self.basis.products.applied(self.after.coefficient, lowered)
        pairs = np.arange(len(tables))[:, None]
        parts = self.low[:, :, None] * tables[pairs, self.where][..., :-1]
        found: np.ndarray = self.h * (whole - (parts + parts.transpose(0, 2, 1)))
        return found

    def _padded(self, x: np.ndarray) -> np.ndarray:
        """(..., E) deviations x (..., M) of the functions that are followed; the others have none."""
        return np.concatenate([x, np.zeros((*x.shape[:-1], len(self.before.mean) - self.size))], axis=-1)


@compiled(nogil=True, error_model="numpy", fastmath=True)
def _third(  # type: ignore[no-untyped-def]
    T, one, rest, alone, pairs, start, result, after, before, free, second1, second0
):
    """(M, M, M) third cumulants one layer deeper: T, products of single functions (P, M) with pairs (P, M, M) at three
    positions, the noise of pairs with each function, and what independent neurons add.

    For each product, ``after`` and ``before`` are its coefficients at the next and at this layer; ``free`` (M, M) is
    C J^T less its value for independent neurons.
    """
    m, P = len(T), len(one)
    found = np.empty_like(T)
    row = np.empty((m, m), np.int64)
    p = 0
    for i in range(m):
        for j in range(i, m):
            row[i, j] = row[j, i] = p
            p += 1
    noise = after - before
    for i in range(m):
        for j in range(i, m):
            ij = row[i, j]
            for k in range(j, m):
                value = T[i, j, k]
                for q in range(P):
                    value += one[q, i] * rest[q, j, k] + one[q, j] * rest[q, i, k] + one[q, k] * rest[q, i, j]
                    value += alone[q, i] * pairs[q, j, k] + alone[q, j] * pairs[q, i, k] + alone[q, k] * pairs[q, i, j]
                for s in range(start[ij], start[ij + 1]):
                    r = result[s]
                    value += after[s] * second1[r, k] - before[s] * second0[r, k]
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
                found[i, j, k] = found[i, k, j] = found[j, i, k] = value
                found[j, k, i] = found[k, i, j] = found[k, j, i] = value
    return found
