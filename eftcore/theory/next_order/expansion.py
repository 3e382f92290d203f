"""The system-size expansion through one layer with Wick powers: moments of the deviations x in powers of 1/n.

Given a layer, the covariance of the next layer's deviations is (A0 + A1 x + A2(x, x)) / n (eq. 10.2) and their third
cumulant is that of independent neurons over n^2; ``drift`` has what their mean does. Together they are eq. 10.3.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eftcore.theory.next_order.curvature import Curvature
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
    return Moments(np.zeros(m), at.second[:m], at.third, np.zeros((m, m)), np.zeros(m))


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
    if before.curvature is not None:
        joint = _bent(joint, F, x, before.curvature)
    drift = Drift(basis.lowered, means, h, joint)
    noise = _Noise(basis, before, after, h)
    linear = noise.linear()
    second = drift.second + noise.applied(x.a) + np.einsum("q,qij->ij", joint.fa, linear)
    second += noise.quadratic(joint.FC, joint.FCF)
    rest, pairs = drift.paired
    # each of three functions beside the pair of the other two, which comes first
    beside = np.tensordot(rest, h * means[0], (0, 0)) + np.tensordot(linear + pairs, drift.response, (0, 0))
    beside += noise.applied(drift.crossed - before.second[:m])
    third = x.T + (after.third - before.third)
    third += beside
    third += beside.transpose(0, 2, 1)
    third += beside.transpose(2, 0, 1)
    return Moments(drift.mean, drift.covariance + noise.constant, third, second, drift.correction)


def _joint(F: np.ndarray, x: Moments) -> Joint:
    """The moments of x and of F x together."""
    FC, FD, FT = F @ x.C, F @ x.D, np.tensordot(F, x.T, 1)
    FFT = F @ FT
    return Joint(
        a=x.a, fa=F @ x.a, b=x.b, fb=F @ x.b, C=x.C, FC=FC, FCF=FC @ F.T, D=x.D, FD=FD, FDF=FD @ F.T,
        FT=FT, FFT=FFT, FFFT=FFT @ F.T,
    )  # fmt: skip


def _bent(joint: Joint, F: np.ndarray, x: Moments, curvature: Curvature) -> Joint:
    """The moments of x and g, where g is F x and terms up to fourth order in x (eq. 11.20)."""
    dot, C = np.einsum, x.C
    second, third = curvature.second(), curvature.third(C)
    around = C @ second @ C
    more = 0.5 * dot("qij,ijk->qk", second, x.T) + (second @ x.a) @ C + 0.5 * third @ C
    crossed = more @ F.T
    turned = second @ C
    fa = joint.fa + 0.5 * dot("qij,ij->q", second, C)
    fb = joint.fb + 0.5 * dot("qij,ij->q", second, x.D + np.outer(x.a, x.a)) + curvature.third_of(x.T) / 6
    fb = fb + 0.5 * third @ x.a + curvature.fourth(C) / 8
    pairs = dot("pi,qik->qpk", F, around)
    three = dot("qpk,rk->qpr", pairs, F)
    return replace(
        joint,
        fa=fa,
        fb=fb,
        FD=joint.FD + more,
        FDF=joint.FDF + crossed + crossed.T + 0.5 * dot("pij,qji->pq", turned, turned),
        FT=joint.FT + around,
        FFT=joint.FFT + pairs + pairs.transpose(1, 0, 2),
        FFFT=joint.FFFT + three + three.transpose(1, 0, 2) + three.transpose(1, 2, 0),
    )


class _Noise:
    """Covariance of the next layer's means given this layer, times n: A0 + A1 x + A2(x, x) (eq. 10.2).

    It is the mean over neurons of exp(h Q D) (u_j u_k) - (exp(h Q D) u_j) (exp(h Q D) u_k), with the product u_j u_k of
    the next layer's functions.
    """

    def __init__(self, basis: WickPowers, before: At, after: At, h: float) -> None:
        self.basis, self.before, self.after, self.h = basis, before, after, h
        m = self.size = basis.size
        self.constant = after.second[:m] - before.second[:m]
        self.products = after.products.change(before.products)
        self.low, self.where = basis.factor[:, :m], basis.index[:, :m]
        self.table = np.zeros((m + 1, m + 1))
        self.table[:m, :m], self.table[m, m] = before.second[:m], 1.0

    def applied(self, x: np.ndarray) -> np.ndarray:
        """(M, M, ...) the terms in x (M, ...) that come without the deviation of Q."""
        return self.products.applied(self._padded(x))

    def linear(self) -> np.ndarray:
        """(P, M, M) A1 in the deviation of Q_q."""
        means = self.basis.lowered_means(self.before.mean)
        return self._change(means, np.broadcast_to(self.table, (len(means), *self.table.shape)))

    def quadratic(self, FC: np.ndarray, S: np.ndarray) -> np.ndarray:
        """(M, M) A2:C, from F C (P, M) and F C F^T (P, P)."""
        h, table = self.h, self.table
        values = self._padded(FC.T)
        tables = np.zeros((len(FC), *table.shape))
        tables[:, :-1, :-1] = np.moveaxis(self.before.products.applied(values), -1, 0)
        tables[:, -1, :-1] = tables[:, :-1, -1] = FC
        lowered = np.einsum("qqr->qr", self.basis.lowered_means(values.T))
        found: np.ndarray = self._change(lowered, tables).sum(0)
        twice = np.einsum("qp,qpr->r", S, self.basis.lowered_means(self.basis.lowered_means(self.before.mean)))
        found += 0.5 * h * h * self.after.products.applied(twice)
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
        whole = np.moveaxis(self.after.products.applied(lowered.T), -1, 0)
        pairs = np.arange(len(tables))[:, None]
        parts = self.low[:, :, None] * tables[pairs, self.where][..., :-1]
        found: np.ndarray = self.h * (whole - (parts + parts.transpose(0, 2, 1)))
        return found

    def _padded(self, x: np.ndarray) -> np.ndarray:
        """(E, ...) deviations x (M, ...) of the functions that are followed; the others have none."""
        return np.concatenate([x, np.zeros((len(self.before.mean) - self.size, *x.shape[1:]))])
