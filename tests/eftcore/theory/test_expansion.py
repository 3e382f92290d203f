"""One layer of the system-size expansion beside its definition, with every tensor written out.

The mean and the covariance of the next layer, given this one, are functions of the deviations x. Here they are written
as such, with matrix exponentials; automatic differentiation gives their tensors, and the laws of total cumulance are
sums over these. Nothing is shared with ``advance`` but the functions of a basis.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch.func import jacfwd

import eftcore as eft
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.theory.next_order.adapted import adapted_functions
from eftcore.theory.next_order.adapted_expansion import along
from eftcore.theory.next_order.drift import Moments
from eftcore.theory.next_order.expansion import advance
from eftcore.theory.next_order.wick_powers import At, Products, WickPowers

H = 0.4
"""A large step, so that every order in it counts."""


class Waves:
    """cos(k . phi) for wave vectors k (M, N) and for those to which their products lead, with sigma = sin."""

    def __init__(self, weight_variance: float, followed: list[tuple[int, int]]) -> None:
        self.size, constant = len(followed), (0, 0)
        first, second = np.triu_indices(self.size)
        own = np.array(followed)
        both = np.stack([own[first] - own[second], own[first] + own[second]], axis=1)
        further = {positive(k) for k in both.reshape(-1, 2).tolist()} - {*followed, constant}
        self.numbers = [*followed, constant, *sorted(further)]
        k = np.array(self.numbers)
        self.factor = -np.stack([0.5 * k[:, 0] ** 2, k[:, 0] * k[:, 1], 0.5 * k[:, 1] ** 2])
        self.index = np.broadcast_to(np.arange(len(k)), self.factor.shape)
        result = np.array([[self.numbers.index(positive(j)) for j in pair] for pair in both.tolist()])
        terms = (np.full(result.size, 0.5), np.sort(result, axis=1).ravel(), np.arange(0, 2 * len(first) + 1, 2))
        self.products = Products(csr_array(terms, shape=(len(first), len(k))))
        # sin x sin y = (cos(x - y) - cos(x + y)) / 2
        self.response = np.zeros((3, self.size))
        for p, (less, more) in enumerate(((None, (2, 0)), ((1, -1), (1, 1)), (None, (0, 2)))):
            self.response[p, followed.index(more)] = -0.5 * weight_variance
            if less:
                self.response[p, followed.index(less)] = 0.5 * weight_variance

    def at(self, kernel: np.ndarray) -> At:
        mean = self.carried(kernel)
        k = np.array(self.numbers)
        sums, differences = (k[:, None] + s * k[None, : self.size] for s in (1, -1))
        second = 0.5 * sum(np.exp(-0.5 * np.einsum("rka,ab,rkb->rk", s, kernel, s)) for s in (sums, differences))
        return At(mean, second, self.products, self.response, self.products.applied(second))

    def carried(self, increment: np.ndarray) -> np.ndarray:
        """By what a Gaussian increment multiplies the mean of each wave."""
        k = np.array(self.numbers)
        return np.exp(-0.5 * np.einsum("ra,ab,rb->r", k, increment, k))


def positive(k: list[int]) -> tuple[int, int]:
    """Of k and -k, which have the same cosine, the one whose first number that is not 0 is positive."""
    first, second = k
    return (first, second) if (first, second) >= (0, 0) else (-first, -second)


class Written:
    """The mean and the covariance of the next layer as functions of the deviations, and their tensors."""

    def __init__(self, basis: WickPowers | Waves, before: At, after: At, carried: np.ndarray) -> None:
        self.m, total = basis.size, basis.factor.shape[1]
        generators = np.zeros((len(basis.factor), total, total))
        for q, (factor, index) in enumerate(zip(basis.factor, basis.index, strict=True)):
            generators[q, np.arange(total), index] = factor
        self.diagonal = not (generators - generators * np.eye(total)).any()
        self.generators, self.carried = torch.tensor(generators), torch.tensor(carried)
        self.mean, self.response = torch.tensor(before.mean), torch.tensor(before.response)
        self.after_mean = torch.tensor(after.mean)
        self.old, self.new = (self._table(basis, at.products.terms) for at in (before, after))

    def _table(self, basis: WickPowers | Waves, terms: csr_array) -> torch.Tensor:
        """(M + 1, M + 1, E) coefficients of the products of two functions, the constant among them."""
        m, total = self.m, basis.factor.shape[1]
        table = np.zeros((m + 1, m + 1, total))
        pairs = [(i, j) for i in range(m) for j in range(i, m)]
        for (i, j), row in zip(pairs, terms.toarray(), strict=True):
            table[i, j] = row
            table[j, i] = table[i, j]
        for i in range(m + 1):
            table[i, m, i] = table[m, i, i] = 1.0
        return torch.tensor(table)

    def _values(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean + torch.cat([x, torch.zeros(len(self.mean) - self.m, dtype=x.dtype)])

    def _turned(self, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """exp(h g.D) on values (E, ...)."""
        exponent = H * torch.einsum("q,qrs->rs", self.response @ x, self.generators)
        if self.diagonal:
            return torch.exp(torch.diagonal(exponent)).reshape(-1, *[1] * (values.ndim - 1)) * values
        return torch.linalg.matrix_exp(exponent) @ values

    def drift(self, x: torch.Tensor) -> torch.Tensor:
        """(M,) mean of the next layer's deviations."""
        return (self.carried * (self._turned(x, self._values(x))) - self.after_mean)[: self.m]

    def noise(self, x: torch.Tensor) -> torch.Tensor:
        """(M, M) covariance of the next layer's means times n."""
        y, m = self._values(x), self.m
        turned = self._turned(x, torch.eye(len(y), dtype=x.dtype))
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


def by_definition(written: Written, before: At, after: At, x: Moments) -> Moments:
    zero, m = torch.zeros(written.m, dtype=torch.float64), written.m
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
    e = written.carried[:m].numpy()
    third += third_cumulants(written.new, after.mean, after.second)
    third -= dot("i,j,k->ijk", e, e, e) * third_cumulants(written.old, before.mean, before.second)
    single = before.second - np.outer(before.mean, before.mean[:m])
    # further functions have the covariance of independent neurons here, and no deviation above: see section 10
    single[m:] = 0.0
    functions = written.noise_functions().numpy()
    third -= over_positions(dot("ijr,rk->ijk", functions, single) * e)
    return Moments(mean1, covariance, third, second, following)


MODEL = eft.ResNet(activation="gelu", weight_variance=1.5, epsilon=0.1, depth=1)
"""A network of the paper's block; of it the weight variance alone matters here."""


def bases() -> dict[str, tuple[WickPowers, np.ndarray]]:
    def powers(activation: str, highest: int, variance: list[float]) -> WickPowers:
        engine = MehlerExpectations(eft.get_activation(activation), 5, 64, highest)
        model = MODEL.model_copy(update={"activation": activation})
        return WickPowers(engine, model, highest, np.array(variance))

    pair = np.array([[1.0, 0.4], [0.4, 1.5]])
    return {
        "powers, one input": (powers("gelu", 3, [1.0]), np.array([[1.0]])),
        "even powers, one input": (powers("tanh", 8, [1.0]), np.array([[1.0]])),
        "even powers, two inputs": (powers("tanh", 2, [1.0, 1.5]), pair),
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
    before, after = basis.at(kernel), basis.at(deeper)
    x = symmetric(rng, basis.size)
    expected = by_definition(Written(basis, before, after, np.ones(len(before.mean))), before, after, x)
    found = advance(basis, before, after, H, x)
    for part in ("a", "C", "T", "D", "b"):
        one, two = getattr(found, part), getattr(expected, part)
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-10 * np.abs(two).max(), err_msg=part)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # within torch itself
def test_layers_with_adapted_functions_are_those_of_the_tensors_written_out() -> None:
    """sigma = sin: sigma sigma is made of four waves, and their products have the mean and the covariances needed."""
    c_w, kernel = 1.5, np.array([[1.0, 0.5], [0.5, 1.4]])
    four = [(2, 0), (1, -1), (1, 1), (0, 2)]
    products = {positive([a + s * c, b + s * d]) for a, b in four for c, d in four for s in (1, -1)}
    waves = Waves(c_w, [*four, *sorted(products - {*four, (0, 0)})])
    path = [kernel]
    for _ in range(2):
        f = waves.at(path[-1]).mean
        of = dict(zip(waves.numbers, f, strict=True))
        aa, bb = 1 - of[2, 0], 1 - of[0, 2]
        path.append(path[-1] + 0.5 * H * c_w * np.array([[aa, of[1, -1] - of[1, 1]], [of[1, -1] - of[1, 1], bb]]))
    at, m = waves.at(kernel), waves.size
    table = Written(waves, at, at, np.ones(len(at.mean))).new
    covariance = at.second[:m] - np.outer(at.mean[:m], at.mean[:m])
    third = third_cumulants(table, at.mean, at.second)
    expected = Moments(np.zeros(m), covariance, third, np.zeros((m, m)), np.zeros(m))
    for before, after in itertools.pairwise(path):
        one, two = waves.at(before), waves.at(after)
        expected = by_definition(Written(waves, one, two, waves.carried(after - before)), one, two, expected)
    functions = adapted_functions(eft.get_activation("sin"), c_w, np.array(path), 40, 1e-3)
    assert functions is not None
    *_, (_, layer, x) = along(functions, np.array(path), H)
    F, f = functions.response, waves.response
    found = {
        "a": layer.leading.change,
        "C": layer.leading.covariance,
        "b": F @ x.b,
        "D": F @ x.D @ F.T,
        "T": np.einsum("pi,qj,rij->rpq", F, F, np.tensordot(F, x.T, 1) + layer.independent_third()),
    }
    known = {
        "a": f @ expected.a,
        "C": f @ expected.C @ f.T,
        "b": f @ expected.b,
        "D": f @ expected.D @ f.T,
        "T": np.einsum("pi,qj,rk,ijk->pqr", f, f, f, expected.T),
    }
    for name, value in known.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=name)
