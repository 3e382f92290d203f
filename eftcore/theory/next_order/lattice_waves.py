"""Sines and cosines on a lattice of wave vectors, for smooth bounded activations.

Given its past, the mean of cos(k . phi) or sin(k . phi) shrinks by exp(-k Q k / 2) per unit of t, products are sums of
two such functions, and sigma sigma^T and phi phi^T are sums of them wherever neurons have any weight (eq. 10.4). The
expansion converges exponentially in the number of functions. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from eftcore.activation_families import Parity
from eftcore.activations import Activation
from eftcore.gaussian import fourier
from eftcore.pairs import pair_indices
from eftcore.theory.next_order.basis import At, Basis, Products


class LatticeWaves(Basis):
    """cos(k . phi) for wave vectors k = j u whose numbers j have an even sum, sin(k . phi) for those with an odd sum.

    The unit of input a is u_a = pi / (2 L_a). Odd sums are needed only where sigma is neither odd nor even. Of k and
    -k, which have the same function up to its sign, one is kept.

    Args:
        activation: smooth and bounded.
        weight_variance: C_W.
        widest: (N,) largest variance of each input on the path.
        modes: the longest wave vector, in units of pi / L_a.
    """

    def __init__(self, activation: Activation, weight_variance: float, widest: np.ndarray, modes: float) -> None:
        deviation = np.sqrt(np.where(widest > 0, widest, 1.0))
        inputs, highest = len(widest), math.floor(2 * modes)
        grid = np.array(list(itertools.product(range(-highest, highest + 1), repeat=inputs)))
        step = 1 if activation.parity is None else 2
        kept = (grid**2).sum(1) <= 4 * modes**2
        lattice = grid[kept & grid.any(1) & (grid.sum(1) % step == 0) & (_sign(grid) > 0)]
        self.size = m = len(lattice)
        first, second = np.triu_indices(m)
        both = np.stack([lattice[first] - lattice[second], lattice[first] + lattice[second]], axis=1)
        further = np.unique((both * _sign(both)[..., None]).reshape(-1, inputs), axis=0)
        known = {tuple(j) for j in lattice.tolist()} | {(0,) * inputs}
        new = [j for j in further.tolist() if tuple(j) not in known]
        numbers = np.concatenate(
            [lattice, np.zeros((1, inputs), dtype=int), np.array(new, dtype=int).reshape(-1, inputs)]
        )
        self._position = {tuple(j): r for r, j in enumerate(numbers.tolist())}
        self._odd = numbers.sum(1) % 2 == 1
        self.unit = np.array([math.pi / (2 * fourier.half_period(modes, s)) for s in deviation])
        self.vectors = k = numbers * self.unit
        a, b = pair_indices(inputs)
        self.factor = np.where(a == b, -0.5, -1.0)[:, None] * (k[:, a] * k[:, b]).T
        self.index = np.broadcast_to(np.arange(len(k)), self.factor.shape)
        self._make_products(first, second, both)
        self._make_second(numbers)

        def series(function: Callable[[np.ndarray], np.ndarray], parity: Parity | None) -> list[fourier.Series]:
            return [fourier.fit(function, s, modes, parity) for s in deviation]

        def sigma(x: np.ndarray) -> np.ndarray:
            return np.asarray(activation.function(x), dtype=float)

        self._activation, self._sigma = activation, series(sigma, activation.parity)
        square = activation.parity and "even"
        response = self._expanded(self._sigma, series(lambda x: sigma(x) ** 2, square))
        self.response = weight_variance * response
        self.kernel = self._expanded(series(lambda x: x, "odd"), series(lambda x: x**2, "even"))

    def at(self, kernel: np.ndarray) -> At:
        mean = np.where(self._odd, 0.0, np.exp(-self._half_form(self.vectors, kernel)))
        means = np.exp(-self._half_form(self._sums, kernel))
        second = self._weights[0] * means[self._where[0]] + self._weights[1] * means[self._where[1]]
        return At(mean, second, self._coefficient, self.response)

    def left_out(self, kernels: np.ndarray) -> float:
        """The share of the mean square of sigma that the fit of sigma misses, twice, for two factors."""
        share = 0.0
        for variance, series in zip(np.diagonal(kernels, axis1=1, axis2=2).T, self._sigma, strict=True):
            x = np.linspace(-8, 8, 2001)[None] * np.sqrt(variance)[:, None]
            weight = np.exp(-0.5 * np.linspace(-8, 8, 2001) ** 2)
            exact = np.asarray(self._activation.function(x), dtype=float)
            missed, whole = (((exact - series(x)) ** 2) @ weight), (exact**2 @ weight)
            share = max(share, 2 * float(np.max(missed / np.maximum(whole, 1e-300))))
        return share

    def carried(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.exp(-self._half_form(self.vectors, after - before))
        return found

    @staticmethod
    def _half_form(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """(...) k M k / 2."""
        found: np.ndarray = 0.5 * ((vectors @ matrix) * vectors).sum(-1)
        return found

    def _make_products(self, first: np.ndarray, second: np.ndarray, both: np.ndarray) -> None:
        """The terms of k - m and of k + m of all products; ``both`` has their numbers (pairs, 2, N)."""
        sign = _sign(both)
        numbers = (both * sign[..., None]).reshape(-1, both.shape[-1]).tolist()
        found = np.array([self._position[tuple(j)] for j in numbers]).reshape(sign.shape)
        one, two = self._odd[first], self._odd[second]
        # cos cos, sin sin, sin cos and cos sin
        weights = 0.5 * np.stack([np.where(~one & two, -1.0, 1.0), np.where(one & two, -1.0, 1.0)], axis=1)
        weights *= np.where(self._odd[found], sign, 1)
        weights = np.where((one != two)[:, None] & (found == self.size), 0.0, weights)
        order = np.argsort(found, axis=1)
        self._coefficient = np.take_along_axis(weights, order, 1).ravel()
        result = np.take_along_axis(found, order, 1).ravel()
        self.products = Products(np.arange(0, 2 * len(first) + 1, 2), result)

    def _make_second(self, numbers: np.ndarray) -> None:
        """What the means of all products of a function with one that is followed are made of."""
        left, right = numbers[:, None], numbers[None, : self.size]
        both = np.stack([left - right, left + right])
        unique, where = np.unique(both.reshape(-1, both.shape[-1]), axis=0, return_inverse=True)
        self._sums, self._where = unique * self.unit, where.reshape(both.shape[:-1])
        one, two = self._odd[:, None], self._odd[None, : self.size]
        even = 0.5 * (one == two)
        self._weights = np.stack([even, np.where(one & two, -even, even)])

    def _expanded(self, single: list[fourier.Series], square: list[fourier.Series]) -> np.ndarray:
        """(P, M) coefficients of f(phi_a) f(phi_b), from series of f and of f^2 at each input."""
        inputs = len(single)
        first, second = pair_indices(inputs)
        found = np.zeros((len(first), self.size + 1))
        for p, (a, b) in enumerate(zip(first, second, strict=True)):
            if a == b:
                numbers, coefficients = square[a].waves()
                terms = [({a: j}, c) for j, c in zip(numbers.tolist(), coefficients.tolist(), strict=True)]
            else:
                one, two = (zip(*(x.tolist() for x in single[i].waves()), strict=True) for i in (a, b))
                terms = [({a: i, b: j}, c * d) for (i, c), (j, d) in itertools.product(one, two)]
            for entries, c in terms:
                j = tuple(entries.get(i, 0) for i in range(inputs))
                r = self._position.get(j, self.size)
                if r < self.size:
                    # c exp(i k phi) and its conjugate
                    found[p, r] += -2 * c.imag if self._odd[r] else 2 * c.real
        return found[:, :-1]


def _sign(numbers: np.ndarray) -> np.ndarray:
    """(...) 1 for 0 and where the first of the numbers (..., N) that is not 0 is positive, else -1."""
    sign = np.zeros(numbers.shape[:-1], dtype=int)
    for a in range(numbers.shape[-1]):
        sign = np.where(sign == 0, np.sign(numbers[..., a]), sign)
    return np.where(sign == 0, 1, sign)
