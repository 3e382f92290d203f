"""The exact leading order by sines and cosines, for smooth bounded activations (docs/theory.md, section 4.4).

Along a path of one neuron the mean of exp(i k phi) given an earlier phi only shrinks, by exp(-k Q k / 2) per unit of t.
So Z = Cov(u_q, exp(i k phi)) obeys one equation for each k, at any epsilon,
Z' = chi Z + C_W Cov(xi^S, exp(i k phi)) - (k Q k / 2) Z, and f_p = sigma_a sigma_b is a sum of such functions that
converges exponentially.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from eftcore.activation_families import Parity
from eftcore.activations import Activation
from eftcore.gaussian import fourier
from eftcore.gaussian.pair_moments import Expectations
from eftcore.pairs import pair_indices
from eftcore.specs import ResNet
from eftcore.theory.closures.base import Ingredients, State
from eftcore.theory.closures.g_only import wishart
from eftcore.theory.closures.response import Response

NEGLIGIBLE = 1e-9
"""Waves whose coefficient in sigma or f_p is below this fraction of the largest one are left out."""

TABLE_ENTRIES = 100_000
"""Entries of a table over waves and waves that are held at a time."""


class Trigonometric(Response):
    """The covariances of u with the sines and cosines that make up f_p of each pair p (eq. 4.28).

    Variables beside U and K1: Z (P, I), the covariance of u_q with each of the I waves of all pairs; Z_G (P, P), that
    with xi^G. Ingredients beside those of ``GOnly``: ``drive`` (P, I) Cov(xi^S_q, wave), ``drive_kernel`` (P, P)
    Cov(xi^S_q, xi^G_p), ``decay`` (I,) k Q k / 2.
    """

    powers: ClassVar = {"Z": 1, "Z_G": 2, "U": 2, "K1": 1}

    PER_WAVE: ClassVar = ("drive", "decay")
    """Ingredients whose last axis has the waves."""

    def __init__(self, model: ResNet, kernel: np.ndarray, final_kernel: np.ndarray, waves: Waves) -> None:
        super().__init__(model, kernel, final_kernel)
        self.waves = waves

    @property
    def pattern(self) -> Hashable | None:
        network = super().pattern
        return None if network is None else (network, self.waves.pattern)

    @classmethod
    def stacked(cls, closures: Sequence[Self]) -> Self:
        one = super().stacked(closures)
        one.waves = Waves.stacked([closure.waves for closure in closures])
        return one

    def separate(self, ingredients: Ingredients, place: int) -> Ingredients:
        own = self.waves.places[place]
        return ingredients | {name: ingredients[name][..., own] for name in self.PER_WAVE}

    def align(self, ingredients: Sequence[Ingredients]) -> Sequence[Ingredients]:
        count = len(self.waves.pair)
        return [
            each | {name: _spread(each[name], own, count) for name in self.PER_WAVE}
            for each, own in zip(ingredients, self.waves.places, strict=True)
        ]

    def initial(self) -> State:
        pairs = len(self.neighbours)
        return {
            "Z": self.zeros(len(self.waves.pair)),
            "Z_G": self.zeros(pairs),
            "U": self.zeros(pairs),
            "K1": self.zeros(),
        }

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        found = super().ingredients(kernel, engine)
        # the kernels as the last axis, along which ``respond`` works on many at once
        chi, squares = (np.moveaxis(values, 0, -1) for values in (found["chi"], wishart(kernel)))
        return {
            "kernel": kernel,
            "chi": found["chi"],
            "hessian": found["hessian"],
            "drive": self.waves.with_products(kernel),
            "drive_kernel": np.moveaxis(self.respond(chi, squares), -1, 0),
            "decay": self.waves.half_form(found["increment"]),
        }

    def products(self, at: Ingredients) -> np.ndarray:
        return self.waves.summed(at["drive"] * self.waves.coefficient, axis=1)

    def with_products(self, at: Ingredients, state: State) -> np.ndarray:
        return self.waves.summed(state["Z"] * self.waves.coefficient, axis=1)

    def with_derivatives(self, at: Ingredients, state: State) -> np.ndarray:
        wave = np.arange(len(self.waves.pair))
        mixed = [state["Z"][self.neighbours[self.waves.pair, q], wave] * self.waves.derivative[q] for q in range(3)]
        return self.waves.summed(np.sum(mixed, axis=0), axis=0)

    def with_kernel(self, at: Ingredients, state: State) -> np.ndarray:
        return state["Z_G"]

    def rates(self, at: Ingredients, state: State) -> State:
        c_w = self.model.weight_variance
        return {
            "Z": self.respond(at["chi"], state["Z"]) + c_w * at["drive"] - at["decay"] * state["Z"],
            "Z_G": self.respond(at["chi"], state["Z_G"]) + at["drive_kernel"],
            **super().rates(at, state),
        }

    def step(self, at: Ingredients, state: State, h: float | np.ndarray, *, exact: bool) -> State:
        """One layer: Z decays exactly for any step, since forward Euler is unstable for fast waves."""
        after = super().step(at, state, h, exact=exact)
        after["Z"] = np.exp(-h * at["decay"]) * (after["Z"] + h * at["decay"] * state["Z"])
        return after


@dataclass(frozen=True, eq=False)
class _Part:
    """The waves of one pair: (M,) wave numbers of its two inputs, (M,) complex coefficients of exp(i k phi)."""

    first: np.ndarray
    second: np.ndarray
    coefficient: np.ndarray


class Waves:
    """The functions cos(k phi) and sin(k phi) that make up f_p = sigma(phi_a) sigma(phi_b), for all pairs one after
    another.

    Args:
        activation: smooth and bounded.
        widest: (N,) largest variance of each input on the path.
        modes: the longest wave vector of each input in units of pi / L, where 2 L is the period.

    Attributes:
        pair: (I,) the pair p that a wave belongs to.
        vector: (I, 2) wave numbers of the two inputs a <= b of the pair; 0 for b = a.
        odd: (I,) whether the wave is a sine.
        places: positions of the waves of each of the stacked networks among those of all (see ``stacked``).
        coefficient: (I,) of the wave in f_p.
        derivative: (3, I) of the wave in D_aa f_p, D_ab f_p and D_bb f_p.
    """

    def __init__(self, activation: Activation, widest: np.ndarray, modes: int) -> None:
        self.deviation = np.sqrt(np.where(widest > 0, widest, 1.0))

        self.single = [_expanded(activation.function, d, modes, activation.parity) for d in self.deviation]
        self.square = [
            _expanded(lambda x: activation.function(x) ** 2, d, modes, activation.parity and "even")
            for d in self.deviation
        ]
        # the coefficients of an odd sigma are i times what ``single`` has, so that products of two are real
        self.sign = -1.0 if activation.parity == "odd" else 1.0
        self.first, self.second = pair_indices(len(widest))
        self.places: list[np.ndarray] = []
        parts = []
        for a, b in zip(self.first, self.second, strict=True):
            if a == b:
                k, c = self.square[a]
                parts.append(_Part(k, np.zeros_like(k), c))
            else:
                (k, c), (m, d) = self.single[a], self.single[b]
                grid = np.meshgrid(k, m, indexing="ij")
                parts.append(_Part(grid[0].ravel(), grid[1].ravel(), self.sign * np.outer(c, d).ravel()))
        self._collect([_half(part) for part in parts])

    def _collect(self, parts: list[_Part]) -> None:
        """Real functions from complex ones: 2 Re c cos(k phi) - 2 Im c sin(k phi)."""
        pair, vector, odd, coefficient = [], [], [], []
        for p, part in enumerate(parts):
            k = np.stack([part.first, part.second], axis=-1)
            for sine, values in ((False, 2 * part.coefficient.real), (True, -2 * part.coefficient.imag)):
                kept = np.abs(values) >= NEGLIGIBLE * np.abs(part.coefficient).max(initial=0.0)
                pair.append(np.full(kept.sum(), p))
                odd.append(np.full(kept.sum(), sine))
                vector.append(k[kept])
                coefficient.append(values[kept])
        self.pair, self.odd = np.concatenate(pair), np.concatenate(odd)
        self.vector, self.coefficient = np.concatenate(vector), np.concatenate(coefficient)
        a, b = self.vector.T
        self.derivative = np.stack([-0.5 * a * a, -a * b, -0.5 * b * b]) * self.coefficient
        self.starts = np.searchsorted(self.pair, np.arange(len(parts)))

    @property
    def pattern(self) -> Hashable:
        """What waves of several networks must have in common to be stacked: how many there are for each input."""
        return tuple(len(k) for k, _ in (*self.single, *self.square)), np.iscomplexobj(self.single[0][1])

    @classmethod
    def stacked(cls, waves: Sequence[Waves]) -> Waves:
        """The waves of R networks, of the same ``pattern``.

        ``coefficient`` and ``derivative`` have one more axis at their end, over networks, as the state has; ``vector``
        and what ``with_products`` needs have it at their front, as kernels have. Where a network has fewer waves of a
        pair than another one, it gets constants with the coefficient 0.
        """
        different = {id(each): each for each in waves}
        place = {key: row for row, key in enumerate(different)}
        rows, each = [place[id(wave)] for wave in waves], list(different.values())
        one = copy.copy(waves[0])
        kinds = [2 * wave.pair + wave.odd for wave in each]
        counts = np.stack([np.bincount(kind, minlength=2 * len(one.first)) for kind in kinds])
        most = counts.max(0)
        skipped = np.cumsum(most - counts, axis=1) - (most - counts)
        own = [np.arange(len(kind)) + before[kind] for kind, before in zip(kinds, skipped, strict=True)]
        one.places = [own[row] for row in rows]
        one.pair, one.odd = np.divmod(np.repeat(np.arange(len(most)), most), 2)
        one.odd = one.odd.astype(bool)
        one.starts = np.searchsorted(one.pair, np.arange(len(one.first)))

        def alike(values: list[np.ndarray]) -> np.ndarray:
            return np.stack([_spread(x, at, len(one.pair)) for x, at in zip(values, own, strict=True)])[rows]

        one.coefficient = np.moveaxis(alike([wave.coefficient for wave in each]), 0, -1).copy()
        one.derivative = np.moveaxis(alike([wave.derivative for wave in each]), 0, -1).copy()
        one.vector = np.swapaxes(alike([wave.vector.T for wave in each]), 1, 2)
        one.single, one.square = (
            [
                (np.stack([part[c][0] for part in parts])[rows], np.stack([part[c][1] for part in parts])[rows])
                for c in range(len(one.single))
            ]
            for parts in ([wave.single for wave in each], [wave.square for wave in each])
        )
        return one

    def summed(self, x: np.ndarray, axis: int) -> np.ndarray:
        """Sums over the waves of each pair, of x whose ``axis`` has the I waves; P of them."""
        found: np.ndarray = np.add.reduceat(x, self.starts, axis=axis)
        return found

    def half_form(self, matrix: np.ndarray) -> np.ndarray:
        """(R, I) k M k / 2 for R symmetric matrices M (R, N, N) over the inputs."""
        a, b = self.vector[..., 0], self.vector[..., 1]
        i, j = self.first[self.pair], self.second[self.pair]
        found: np.ndarray = 0.5 * (a * a * matrix[:, i, i] + 2 * a * b * matrix[:, i, j] + b * b * matrix[:, j, j])
        return found

    def with_products(self, kernel: np.ndarray) -> np.ndarray:
        """(R, P, I) covariances of f_q with the waves under N(0, K) for R kernels (R, N, N) (eq. 4.29).

        < exp(i m phi) exp(i k phi) > = exp(-(m K m + k K k) / 2 - m K k). For f_q = sum_jl c_j c_l exp(i (j, l) phi)
        the sum over (j, l) is a product of matrices, whose entries are exponentials of up to (k sigma)^2: what comes
        out is not finite where these overflow.
        """
        stacked, count = self.vector.ndim == 3, self.vector.shape[-2]
        rows = max(1, TABLE_ENTRIES // (count * max(k.shape[-1] for k, _ in (*self.single, *self.square))))
        found = np.empty((len(kernel), len(self.first), count))
        for start in range(0, len(kernel), rows):
            here = slice(start, start + rows)

            def part(values: np.ndarray, here: slice = here) -> np.ndarray:
                """(r, M), or (1, M) where all kernels are of one network."""
                return values[here] if stacked else values[None]

            single, square = ([(part(k), part(s)) for k, s in family] for family in (self.single, self.square))
            self._products(kernel[here], part(self.vector), single, square, found[here])
        return found

    def _products(
        self, kernel: np.ndarray, vector: np.ndarray, single: _Family, square: _Family, found: np.ndarray
    ) -> None:
        """Fill ``found`` (r, P, I) for r kernels; wave vectors (r, I, 2) and waves (r, M) are those of their networks,
        or have one row for all of them."""
        i, j = self.first[self.pair], self.second[self.pair]
        a, b = vector[:, None, :, 0], vector[:, None, :, 1]
        across = kernel[:, :, i] * a + kernel[:, :, j] * b
        a, b = vector[..., 0], vector[..., 1]
        size = -0.5 * (a * a * kernel[:, i, i] + 2 * a * b * kernel[:, i, j] + b * b * kernel[:, j, j])[..., None]
        shrunk = [(k, s, -0.5 * k * k * kernel[:, c, c, None]) for c, (k, s) in enumerate(single)]
        means = [np.exp(e) * s for _, s, e in shrunk]
        tables = [
            np.exp(0.5 * size + e[:, None] - across[:, c, :, None] * k[:, None]) * s[:, None]
            for c, (k, s, e) in enumerate(shrunk)
        ]
        for q, (c, d) in enumerate(zip(self.first, self.second, strict=True)):
            if c == d:
                k, s = square[c]
                exponent = size - (0.5 * k * k * kernel[:, c, c, None])[:, None]
                total = ((np.exp(exponent - across[:, c, :, None] * k[:, None]) - np.exp(exponent)) @ s[..., None])[
                    ..., 0
                ]
            else:
                crossed = np.exp(-(single[c][0][:, :, None] * single[d][0][:, None]) * kernel[:, c, d, None, None])
                joint = np.einsum("rij,rij->ri", tables[c] @ crossed, tables[d])
                apart = ((means[c][:, None] @ crossed)[:, 0] * means[d]).sum(-1, keepdims=True)
                total = self.sign * (joint - np.exp(size[..., 0]) * apart)
            found[:, q] = np.where(self.odd, total.imag, total.real) if np.iscomplexobj(total) else total


def _spread(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """(..., count) zeros with ``values`` (..., I) at the places (I,)."""
    found = np.zeros((*values.shape[:-1], count))
    found[..., places] = values
    return found


_Family = list[tuple[np.ndarray, np.ndarray]]
"""Wave numbers and coefficients for each input."""


def _expanded(
    function: Callable[[np.ndarray], np.ndarray], deviation: float, modes: int, parity: Parity | None
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) wave numbers k and (M,) coefficients of exp(i k x), or of -i exp(i k x) where the function is odd."""
    series = fourier.fit(function, deviation, modes, parity)
    j, c = series.waves()
    c = c if parity is None else c.imag if parity == "odd" else c.real
    kept = np.abs(c) >= NEGLIGIBLE * np.abs(c).max()
    return series.unit * j[kept], c[kept]


def _half(part: _Part) -> _Part:
    """One of each k and -k, whose coefficients are conjugates, without k = 0."""
    kept = (part.first > 0) | ((part.first == 0) & (part.second > 0))
    return _Part(part.first[kept], part.second[kept], part.coefficient[kept])
