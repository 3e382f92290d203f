"""Families of functions whose means over the neurons of a layer follow a closed stochastic system at every width.

For functions u_i of one neuron's N preactivations, let m_i = (1/n) sum over neurons of u_i. In the limit of continuous
depth each neuron follows dphi = sqrt(Q) dB with the common Q = C_b + C_W (1/n) sum sigma sigma^T, so that (eq. 10.1)

    dm_i = sum_q Q_q (1/n) sum D_q u_i dt + dM_i,   n d<M_i, M_j> = sum_q Q_q (1/n) sum N^q(u_i, u_j) dt,

with q over pairs of inputs, D_aa u = (1/2) d_a^2 u, D_ab u = d_a d_b u, and N^aa(u, v) = d_a u d_a v,
N^ab(u, v) = d_a u d_b v + d_b u d_a v. Where D_q u and N^q(u, v) are combinations of the same functions, and so are
sigma sigma^T and the kernel, drift and noise are quadratic in the deviations x of m from its value at infinite width:
the system-size expansion of ``expansion`` is then exact in each order. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Functions(ABC):
    """A family of M functions at one mean kernel K0, for P pairs of inputs.

    Attributes:
        increment: (P,) Q0 = C_b + C_W E2(K0).
        response: (P, M) the deviation of Q is ``response @ x``.
        kernel: (P, M) the deviation of the kernel G is ``kernel @ x``.
        mean_drift: (P, M) D_q u_i at infinite width.
        mean_noise: (P, M, M) N^q(u_i, u_j) at infinite width.
    """

    increment: np.ndarray
    response: np.ndarray
    kernel: np.ndarray
    mean_drift: np.ndarray
    mean_noise: np.ndarray

    @abstractmethod
    def carried(self, x: np.ndarray) -> np.ndarray:
        """(M, ...) sum_q Q0_q D_q on deviations x (M, ...), less what the family itself moves along with K0."""

    @abstractmethod
    def drift(self, q: int, x: np.ndarray) -> np.ndarray:
        """(M, ...) D_q on deviations x (M, ...)."""

    @abstractmethod
    def noise(self, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(M, M, ...) sum_q weights_q N^q on deviations x (M, ...), for weights (P,)."""

    @abstractmethod
    def covariance(self) -> np.ndarray:
        """(M, M) covariances of the functions for one Gaussian neuron with kernel K0."""

    @abstractmethod
    def third_cumulant(self) -> np.ndarray:
        """(M, M, M) third cumulants of the functions for one Gaussian neuron with kernel K0."""


class Family(ABC):
    """A family of functions along a path of mean kernels."""

    @property
    @abstractmethod
    def size(self) -> int:
        """M, the number of functions."""

    @abstractmethod
    def at(self, kernel: np.ndarray) -> Functions:
        """The functions at the mean kernel K0 (N, N)."""
