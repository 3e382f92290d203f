"""Functions of one neuron whose means over the neurons of a layer follow a closed stochastic system at every width.

For functions u_i of one neuron's N preactivations, let m_i = (1/n) sum over neurons of u_i. Given a layer, the neurons
of the next are independent, phi' = phi + epsilon N(0, Q) with the common Q = C_b + C_W (1/n) sum sigma sigma^T, so that

    E[u_i(phi') | phi] = exp(h sum_q Q_q D_q) u_i (phi),   h = epsilon^2,

with q over pairs of inputs, D_aa u = (1/2) d_a^2 u and D_ab u = d_a d_b u (eq. 10.1). Where D_q u_i and the products
u_i u_j are combinations of the same functions, and so are sigma sigma^T and the kernel, the means and covariances of
the next layer are functions of the deviations x of m from its value at infinite width alone: ``expansion`` carries
their moments through the layers, exactly in each order of 1/n. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Products:
    """u_i u_j = sum_s coefficient_s u_result_s for i <= j, all pairs (i, j) one after the other, row-major.

    Attributes:
        start: (M (M + 1) / 2 + 1,) where the terms of each pair begin.
        result: (S,) number of the function of each term, in increasing order for each pair.
    """

    start: np.ndarray
    result: np.ndarray

    def applied(self, coefficient: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(..., M, M) values of the products u_i u_j, for values (..., E) of the functions."""
        terms = coefficient * values[..., self.result]
        sums: np.ndarray = np.add.reduceat(terms, self.start[:-1], axis=-1)[..., self.pair_of]
        return sums

    @cached_property
    def pair_of(self) -> np.ndarray:
        """(M, M) position of the pair (i, j) in row-major order of i <= j."""
        size = (int(np.sqrt(8 * len(self.start) - 7)) - 1) // 2
        first, second = np.triu_indices(size)
        table = np.empty((size, size), dtype=np.intp)
        table[first, second] = table[second, first] = np.arange(len(first))
        return table


@dataclass(frozen=True, eq=False)
class At:
    """What the functions are at one mean kernel K0.

    Attributes:
        mean: (E,) of each function under N(0, K0).
        second: (E, M) of u_r u_k under N(0, K0).
        coefficient: (S,) of the terms of the products.
        response: (P, M) the deviation of Q is ``response @ x``.
    """

    mean: np.ndarray
    second: np.ndarray
    coefficient: np.ndarray
    response: np.ndarray


class Basis(ABC):
    """M functions u_i that are followed; further ones, which the products lead to, have a mean but no deviation.

    Function M is the constant 1; the functions after it are the further ones, E functions in all.

    Attributes:
        size: M.
        factor, index: (P, E) D_q u_r = factor[q, r] u_{index[q, r]}.
        products: which functions the products u_i u_j are made of.
        kernel: (P, M) the deviation of the kernel G is ``kernel @ x``.
    """

    size: int
    factor: np.ndarray
    index: np.ndarray
    products: Products
    kernel: np.ndarray

    @abstractmethod
    def at(self, kernel: np.ndarray) -> At:
        """The functions at the mean kernel K0 (N, N)."""

    @abstractmethod
    def carried(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """(E,) by what exp(h sum_q Q0_q D_q) multiplies each function, where K0 goes from ``before`` to ``after``."""

    @abstractmethod
    def left_out(self, kernels: np.ndarray) -> float:
        """Largest share of the variance of sigma_a sigma_b that is not in the functions, at some kernels (R, N, N)."""

    def lowered(self, values: np.ndarray) -> np.ndarray:
        """(P, M, ...) D_q on deviations (M, ...) of the functions that are followed; the constant has none."""
        padded = np.concatenate([values, np.zeros((1, *values.shape[1:]))])
        factor, index = self.factor[:, : self.size], self.index[:, : self.size]
        found: np.ndarray = factor.reshape(*factor.shape, *[1] * (values.ndim - 1)) * padded[index]
        return found

    def lowered_means(self, values: np.ndarray) -> np.ndarray:
        """(..., P, E) D_q on values (..., E) of all functions."""
        found: np.ndarray = self.factor * values[..., self.index]
        return found
