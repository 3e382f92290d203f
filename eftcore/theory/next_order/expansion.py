"""The system-size expansion: moments of the deviations x in powers of 1/n, continuous depth.

With drift x' = L x + B(x, x) and noise covariance (A0 + A1 x + A2(x, x)) / n (eq. 10.2),

    E x = a/n + b/n^2,   Cov x = C/n + D/n^2,   third cumulants of x = T/n^2.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eftcore.theory.next_order.functions import Functions


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of M deviations: a, b (M,), C, D (M, M) and T (M, M, M)."""

    a: np.ndarray
    C: np.ndarray
    T: np.ndarray
    D: np.ndarray
    b: np.ndarray

    def packed(self) -> np.ndarray:
        """All numbers in one vector."""
        return np.concatenate([part.ravel() for part in (self.a, self.C, self.T, self.D, self.b)])

    @classmethod
    def unpacked(cls, y: np.ndarray, m: int) -> Moments:
        """The inverse of ``packed`` for M = m."""
        a, c, t, d, b = np.split(y, np.cumsum([m, m * m, m**3, m * m]))
        return cls(a, c.reshape(m, m), t.reshape(m, m, m), d.reshape(m, m), b)


def initial(at: Functions) -> Moments:
    """The moments at layer 0, whose neurons are independent and Gaussian: there are no corrections in 1/n."""
    covariance = at.covariance()
    m = len(covariance)
    return Moments(np.zeros(m), covariance, at.third_cumulant(), np.zeros((m, m)), np.zeros(m))


def rates(at: Functions, x: Moments) -> Moments:
    """d/dt of the moments (eq. 10.3)."""
    f, pairs = at.response, range(len(at.increment))
    fa, fC, fD = f @ x.a, f @ x.C, f @ x.D
    fT = np.tensordot(f, x.T, 1)

    def linear(v: np.ndarray) -> np.ndarray:
        """L v."""
        found: np.ndarray = at.carried(v) + np.tensordot(at.mean_drift.T, np.tensordot(f, v, 1), 1)
        return found

    dC = [at.drift(q, x.C) for q in pairs]
    Da = [at.drift(q, x.a) for q in pairs]

    a = linear(x.a) + sum(at.drift(q, fC[q]) for q in pairs)
    C = linear(x.C)
    C = C + C.T + np.tensordot(at.increment, at.mean_noise, 1)

    T = linear(x.T)
    for q in pairs:
        mixed = dC[q][:, None, :] * fC[q][None, :, None]
        T += mixed + mixed.transpose(0, 2, 1)
    T = _over_positions(T)
    noise = at.noise(at.increment, x.C) + np.tensordot(at.mean_noise, fC, (0, 0))
    T += noise + noise.transpose(0, 2, 1) + noise.transpose(2, 0, 1)

    D = linear(x.D)
    for q in pairs:
        D += fa[q] * dC[q] + np.outer(Da[q], fC[q]) + at.drift(q, fT[q])
    D = D + D.T + at.noise(at.increment, x.a) + np.tensordot(fa, at.mean_noise, 1)
    for q in pairs:
        D += at.noise(np.eye(len(fa))[q], fC[q])

    b = linear(x.b) + sum(at.drift(q, fD[q]) + fa[q] * Da[q] for q in pairs)
    return Moments(a, C, T, D, b)


def _over_positions(x: np.ndarray) -> np.ndarray:
    """Sum over the three positions of the first index of x (M, M, M), which is symmetric in the other two."""
    total: np.ndarray = x + x.transpose(1, 0, 2) + x.transpose(1, 2, 0)
    return total
