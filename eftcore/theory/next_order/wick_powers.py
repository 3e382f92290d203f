"""Wick powers :phi^alpha: with respect to K0, for activations that grow.

The mean of :phi^alpha: moves by the deviation of Q alone, since K0 moves along with infinite width. D_q lowers alpha by
two, and products of Wick powers are sums of Wick powers with contractions K0 (eq. 10.5). Equation numbers are those of
docs/theory.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from math import factorial

import numpy as np
from scipy.sparse import csr_array

from eftcore.activations import get_activation
from eftcore.gaussian.branch import hidden_kernel
from eftcore.gaussian.mehler import MehlerExpectations, by_parts
from eftcore.gaussian.pair_moments import correlations
from eftcore.gaussian.wick_series import components
from eftcore.gaussian.wick_tails import tails
from eftcore.pairs import pair_indices, pair_table, to_pairs
from eftcore.specs import ResNet
from eftcore.theory.next_order.curvature import Curvature, NormalisedMeans, expand, variables

Index = tuple[int, ...]
"""A multi-index alpha: the power of each input."""


@dataclass(frozen=True, eq=False)
class Products:
    """u_i u_j = sum_r terms[(i, j), r] u_r for i <= j, row-major.

    Attributes:
        terms: (M (M + 1) / 2, E), sparse.
    """

    terms: csr_array

    def applied(self, values: np.ndarray) -> np.ndarray:
        """(M, M, ...) values of the products u_i u_j, for values (E, ...) of the functions."""
        sums: np.ndarray = self.terms @ values.reshape(len(values), -1)
        size = (int(np.sqrt(8 * len(sums) + 1)) - 1) // 2
        found: np.ndarray = sums[pair_table(size)].reshape(size, size, *values.shape[1:])
        return found

    def with_coefficients(self, coefficient: np.ndarray) -> Products:
        """The same terms with other coefficients (S,)."""
        pattern = (coefficient, self.terms.indices, self.terms.indptr)
        return Products(csr_array(pattern, shape=self.terms.shape))

    def change(self, before: Products) -> Products:
        """By how much the coefficients differ from those of the same terms at another K0."""
        return self.with_coefficients(self.terms.data - before.terms.data)


@dataclass(frozen=True, eq=False)
class At:
    """What the functions are at one mean kernel K0.

    Attributes:
        mean: (E,) of each function under N(0, K0).
        second: (E, M) of u_r u_k under N(0, K0).
        products: which functions the products u_i u_j are made of.
        response: (P, M) the deviation of Q is ``response @ x`` at leading order.
        third: (M, M, M) of u_i u_j u_k under N(0, K0).
        curvature: what makes the deviation of Q more than linear in x, behind a normalisation.
    """

    mean: np.ndarray
    second: np.ndarray
    products: Products
    response: np.ndarray
    third: np.ndarray
    curvature: Curvature | None = None


class WickPowers:
    """Wick powers :phi^alpha: / sqrt(alpha! K^alpha) of total order 1 to ``highest``, of even order alone where sigma
    is odd or even (unless layer normalisation subtracts the mean of phi, which is of order 1). The further functions,
    which the products lead to, are those up to twice that order; they have neither mean nor deviation. Function M is
    the constant 1, and there are E functions in all.

    Args:
        engine: does the integrals; its ``extra`` must be at least ``highest``, and by SHIFTS more behind a
            normalisation.
        model: the network.
        highest: the highest order.
        variance: (N,) typical variances, by which the functions are made of order 1.

    Attributes:
        size: M.
        factor, index: (P, E) D_q u_r = factor[q, r] u_{index[q, r]}.
        kernel: (P, M) the deviation of the kernel G is ``kernel @ x``.
    """

    def __init__(self, engine: MehlerExpectations, model: ResNet, highest: int, variance: np.ndarray) -> None:
        self.engine, self.highest, self.model = engine, highest, model
        inputs, step = len(variance), 2 if only_even(model) else 1
        followed = followed_powers(inputs, highest, even_only=step == 2)
        last = highest - highest % step
        further = [alpha for order in range(last + step, 2 * last + 1, step) for alpha in _of_order(inputs, order)]
        self.powers = np.array([*followed, (0,) * inputs, *further])
        self.size = len(followed)
        self._position = {tuple(alpha): r for r, alpha in enumerate(self.powers.tolist())}
        factorials = _factorials(2 * highest)
        self.unit = np.sqrt(factorials[self.powers].prod(1) * (variance**self.powers).prod(1))
        self.pairs = list(zip(*(index.tolist() for index in pair_indices(inputs)), strict=True))
        self.kernel = np.zeros((len(self.pairs), self.size))
        for p, (a, b) in enumerate(self.pairs):
            alpha = np.bincount([a, b], minlength=inputs)
            self.kernel[p, self._position[tuple(alpha.tolist())]] = 1.0
        self.kernel *= self.unit[: self.size]
        self._make_lowering()
        self._make_response()
        self._make_products()

    def at(self, kernel: np.ndarray) -> At:
        """The functions at the mean kernel K0 (N, N)."""
        contractions = to_pairs(kernel)
        products = self._products.with_coefficients(self._polynomials @ np.prod(contractions**self._monomials, axis=1))
        mean = np.zeros(len(self.powers))
        mean[self.size] = 1.0
        second = np.zeros((len(self.powers), self.size))
        second[: self.size] = products.applied(mean)
        response, curvature = self._response(kernel)
        return At(mean, second, products, response, products.applied(second), curvature)

    def left_out(self, kernels: np.ndarray) -> float:
        """Largest share of the variance of sigma_a sigma_b that is not in the functions, at some kernels (R, N, N)."""
        even_only, single = self.engine.activation.parity is not None, kernels.shape[-1] == 1
        basis = components(self.highest, even_only=even_only, single=single)
        if not self.model.of_the_paper:
            kernels = hidden_kernel(self.model, kernels)
        return float(tails(self.engine, kernels, basis).share.max())

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

    def _make_lowering(self) -> None:
        self.factor = np.zeros((len(self.pairs), len(self.powers)))
        self.index = np.full(self.factor.shape, self.size)
        for (p, (a, b)), (r, alpha) in itertools.product(enumerate(self.pairs), enumerate(self.powers.tolist())):
            factor = alpha[a] * (alpha[a] - 1) / 2 if a == b else alpha[a] * alpha[b]
            if factor:
                left = [power - (c == a) - (c == b) for c, power in enumerate(alpha)]
                self.index[p, r] = lower = self._position[tuple(left)]
                self.factor[p, r] = factor * self.unit[lower] / self.unit[r]

    def _make_products(self) -> None:
        """All terms of all products, one table of contractions between the two factors at a time (eq. 10.5)."""
        first, second = np.triu_indices(self.size)
        left, right = self.powers[first], self.powers[second]
        inputs, most = left.shape[1], int(self.powers[: self.size].sum(1).max())
        factorials = _factorials(2 * most)
        cells = list(itertools.product(range(inputs), range(inputs)))
        found = []
        for counts in _of_at_most(len(cells), most):
            table = np.array(counts).reshape(inputs, inputs)
            rest_left, rest_right = left - table.sum(1), right - table.sum(0)
            kept = np.flatnonzero((rest_left >= 0).all(1) & (rest_right >= 0).all(1))
            if not len(kept):
                continue
            ways = factorials[left[kept]].prod(1) * factorials[right[kept]].prod(1)
            ways /= factorials[rest_left[kept]].prod(1) * factorials[rest_right[kept]].prod(1)
            ways /= factorials[table].prod()
            result = (rest_left + rest_right)[kept]
            powers = [sum(int(table[c]) for c in {(a, b), (b, a)}) for a, b in self.pairs]
            found.append((kept, result, ways, np.broadcast_to(powers, (len(kept), len(self.pairs)))))
        pair, result, ways, contracted = (np.concatenate(parts) for parts in zip(*found, strict=True))
        where = self._positions(result)
        coefficient = ways * self.unit[where] / (self.unit[first[pair]] * self.unit[second[pair]])
        order = np.lexsort((where, pair))
        pair, where = pair[order], where[order]
        # several tables of contractions lead to the same function
        begins = np.flatnonzero(np.diff(pair * len(self.powers) + where, prepend=-1))
        start = np.searchsorted(pair[begins], np.arange(len(first) + 1))
        pattern = (np.zeros(len(begins)), where[begins], start)
        self._products = Products(csr_array(pattern, shape=(len(first), len(self.powers))))
        code = contracted[order] @ (most + 1) ** np.arange(len(self.pairs))
        _, one, monomial = np.unique(code, return_index=True, return_inverse=True)
        self._monomials = contracted[order[one]]
        shape = (len(begins), len(self._monomials))
        self._polynomials = csr_array((coefficient[order], monomial, np.append(begins, len(pair))), shape=shape)

    def _positions(self, powers: np.ndarray) -> np.ndarray:
        """(E,) positions of these powers (E, inputs) among all functions."""
        digits = (self.powers.max() + 1) ** np.arange(powers.shape[1])
        own = self.powers @ digits
        sorted_ = np.argsort(own)
        found: np.ndarray = sorted_[np.searchsorted(own[sorted_], powers @ digits)]
        return found

    def _make_response(self) -> None:
        """Which derivatives of sigma(phi_a) and sigma(phi_b) each function needs, and C_W / alpha!."""
        powers = self.powers[: self.size]
        a, b = (np.array(index)[:, None] for index in zip(*self.pairs, strict=True))
        own, other = powers.T[a[:, 0]], np.where(a == b, 0, powers.T[b[:, 0]])
        weight = np.where(own + other == powers.sum(1), 1 / _factorials(self.highest)[powers].prod(1), 0.0)
        self._derivatives = own, other, self.model.weight_variance * weight * self.unit[: self.size]
        if not self.model.of_the_paper:
            self._kinds = variables(powers.shape[1], layered=self.model.normalisation == "layer")
            self._taken = np.zeros((len(self._kinds), self.size))
            for row, (place, kind) in zip(self._taken, self._kinds, strict=True):
                alpha = (1 + kind) * np.eye(powers.shape[1], dtype=int)[place]  # G_aa or mu_a
                position = self._position[tuple(alpha.tolist())]
                row[position] = self.unit[position]

    def _response(self, kernel: np.ndarray) -> tuple[np.ndarray, Curvature | None]:
        """(P, M) C_W < d^alpha (sigma sigma) > / alpha!; behind a normalisation with what it takes out (eq. 11.19)."""
        own, other, weight = self._derivatives
        if not self.model.of_the_paper:
            layered = self.model.normalisation == "layer"
            normed = hidden_kernel(self.model, kernel)
            means = NormalisedMeans(self.engine, kernel, normed, self.highest, layered=layered)
            return expand(means, self._kinds, self._taken, self._derivatives, self.model.weight_variance)
        moments = _derivative_moments(self.engine, kernel, self.highest)
        return weight * moments[np.arange(len(own))[:, None], own, other], None


def only_even(model: ResNet) -> bool:
    """Whether Wick powers of odd order play no role in a network."""
    return get_activation(model.activation).parity is not None and model.normalisation != "layer"


def followed_powers(inputs: int, highest: int, *, even_only: bool) -> list[Index]:
    """The powers of total order 1 to ``highest``, or those of even order alone."""
    step = 2 if even_only else 1
    return [alpha for order in range(step, highest + 1, step) for alpha in _of_order(inputs, order)]


def _derivative_moments(engine: MehlerExpectations, kernel: np.ndarray, highest: int) -> np.ndarray:
    """(P, highest + 1, highest + 1) < d^i sigma(phi_a) d^j sigma(phi_b) >; for (a, a): < d^i sigma^2 > at j = 0."""
    first, second = pair_indices(len(kernel))
    deviation = np.sqrt(np.diag(kernel))
    rule = engine.rule_at(deviation)
    sigma = np.asarray(engine.activation.function(deviation[:, None] * rule.nodes), dtype=float)
    found = np.zeros((len(first), highest + 1, highest + 1))
    table = rule.table[:, : highest + 1] * np.sqrt(_factorials(highest))
    own = first == second
    found[own, :, 0] = sigma**2 @ table / deviation[:, None] ** np.arange(highest + 1)
    if len(kernel) > 1:
        correlation = correlations(kernel, first, second)
        series = np.stack([by_parts(sigma, rule.table, i, engine.terms, deviation) for i in range(highest + 1)])
        for p in np.flatnonzero(~own):
            a, b = first[p], second[p]
            found[p] = (series[:, a] * correlation[p] ** np.arange(engine.terms)) @ series[:, b].T
    return found


@cache
def _factorials(highest: int) -> np.ndarray:
    return np.array([float(factorial(k)) for k in range(highest + 1)])


def _of_order(inputs: int, order: int) -> list[Index]:
    """All multi-indices of this total order."""
    if inputs == 1:
        return [(order,)]
    return [(first, *rest) for first in range(order, -1, -1) for rest in _of_order(inputs - 1, order - first)]


def _of_at_most(cells: int, order: int) -> list[Index]:
    """All multi-indices up to this total order."""
    return [counts for total in range(order + 1) for counts in _of_order(cells, total)]
