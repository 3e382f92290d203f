"""What the drift of one layer makes of the moments of the deviations, exact in epsilon.

With y_i = x(E u_i), the deviations after the mean part E = exp(h sum_q Q0_q D_q) of a layer, and g = F x, the
deviation of Q, the mean of the next layer's deviations given this layer is

    x'_i = y_i + h g_q (m1_qi + (D_q y)_i) + h^2/2 g_q g_r (m2_qri + (D_q D_r y)_i) + ...,

where m1, m2, ... are the means at infinite width of D_q u, D_q D_r u, ... after the layer (eq. 10.2). The laws of total
cumulance then give the moments one layer deeper (eq. 10.3), to which the noise of the layer adds its own. Equation
numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of M deviations: a, b (M,), C, D (M, M) and T (M, M, M).

    E x = a/n + b/n^2,   Cov x = C/n + D/n^2,   third cumulants of x = T/n^2.
    """

    a: np.ndarray
    C: np.ndarray
    T: np.ndarray
    D: np.ndarray
    b: np.ndarray


@dataclass(frozen=True, eq=False)
class Joint:
    """The same moments of y (M,) and g (P,) together.

    Attributes:
        a, b, C, D: of y alone, as in ``Moments``.
        fa, fb: (P,) a and b of g.
        FC, FD: (P, M) C and D of g with y.
        FCF, FDF: (P, P) of g alone.
        FT: (P, M, M) T of g, y and y; FFT: (P, P, M) of g, g and y; FFFT: (P, P, P) of g alone.
    """

    a: np.ndarray
    fa: np.ndarray
    C: np.ndarray
    FC: np.ndarray
    FCF: np.ndarray
    FT: np.ndarray
    FFT: np.ndarray
    FFFT: np.ndarray
    D: np.ndarray
    FD: np.ndarray
    FDF: np.ndarray
    b: np.ndarray
    fb: np.ndarray


class Drift:
    """Moments of E[x' | x].

    Args:
        lowered: (M, ...) deviations to (P, M, ...), D_q on the first index.
        means: m1 (P, M), m2 (P, P, M), m3 and m4.
        h: epsilon^2.
        joint: the moments before the layer.

    Attributes:
        mean, covariance: (M,) a and (M, M) C.
        correction, second: (M,) b and (M, M) D.
        crossed: (M, M) C J^T, the covariance of y with the next layer's deviations.
        response: (P, M) F C J^T.
        paired: J J J T - T and sum_3 2 B_i(C J_j, C J_k) are sums over three positions of products of one function with
            a pair: h m1 (P, M) with the first array (P, M, M), and F C J^T (P, M) with the second.
    """

    def __init__(
        self, lowered: Callable[[np.ndarray], np.ndarray], means: Sequence[np.ndarray], h: float, joint: Joint
    ) -> None:
        self._lowered, self._h, self._joint = lowered, h, joint
        self._means = m1, _, _, _ = tuple(means)
        C, FC, S = joint.C, joint.FC, joint.FCF
        self.crossed = (C + h * m1.T @ FC).T
        self.response = FC + h * S @ m1
        self._lowered_crossed = lowered(self.crossed)
        self._one = np.einsum("qqi->i", lowered(FC.T).transpose(0, 2, 1))  # sum_q D_q (F C)_q
        self._two = lowered(self._one)
        self.covariance = self.crossed + h * m1.T @ self.response
        self.mean = joint.a + h * (joint.fa @ m1 + self._one + 0.5 * h * np.einsum("qp,qpi->i", S, means[1]))
        self.correction = self._correction()
        self.second = self._second()
        self.paired = self._paired()

    def _correction(self) -> np.ndarray:
        """b' = J b + B:D + B(a, a) + 3 Gamma(C, a) + Gamma:T + 3 Delta(C, C)."""
        h, j, lowered, dot = self._h, self._joint, self._lowered, np.einsum
        m1, m2, m3, m4 = self._means
        fa, S = j.fa, j.FCF
        lowered_a = lowered(j.a)
        found = j.b + h * (j.fb @ m1 + dot("qqi->i", lowered(j.FD.T).transpose(0, 2, 1)) + fa @ lowered_a)
        found += 0.5 * h * h * (dot("qp,qpi->i", j.FDF, m2) + dot("q,p,qpi->i", fa, fa, m2))
        found += h * h * (fa @ self._two + 0.5 * dot("qp,qpi->i", S, lowered(lowered_a.T).transpose(0, 2, 1)))
        found += 0.5 * h**3 * dot("qp,r,qpri->i", S, fa, m3)
        twice = lowered(lowered(j.FFT.transpose(2, 0, 1)).transpose(1, 0, 2, 3))
        found += 0.5 * h * h * dot("qipqp->i", twice) + h**3 / 6 * dot("qpr,qpri->i", j.FFFT, m3)
        found += 0.5 * h**3 * dot("qp,qpi->i", S, lowered(self._two.T).transpose(0, 2, 1))
        found += h**4 / 8 * dot("qp,rs,qprsi->i", S, S, m4)
        result: np.ndarray = found
        return result

    def _second(self) -> np.ndarray:
        """D' = J D J^T + sym{[2 B(a, C) + B:T + 3 Gamma(C, C)] J^T} + 2 B(C, C) B^T."""
        h, j, lowered, dot = self._h, self._joint, self._lowered, np.einsum
        m1, m2, m3, _ = self._means
        fa, S, G, lowV = j.fa, j.FCF, self.response, self._lowered_crossed
        FTJ = j.FT + h * dot("pj,qpr->qrj", m1, j.FFT)
        FFTJ = j.FFT + h * dot("rj,qpr->qpj", m1, j.FFFT)
        half = dot("q,qij->ij", fa, lowV) + lowered(j.a).T @ G + h * dot("q,pj,qpi->ij", fa, G, m2)
        half += dot("qiqj->ij", lowered(FTJ.transpose(1, 0, 2)))
        half += 0.5 * h * dot("qpi,qpj->ij", m2, FFTJ)
        half += h * (self._two.T @ G + 0.5 * dot("qp,qipj->ij", S, lowered(lowV.transpose(1, 0, 2))))
        half += 0.5 * h * h * dot("qp,rj,qpri->ij", S, G, m3)
        W = lowered(j.FC.T).transpose(2, 0, 1)  # [q, p, j] D_p (F C)_q
        both = dot("qjqi->ij", lowered(dot("qp,pij->jqi", S, lowered(j.C)))) + dot("qpj,pqi->ij", W, W)
        mixed = h * dot("prj,qp,rqi->ij", m2, S, W)
        both += mixed + mixed.T + 0.5 * h * h * dot("qpi,qpj->ij", dot("rsi,qr,ps->qpi", m2, S, S), m2)
        kept = (j.D + h * m1.T @ j.FD).T + h * m1.T @ (j.FD + h * j.FDF @ m1)
        found: np.ndarray = kept + h * (half + half.T) + h * h * both
        return found

    def _paired(self) -> tuple[np.ndarray, np.ndarray]:
        h, j, dot = self._h, self._joint, np.einsum
        m1, m2 = self._means[:2]
        Y = j.FT + 0.5 * h * (dot("pj,qpk->qjk", m1, j.FFT) + dot("pk,qpj->qjk", m1, j.FFT))
        Y += h * h / 3 * dot("pj,rk,qpr->qjk", m1, m1, j.FFFT)
        H = h * (self._lowered_crossed + 0.5 * h * dot("qpi,pk->qik", m2, self.response))
        return Y, H + H.transpose(0, 2, 1)
