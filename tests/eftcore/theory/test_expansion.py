"""One layer of the system-size expansion beside its definition, with every tensor written out.

The mean and the covariance of the next layer, given this one, are functions of the deviations x. Here they are written
as such, with matrix exponentials; automatic differentiation gives their tensors, and the laws of total cumulance are
sums over these. Nothing is shared with ``advance`` but the functions of a basis.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import jacfwd

import eftcore as eft
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.theory.next_order.basis import At, Basis
from eftcore.theory.next_order.expansion import Moments, advance
from eftcore.theory.next_order.lattice_waves import LatticeWaves
from eftcore.theory.next_order.wick_powers import WickPowers

H = 0.4
"""A large step, so that every order in it counts."""


class Written:
    """The mean and the covariance of the next layer as functions of the deviations, and their tensors."""

    def __init__(self, basis: Basis, before: At, after: At, carried: np.ndarray) -> None:
        self.m, total = basis.size, basis.factor.shape[1]
        generators = np.zeros((len(basis.factor), total, total))
        for q, (factor, index) in enumerate(zip(basis.factor, basis.index, strict=True)):
            generators[q, np.arange(total), index] = factor
        self.generators, self.carried = torch.tensor(generators), torch.tensor(carried)
        self.mean, self.response = torch.tensor(before.mean), torch.tensor(before.response)
        self.after_mean = torch.tensor(after.mean)
        self.old, self.new = (self._table(basis, at.coefficient) for at in (before, after))

    def _table(self, basis: Basis, coefficient: np.ndarray) -> torch.Tensor:
        """(M + 1, M + 1, E) coefficients of the products of two functions, the constant among them."""
        m, total = self.m, basis.factor.shape[1]
        table = np.zeros((m + 1, m + 1, total))
        pairs = [(i, j) for i in range(m) for j in range(i, m)]
        for p, (i, j) in enumerate(pairs):
            for s in range(basis.products.start[p], basis.products.start[p + 1]):
                table[i, j, basis.products.result[s]] += coefficient[s]
            table[j, i] = table[i, j]
        for i in range(m + 1):
            table[i, m, i] = table[m, i, i] = 1.0
        return torch.tensor(table)

    def _values(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean + torch.cat([x, torch.zeros(len(self.mean) - self.m, dtype=x.dtype)])

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        """(E, E) exp(h g.D)."""
        g = self.response @ x
        return torch.linalg.matrix_exp(H * torch.einsum("q,qrs->rs", g, self.generators))

    def drift(self, x: torch.Tensor) -> torch.Tensor:
        """(M,) mean of the next layer's deviations."""
        return (self.carried * (self._turned(x) @ self._values(x)) - self.after_mean)[: self.m]

    def noise(self, x: torch.Tensor) -> torch.Tensor:
        """(M, M) covariance of the next layer's means times n."""
        turned, y, m = self._turned(x), self._values(x), self.m
        whole = self.new[:m, :m] @ (self.carried * (turned @ y))
        own = self.carried[:m, None] * turned[:m, : m + 1]
        return whole - own @ (self.old @ y) @ own.T

    def noise_functions(self) -> torch.Tensor:
        """(M, M, E) the functions whose means are the covariance at x = 0."""
        m, e = self.m, self.carried[: self.m]
        return self.new[:m, :m] * self.carried - self.old[:m, :m] * torch.outer(e, e)[..., None]


def third_cumulants(table: torch.Tensor, mean: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M, M, M) of independent neurons."""
    m = second.shape[1]
    c, s = mean[:m], second[:m]
    raw = np.einsum("ijr,rk->ijk", table[:m, :m].numpy(), second)
    mixed = np.einsum("i,jk->ijk", c, s)
    return raw - mixed - mixed.transpose(1, 0, 2) - mixed.transpose(1, 2, 0) + 2 * np.einsum("i,j,k->ijk", c, c, c)


def over_positions(x: np.ndarray) -> np.ndarray:
    """Sum over the three positions of the last index of x, which is symmetric in the first two."""
    return x + x.transpose(0, 2, 1) + x.transpose(2, 1, 0)


def by_definition(written: Written, basis: Basis, before: At, after: At, carried: np.ndarray, x: Moments) -> Moments:
    zero, m = torch.zeros(basis.size, dtype=torch.float64), basis.size
    d1 = jacfwd(written.drift)
    d2 = jacfwd(d1)
    d3 = jacfwd(d2)
    J, B, gamma, delta = (
        derivative(zero).numpy() / scale for derivative, scale in ((d1, 1), (d2, 2), (d3, 6), (jacfwd(d3), 24))
    )
    n1 = jacfwd(written.noise)
    A0, A1, A2 = written.noise(zero).numpy(), n1(zero).numpy(), jacfwd(n1)(zero).numpy() / 2
    a, C, T, D, b = x.a, x.C, x.T, x.D, x.b
    dot = np.einsum
    mean1 = J @ a + dot("ikl,kl->i", B, C)
    covariance = J @ C @ J.T + A0
    following = J @ b + dot("ikl,kl->i", B, D + np.outer(a, a)) + 3 * dot("iklm,kl,m->i", gamma, C, a)
    following += dot("iklm,klm->i", gamma, T) + 3 * dot("iklmn,kl,mn->i", delta, C, C)
    V = C @ J.T
    L = 2 * dot("ikl,k,lj->ij", B, a, V) + dot("ikl,klm,jm->ij", B, T, J) + 3 * dot("iklm,kl,mj->ij", gamma, C, V)
    second = J @ D @ J.T + L + L.T + 2 * dot("ikl,km,ln,jmn->ij", B, C, C, B)
    second += A1 @ a + dot("ijkl,kl->ij", A2, C)
    third = dot("il,jm,kn,lmn->ijk", J, J, J, T) + over_positions(2 * dot("klm,li,mj->ijk", B, V, V))
    third += over_positions(A1 @ V)
    e = carried[:m]
    scaled = dot("i,j,k->ijk", e, e, e)
    third += third_cumulants(written.new, after.mean, after.second)
    third -= scaled * third_cumulants(written.old, before.mean, before.second)
    single = before.second - np.outer(before.mean, before.mean[:m])
    # further functions have the covariance of independent neurons here, and no deviation above: see section 10
    single[m:] = 0.0
    functions = written.noise_functions().numpy()
    third -= over_positions(dot("ijr,rk->ijk", functions, single) * e)
    return Moments(mean1, covariance, third, second, following)


def bases() -> dict[str, tuple[Basis, np.ndarray]]:
    def powers(activation: str, highest: int, variance: list[float]) -> WickPowers:
        engine = MehlerExpectations(eft.get_activation(activation), 5, 64, highest)
        return WickPowers(engine, 1.5, highest, np.array(variance))

    pair = np.array([[1.0, 0.4], [0.4, 1.5]])
    return {
        "powers, one input": (powers("gelu", 3, [1.0]), np.array([[1.0]])),
        "even powers, one input": (powers("tanh", 8, [1.0]), np.array([[1.0]])),
        "even powers, two inputs": (powers("tanh", 2, [1.0, 1.5]), pair),
        "waves, one input": (LatticeWaves(eft.get_activation("tanh"), 1.5, np.array([2.0]), 4), np.array([[1.0]])),
        "waves, two inputs": (LatticeWaves(eft.get_activation("erf"), 1.5, np.array([2.0, 2.0]), 1), pair),
    }


def symmetric(rng: np.random.Generator, m: int) -> Moments:
    """Moments without any structure."""
    C, D = (x + x.T for x in rng.normal(size=(2, m, m)))
    T = rng.normal(size=(m, m, m))
    T = sum(T.transpose(order) for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
    return Moments(rng.normal(size=m), C, T, D, rng.normal(size=m))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # within torch itself
@pytest.mark.parametrize("name", list(bases()))
def test_a_layer_is_that_of_the_tensors_written_out(name: str) -> None:
    basis, kernel = bases()[name]
    rng = np.random.default_rng(0)
    root = rng.normal(size=kernel.shape)
    deeper = kernel + H * (root @ root.T + 0.1 * np.eye(len(kernel)))
    before, after, carried = basis.at(kernel), basis.at(deeper), basis.carried(kernel, deeper)
    x = symmetric(rng, basis.size)
    expected = by_definition(Written(basis, before, after, carried), basis, before, after, carried, x)
    found = advance(basis, before, after, carried, H, x)
    for part in ("a", "C", "T", "D", "b"):
        one, two = getattr(found, part), getattr(expected, part)
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-10 * np.abs(two).max(), err_msg=part)
