"""Wick powers :phi^alpha: with respect to K0, for activations that grow.

The mean h_alpha of :phi^alpha: moves by the deviation of Q alone: dh_alpha = sum_q dQ_q (D_q h)_alpha dt + dM_alpha. D
lowers alpha by two, and products of Wick powers are sums of Wick powers with contractions K0 (eq. 10.5). Orders above
the highest are left out. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from math import factorial, prod

import numpy as np

from eftcore.gaussian.mehler import MehlerExpectations, by_parts
from eftcore.gaussian.pair_moments import correlations
from eftcore.pairs import pair_indices, to_pairs
from eftcore.theory.next_order.functions import Family, Functions

Index = tuple[int, ...]
"""A multi-index alpha: the power of each input."""


class WickPowers(Family):
    """Wick powers :phi^alpha: / sqrt(alpha!) of total order 1 to ``highest``; of even order alone where sigma is odd or
    even.

    Args:
        engine: does the integrals; its ``extra`` must be at least ``highest``.
        weight_variance, bias_variance: C_W and C_b.
        inputs: N.
        highest: the highest order.
        variance: (N,) typical variances, by which the functions are made of order 1.
    """

    def __init__(
        self,
        engine: MehlerExpectations,
        weight_variance: float,
        bias_variance: float,
        inputs: int,
        highest: int,
        variance: np.ndarray,
    ) -> None:
        self.engine, self.highest = engine, highest
        self.bias_variance, self.weight_variance = bias_variance, weight_variance
        even = engine.activation.parity is not None
        orders = range(2, highest + 1, 2) if even else range(1, highest + 1)
        self.indices = [alpha for order in orders for alpha in _of_order(inputs, order)]
        self.position = {alpha: i for i, alpha in enumerate(self.indices)}
        self.unit = np.array(
            [prod((factorial(x) * k**x) ** 0.5 for x, k in zip(alpha, variance, strict=True)) for alpha in self.indices]
        )
        self.pairs = list(zip(*(index.tolist() for index in pair_indices(inputs)), strict=True))

    @property
    def size(self) -> int:
        return len(self.indices)

    def at(self, kernel: np.ndarray) -> WickPowersAt:
        return WickPowersAt(self, kernel)

    @cached_property
    def kernel(self) -> np.ndarray:
        """(P, M) G_ab - K0_ab is the mean of :phi_a phi_b:."""
        found = np.zeros((len(self.pairs), self.size))
        for p, (a, b) in enumerate(self.pairs):
            found[p, self.position[_plus(_zero(self), a, b)]] = 1.0
        found *= self.unit
        return found

    @cached_property
    def lowering(self) -> tuple[np.ndarray, np.ndarray]:
        """(P, M, M) and (P, M): D_q as a matrix on deviations, and its part on the constant h_0 = 1."""
        matrix, constant = np.zeros((len(self.pairs), self.size, self.size)), np.zeros((len(self.pairs), self.size))
        for (p, (a, b)), (i, alpha) in itertools.product(enumerate(self.pairs), enumerate(self.indices)):
            lower = _minus(alpha, a, b)
            if lower is None:
                continue
            factor = alpha[a] * (alpha[a] - 1) / 2 if a == b else alpha[a] * alpha[b]
            if any(lower):
                matrix[p, i, self.position[lower]] = factor
            else:
                constant[p, i] = factor
        return matrix * self.unit / self.unit[:, None], constant / self.unit

    @cached_property
    def gradients(self) -> _Products:
        """N^q(u_i, u_j) for each pair q."""
        terms = _Products(self.unit)
        for (p, (a, b)), i, j in itertools.product(enumerate(self.pairs), range(self.size), range(self.size)):
            for one, two in {(a, b), (b, a)}:
                left, right = _minus(self.indices[i], one), _minus(self.indices[j], two)
                if left is not None and right is not None:
                    factor = self.indices[i][one] * self.indices[j][two]
                    self._multiply(terms, (p, i, j), left, right, factor)
        return terms.closed((len(self.pairs), self.size, self.size))

    @cached_property
    def products(self) -> _Products:
        """u_i u_j."""
        terms = _Products(self.unit)
        for i, j in itertools.product(range(self.size), range(self.size)):
            self._multiply(terms, (i, j), self.indices[i], self.indices[j], 1)
        return terms.closed((self.size, self.size))

    def _multiply(self, terms: _Products, at: Index, left: Index, right: Index, factor: int) -> None:
        """Add factor times :phi^left: :phi^right: as Wick powers; position M stands for the constant."""
        inputs = len(left)
        cells = list(itertools.product(range(inputs), range(inputs)))
        for counts in itertools.product(*(range(min(left[a], right[b]) + 1) for a, b in cells)):
            table = np.array(counts).reshape(inputs, inputs)
            rest_left, rest_right = np.array(left) - table.sum(1), np.array(right) - table.sum(0)
            if (rest_left < 0).any() or (rest_right < 0).any():
                continue
            result = tuple((rest_left + rest_right).tolist())
            if any(result) and result not in self.position:
                continue  # an order above the highest
            ways = prod(factorial(x) for x in (*left, *right)) // prod(
                factorial(x) for x in (*counts, *rest_left.tolist(), *rest_right.tolist())
            )
            powers = tuple(int(sum(table[c] for c in {(a, b), (b, a)})) for a, b in self.pairs)
            terms.add(at, self.position.get(result, self.size), factor * ways, powers)


class WickPowersAt(Functions):
    """The Wick powers at one mean kernel."""

    def __init__(self, family: WickPowers, kernel: np.ndarray) -> None:
        self.family = family
        self.kernel = family.kernel
        self._contractions = to_pairs(kernel)
        second, self.response = _response(family, kernel)
        self.increment = family.bias_variance + family.weight_variance * second
        self._lowering, self.mean_drift = family.lowering
        noise = family.gradients.at(self._contractions)
        self._noise, self.mean_noise = noise[..., :-1], noise[..., -1]

    def carried(self, x: np.ndarray) -> np.ndarray:
        return np.zeros_like(x)

    def drift(self, q: int, x: np.ndarray) -> np.ndarray:
        return np.tensordot(self._lowering[q], x, 1)

    def noise(self, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.tensordot(np.tensordot(weights, self._noise, 1), x, 1)

    def covariance(self) -> np.ndarray:
        return self.family.products.at(self._contractions)[..., -1]

    def third_cumulant(self) -> np.ndarray:
        products = self.family.products.at(self._contractions)
        found: np.ndarray = products[..., :-1] @ products[..., -1]
        return found


@dataclass
class _Products:
    """Sums of Wick powers whose coefficients are monomials in K0, as arrays: entry, coefficient and powers of K0."""

    unit: np.ndarray

    def __post_init__(self) -> None:
        self._entries: list[tuple[Index, int, int, Index]] = []

    def add(self, at: Index, result: int, coefficient: int, powers: Index) -> None:
        """Add coefficient * K0^powers * u_result to the entry ``at``."""
        self._entries.append((at, result, coefficient, powers))

    def closed(self, shape: Index) -> _Products:
        """Ready to be evaluated, with entries of this shape."""
        self._shape = (*shape, len(self.unit) + 1)
        where = [(*at, result) for at, result, _, _ in self._entries]
        self._where = np.ravel_multi_index(np.array(where).T, self._shape)
        self._coefficients = np.array([float(coefficient) for _, _, coefficient, _ in self._entries])
        self._powers = np.array([powers for *_, powers in self._entries])
        return self

    def at(self, contractions: np.ndarray) -> np.ndarray:
        """(*shape, M + 1) coefficients at K0 (P,)."""
        values = self._coefficients * np.prod(contractions**self._powers, axis=1)
        found = np.bincount(self._where, values, minlength=int(np.prod(self._shape))).reshape(self._shape)
        scaled: np.ndarray = found * np.append(self.unit, 1.0) / (self.unit[:, None, None] * self.unit[:, None])
        return scaled


def _response(family: WickPowers, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) E2(K0) and (P, M) C_W <d^alpha (sigma sigma)> / alpha!."""
    moments = _derivative_moments(family.engine, kernel, family.highest)
    found = np.zeros((len(family.pairs), family.size))
    for (p, (a, b)), (i, alpha) in itertools.product(enumerate(family.pairs), enumerate(family.indices)):
        if all(power == 0 or c in (a, b) for c, power in enumerate(alpha)):
            orders = (alpha[a], 0) if a == b else (alpha[a], alpha[b])
            found[p, i] = moments[p, orders[0], orders[1]] / prod(factorial(x) for x in alpha)
    return moments[:, 0, 0], family.weight_variance * found * family.unit


def _derivative_moments(engine: MehlerExpectations, kernel: np.ndarray, highest: int) -> np.ndarray:
    """(P, highest + 1, highest + 1) <d^i sigma(phi_a) d^j sigma(phi_b)>; for (a, a): <d^i sigma^2> at j = 0."""
    first, second = pair_indices(len(kernel))
    deviation = np.sqrt(np.diag(kernel))
    rule = engine.rule_at(deviation)
    sigma = np.asarray(engine.activation.function(deviation[:, None] * rule.nodes), dtype=float)
    orders = np.arange(highest + 1)
    found = np.zeros((len(first), highest + 1, highest + 1))
    table = rule.table[:, : highest + 1] * np.array([factorial(k) ** 0.5 for k in orders])
    own = sigma**2 @ table / deviation[:, None] ** orders
    series = np.stack([by_parts(sigma, rule.table, i, engine.terms, deviation) for i in range(highest + 1)])
    correlation = correlations(kernel, first, second)
    for p, (a, b) in enumerate(zip(first, second, strict=True)):
        if a == b:
            found[p, :, 0] = own[a]
        else:
            found[p] = (series[:, a] * correlation[p] ** np.arange(engine.terms)) @ series[:, b].T
    return found


def _zero(family: WickPowers) -> Index:
    return (0,) * len(family.indices[0])


def _plus(alpha: Index, *inputs: int) -> Index:
    return tuple(power + inputs.count(a) for a, power in enumerate(alpha))


def _minus(alpha: Index, *inputs: int) -> Index | None:
    """alpha with the powers of these inputs lowered by one each; None where one would be negative."""
    found = tuple(power - inputs.count(a) for a, power in enumerate(alpha))
    return None if min(found) < 0 else found


def _of_order(inputs: int, order: int) -> list[Index]:
    """All multi-indices of this total order."""
    if inputs == 1:
        return [(order,)]
    return [(first, *rest) for first in range(order, -1, -1) for rest in _of_order(inputs - 1, order - first)]
