"""Cosines cos(k . phi) on a lattice of wave vectors, for bounded activations that are odd or even.

The mean of cos(k . phi) obeys dc_k = -(1/2) k Q k c_k dt + dM_k, n d<M_k, M_m> = (1/2) k Q m (c_{k-m} - c_{k+m}) dt,
and sigma sigma^T and phi phi^T are combinations of cosines wherever neurons have any weight (eq. 10.4). The expansion
converges exponentially in the number of cosines. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from eftcore.activations import Activation
from eftcore.pairs import pair_indices
from eftcore.theory.next_order.functions import Family, Functions

REACH = 1.2
"""Half a period of the lattice is this times sqrt(modes), in standard deviations of the widest kernel on the path: what
lies beyond it and what oscillates faster than the lattice are then about equally unimportant."""

FARTHEST = 6.5
"""Most standard deviations of half a period: farther out no neuron is, and coefficients that nothing fixes get large.
"""

POINTS = 4001


class Cosines(Family):
    """Cosines whose wave vectors are multiples of pi / (2 L_a) in each input a, all even or all odd.

    Args:
        activation: bounded, odd or even.
        weight_variance, bias_variance: C_W and C_b.
        widest: (N,) largest variance of each input on the path.
        modes: the longest wave vector, in units of pi / L_a.
    """

    def __init__(
        self, activation: Activation, weight_variance: float, bias_variance: float, widest: np.ndarray, modes: float
    ) -> None:
        self.bias_variance, self.weight_variance = bias_variance, weight_variance
        reach = min(REACH * math.sqrt(modes), FARTHEST) * np.sqrt(widest)
        inputs = len(widest)
        highest = math.floor(2 * modes)
        span = range(-highest, highest + 1)
        lattice = [
            j
            for j in itertools.product(range(highest + 1), *[span] * (inputs - 1))
            if any(j) and sum(x * x for x in j) <= 4 * modes**2 and len({x % 2 for x in j}) == 1 and _is_first(j)
        ]
        if inputs == 1:
            lattice = [j for j in lattice if j[0] % 2 == 0]
        self.lattice = np.array(lattice)
        self.unit = np.pi / (2 * reach)
        self._position = {j: i for i, j in enumerate(lattice)}
        first, second = pair_indices(inputs)
        fits = [_Fit(activation, s, end, highest) for s, end in zip(np.sqrt(widest), reach, strict=True)]
        self.constant, self.response = self._expanded([fit.sigma for fit in fits], [fit.square for fit in fits])
        _, self.kernel = self._expanded([fit.phi for fit in fits], [fit.phi_square for fit in fits])
        self.response = weight_variance * self.response
        both = self.lattice[:, None], self.lattice[None, :]
        self.minus, self.plus = both[0] - both[1], both[0] + both[1]
        self._minus, self._plus = (self._positions(j) for j in (self.minus, self.plus))
        k = self.lattice * self.unit
        own = first == second
        self.rates = np.where(own[:, None], -0.5, -1.0) * (k[:, first] * k[:, second]).T
        crossed = np.einsum("ip,jp->pij", k[:, first], k[:, second])
        crossed = np.where(own[:, None, None], crossed, crossed + crossed.transpose(0, 2, 1))
        self.weights = 0.5 * crossed

    @property
    def size(self) -> int:
        return len(self.lattice)

    def at(self, kernel: np.ndarray) -> CosinesAt:
        return CosinesAt(self, kernel)

    def mean(self, vectors: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """(...) <cos(k . phi)> under N(0, kernel) for lattice vectors (..., N)."""
        k = vectors * self.unit
        found: np.ndarray = np.exp(-0.5 * np.einsum("...a,ab,...b->...", k, kernel, k))
        return found

    def of_differences(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, M, ...) deviations x (M, ...) of c_{k-m} and of c_{k+m}; 0 for what is not in the family."""
        padded = np.concatenate([x, np.zeros((1, *x.shape[1:]))])
        return padded[self._minus], padded[self._plus]

    def _positions(self, vectors: np.ndarray) -> np.ndarray:
        """(...) position of lattice vectors (..., N) up to their sign; M for what is not in the family."""
        flat = [self._find(tuple(j)) for j in vectors.reshape(-1, vectors.shape[-1]).tolist()]
        return np.array(flat).reshape(vectors.shape[:-1])

    def _find(self, j: tuple[int, ...]) -> int:
        return self._position.get(j if _is_first(j) else tuple(-x for x in j), len(self.lattice))

    def _expanded(self, single: list[_Series], square: list[_Series]) -> tuple[np.ndarray, np.ndarray]:
        """(P,) constants and (P, M) coefficients of f(phi_a) f(phi_b), from series of f and of f^2 at each input."""
        inputs = len(single)
        first, second = pair_indices(inputs)
        constant, found = np.zeros(len(first)), np.zeros((len(first), self.size + 1))
        for p, (a, b) in enumerate(zip(first, second, strict=True)):
            if a == b:
                for j, value in square[a].items():
                    self._add(constant, found, p, _vector(inputs, {a: j}), value)
                continue
            sign = -1.0 if single[a].odd else 1.0
            for (i, u), (j, v) in itertools.product(single[a].items(), single[b].items()):
                self._add(constant, found, p, _vector(inputs, {a: i, b: -j}), 0.5 * u * v)
                self._add(constant, found, p, _vector(inputs, {a: i, b: j}), sign * 0.5 * u * v)
        return constant, found[:, :-1]

    def _add(self, constant: np.ndarray, found: np.ndarray, p: int, j: tuple[int, ...], value: float) -> None:
        if any(j):
            found[p, self._find(j)] += value
        else:
            constant[p] += value


class CosinesAt(Functions):
    """The cosines at one mean kernel."""

    def __init__(self, family: Cosines, kernel: np.ndarray) -> None:
        self.family = family
        self.k0 = kernel
        self.mean = family.mean(family.lattice, kernel)
        constant = family.bias_variance + family.weight_variance * family.constant
        self.increment = constant + family.response @ self.mean
        self.response, self.kernel = family.response, family.kernel
        self.mean_drift = family.rates * self.mean
        self._minus, self._plus = family.mean(family.minus, kernel), family.mean(family.plus, kernel)
        self.mean_noise = family.weights * (self._minus - self._plus)

    def carried(self, x: np.ndarray) -> np.ndarray:
        return _scaled(self.increment @ self.family.rates, x)

    def drift(self, q: int, x: np.ndarray) -> np.ndarray:
        return _scaled(self.family.rates[q], x)

    def noise(self, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        minus, plus = self.family.of_differences(x)
        return _scaled(np.tensordot(weights, self.family.weights, 1), minus - plus)

    def covariance(self) -> np.ndarray:
        found: np.ndarray = 0.5 * (self._minus + self._plus) - np.outer(self.mean, self.mean)
        return found

    def third_cumulant(self) -> np.ndarray:
        family, c = self.family, self.mean
        covariance = self.covariance()
        vectors = family.lattice[None, None, :]
        total = np.zeros((len(c),) * 3)
        for both in (family.minus, family.plus):
            both = both[:, :, None]
            total += 0.25 * (family.mean(both - vectors, self.k0) + family.mean(both + vectors, self.k0))
        products = 0.5 * (self._minus + self._plus)
        total -= products[:, :, None] * c
        mixed = c[:, None, None] * covariance[None]
        found: np.ndarray = total - mixed - mixed.transpose(1, 0, 2)
        return found


class _Series:
    """A function of one input as sum_j f_j cos(j u phi), or of sines where it is odd, for even (odd) j."""

    def __init__(self, coefficients: np.ndarray, numbers: np.ndarray, *, odd: bool) -> None:
        self.coefficients, self.numbers, self.odd = coefficients, numbers, odd

    def items(self) -> list[tuple[int, float]]:
        """Number of half waves j and its coefficient."""
        return list(zip(self.numbers.tolist(), self.coefficients.tolist(), strict=True))


class _Fit:
    """Series of sigma, sigma^2, phi and phi^2 of one input, by least squares weighted with its widest density."""

    def __init__(self, activation: Activation, deviation: float, reach: float, highest: int) -> None:
        x = np.linspace(-reach, reach, POINTS)
        unit = np.pi / (2 * reach)
        weight = np.exp(-((x / deviation) ** 2) / 4)

        def fit(values: np.ndarray, *, odd: bool) -> _Series:
            numbers = np.arange(1 if odd else 0, highest + 1, 2)
            waves = (np.sin if odd else np.cos)(np.outer(x, numbers * unit))
            found = np.linalg.lstsq(waves * weight[:, None], values * weight, rcond=1e-14)[0]
            return _Series(found, numbers, odd=odd)

        sigma = np.asarray(activation.function(x), dtype=float)
        self.sigma = fit(sigma, odd=activation.parity == "odd")
        self.square = fit(sigma**2, odd=False)
        self.phi = fit(x, odd=True)
        self.phi_square = fit(x**2, odd=False)


def _is_first(j: tuple[int, ...]) -> bool:
    """Whether the first number that is not 0 is positive: of k and -k, which have the same cosine, one is kept."""
    return next((x > 0 for x in j if x), True)


def _vector(inputs: int, entries: dict[int, int]) -> tuple[int, ...]:
    return tuple(entries.get(a, 0) for a in range(inputs))


def _scaled(factors: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Factors times x (..., further axes)."""
    found: np.ndarray = factors.reshape(*factors.shape, *[1] * (x.ndim - factors.ndim)) * x
    return found
