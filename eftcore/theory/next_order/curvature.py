"""How S responds to the fluctuations of what a normalisation takes out, beyond linear order (docs/theory.md, 11.4).

Behind a normalisation S_p is a mean over neurons of f_p(phi; v), where v are the deviations of the G_aa that phi_a is
divided by and, for layer normalisation, of the means mu_a that are subtracted. In powers of v, the deviation of Q is

    g = sum_beta v^beta / beta! (lines_beta x + constants_beta),   lines_beta x: fluctuation of the mean of d^beta f_p,

a polynomial in the deviations x of the means of functions, of which v are some (eq. 11.19). In units of sqrt(K_aa),

    f(z; mu, g) = exp(-mu d) (1 + g - mu^2)^(-E/2) f(z),   d = d/dz,  E = z d,

and d and E act on Hermite coefficients. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import comb, factorial

import numpy as np

from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.pairs import pair_indices

DEGREE = 4
"""Highest power of deviations that D and K2 need."""

SHIFTS = 2 * DEGREE
"""By how many orders the operators of degree DEGREE reach beyond a coefficient."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """Terms of g beyond its linear part, for V deviations v, P pairs and M functions.

    Attributes:
        taken: (V, M) v = ``taken @ x``.
        lines: (V, P, M), (V, V, P, M) and (V, V, V, P, M): of first to third order in v.
        constants: (V, V, P) to (V, V, V, V, P): of second to fourth order in v.
    """

    taken: np.ndarray
    lines: tuple[np.ndarray, np.ndarray, np.ndarray]
    constants: tuple[np.ndarray, np.ndarray, np.ndarray]

    def second(self) -> np.ndarray:
        """(P, M, M) the second derivative of g by x."""
        w = self.taken
        half = np.einsum("vi,vpj->pij", w, self.lines[0])
        found: np.ndarray = half + half.transpose(0, 2, 1) + np.einsum("vwp,vi,wj->pij", self.constants[0], w, w)
        return found

    def third(self, C: np.ndarray) -> np.ndarray:
        """(P, M) the third derivative contracted with a covariance C (M, M) of x."""
        w, lines = self.taken, self.lines[1]
        own = w @ C @ w.T
        with_lines = np.einsum("vi,ij,vwpj->wp", w, C, lines, optimize=True)
        found: np.ndarray = np.einsum("vw,vwpj->pj", own, lines) + 2 * np.einsum("wp,wj->pj", with_lines, w)
        found += np.einsum("uvwp,uv,wj->pj", self.constants[1], own, w)
        return found

    def third_of(self, T: np.ndarray) -> np.ndarray:
        """(P,) the third derivative contracted with third cumulants T (M, M, M) of x."""
        w = self.taken
        once = np.einsum("ui,vj,ijk->uvk", w, w, T, optimize=True)
        found: np.ndarray = 3 * np.einsum("uvk,uvpk->p", once, self.lines[1])
        found += np.einsum("uvk,wk,uvwp->p", once, w, self.constants[1], optimize=True)
        return found

    def fourth(self, C: np.ndarray) -> np.ndarray:
        """(P,) the fourth derivative contracted with C twice."""
        w = self.taken
        own = w @ C @ w.T
        found: np.ndarray = 4 * np.einsum("uv,wi,ij,uvwpj->p", own, w, C, self.lines[2], optimize=True)
        found += np.einsum("tu,vw,tuvwp->p", own, own, self.constants[2], optimize=True)
        return found


@dataclass(frozen=True, eq=False)
class Operated:
    """Hermite coefficients of d^i/dmu^i d^j/dg^j of a function of one input, at mu = g = 0, in units of sqrt(K).

    Attributes:
        table: by (i, j), the coefficients (..., K - SHIFTS) from those (..., K) of the function itself.
    """

    table: dict[tuple[int, int], np.ndarray]

    @classmethod
    def of(cls, coefficients: np.ndarray, *, layered: bool) -> Operated:
        """The derivatives up to DEGREE; without those by mu unless ``layered``."""
        count = coefficients.shape[-1] - SHIFTS
        stretched = [coefficients]
        for _ in range(DEGREE):
            stretched.append(_stretch(stretched[-1]))
        powers = [np.tensordot(row, np.stack(stretched[: len(row)]), 1) for row in _binomials()]
        found = {}
        for i, j in itertools.product(range(DEGREE + 1 if layered else 1), range(DEGREE + 1)):
            if i + j > DEGREE:
                continue
            total = np.zeros_like(coefficients)
            for r in range(i // 2 + 1):
                moved = powers[j + r]
                for _ in range(i - 2 * r):
                    moved = -_differentiate(moved)
                total = total + moved * ((-1) ** r * comb(j + r, r) / factorial(i - 2 * r))
            found[i, j] = total[..., :count] * (factorial(i) * factorial(j))
        return cls(found)


def _differentiate(c: np.ndarray) -> np.ndarray:
    """Coefficients of d f; the last one is unknown and set to 0."""
    k = np.arange(c.shape[-1] - 1)
    found = np.zeros_like(c)
    found[..., :-1] = np.sqrt(k + 1) * c[..., 1:]
    return found


def _stretch(c: np.ndarray) -> np.ndarray:
    """Coefficients of E f; the last two are unknown and wrong."""
    k = np.arange(c.shape[-1])
    found: np.ndarray = k * c
    found[..., :-2] += np.sqrt((k[:-2] + 1) * (k[:-2] + 2)) * c[..., 2:]
    return found


@cache
def _binomials() -> list[list[float]]:
    """Coefficients in powers of E of the binomial (-E/2 over m), m = 0 .. DEGREE."""
    rows = [np.array([1.0])]
    for m in range(1, DEGREE + 1):
        # times (-E/2 - (m - 1)) / m
        before = rows[-1]
        rows.append((np.append(0.0, -0.5 * before) - (m - 1) * np.append(before, 0.0)) / m)
    return [row.tolist() for row in rows]


class NormalisedMeans:
    """Gaussian means of derivatives of f_p by phi and by what the normalisation takes out, at one mean kernel.

    Args:
        engine: does the integrals; its ``extra`` must be at least ``highest`` + SHIFTS.
        kernel: (N, N) K0.
        correlation: (N, N) its correlations.
        highest: the highest derivative by phi_a or phi_b.
        layered: whether means are subtracted.

    Attributes:
        inputs: N.
    """

    def __init__(
        self, engine: MehlerExpectations, kernel: np.ndarray, correlation: np.ndarray, highest: int, *, layered: bool
    ) -> None:
        self.inputs = len(kernel)
        self._root = np.sqrt(np.diag(kernel))
        self._correlation, self._highest, self._terms = correlation, highest, engine.terms
        rule = engine.rule_at(np.ones(1))
        sigma = np.asarray(engine.activation.function(rule.nodes), dtype=float)
        table = rule.table[:, : engine.terms + highest + SHIFTS + 1]
        self._cross = {key: self._lowered(c) for key, c in Operated.of(sigma @ table, layered=layered).table.items()}
        self._square = Operated.of(sigma**2 @ table, layered=layered).table

    def _lowered(self, c: np.ndarray) -> np.ndarray:
        """(highest + 1, terms) Hermite coefficients of the derivatives of a function by z."""
        found = np.empty((self._highest + 1, self._terms))
        for i in range(self._highest + 1):
            found[i] = c[: self._terms]
            c = _differentiate(c)
        return found

    def of_pair(self, a: int, b: int, by_a: tuple[int, int], by_b: tuple[int, int]) -> np.ndarray:
        """(highest + 1, highest + 1) < d_a^i d_b^j d^beta f_ab >, beta = (by mu, by g) of a and of b.

        For (a, a): < d^i d^beta sigma^2 > at j = 0, with beta = ``by_a``.
        """
        i = np.arange(self._highest + 1)
        if a == b:
            found = np.zeros((len(i), len(i)))
            found[:, 0] = self._square[by_a][: len(i)] * _root_factorials(self._highest)
            found /= self._root[a] ** (i[:, None] + by_a[0] + 2 * by_a[1])
            return found
        rho = self._correlation[a, b] ** np.arange(self._terms)
        value: np.ndarray = (self._cross[by_a] * rho) @ self._cross[by_b].T
        value /= self._root[a] ** (i[:, None] + by_a[0] + 2 * by_a[1]) * self._root[b] ** (i + by_b[0] + 2 * by_b[1])
        return value


@cache
def _root_factorials(highest: int) -> np.ndarray:
    found: np.ndarray = np.sqrt(np.array([float(factorial(k)) for k in range(highest + 1)]))
    return found


def variables(inputs: int, *, layered: bool) -> list[tuple[int, int]]:
    """(input, kind) of the V deviations v: kind 1 for G_aa, and 0 for mu_a."""
    return [(a, kind) for kind in ((1, 0) if layered else (1,)) for a in range(inputs)]


def by_order(chosen: Sequence[tuple[int, int]], a: int) -> tuple[int, int]:
    """How often mu_a and G_aa are among the chosen variables.

    >>> by_order([(0, 1), (1, 0), (0, 1)], 0)
    (0, 2)
    """
    return sum(v == (a, 0) for v in chosen), sum(v == (a, 1) for v in chosen)


def expand(
    means: NormalisedMeans,
    kinds: list[tuple[int, int]],
    taken: np.ndarray,
    powers: tuple[np.ndarray, np.ndarray, np.ndarray],
    weight_variance: float,
) -> tuple[np.ndarray, Curvature]:
    """The linear part (P, M) of g, and its ``Curvature``.

    Args:
        means: the Gaussian means.
        kinds: V variables, as ``variables`` gives them.
        taken: (V, M) their deviations.
        powers: (P, M) each: powers of the first and of the second input of a pair in a function, and by what the means
            of the derivatives of these orders are multiplied.
        weight_variance: C_W.
    """
    own, other, weight = powers
    count, pairs = len(kinds), list(zip(*pair_indices(means.inputs), strict=True))
    size = weight.shape[1]
    lines = [np.zeros((*[count] * k, len(pairs), size)) for k in range(DEGREE)]
    constants = [np.zeros((*[count] * k, len(pairs))) for k in range(DEGREE + 1)]
    for k in range(DEGREE + 1):
        for places in itertools.combinations_with_replacement(range(count), k):
            chosen = [kinds[place] for place in places]
            for p, (a, b) in enumerate(pairs):
                if any(input_ not in (a, b) for input_, _ in chosen):
                    continue
                found = means.of_pair(a, b, by_order(chosen, a), by_order(chosen, b))
                for order in set(itertools.permutations(places)):
                    constants[k][(*order, p)] = weight_variance * found[0, 0]
                    if k < DEGREE:
                        lines[k][(*order, p)] = weight[p] * found[own[p], other[p]]
    linear = lines[0] + np.einsum("vp,vm->pm", constants[1], taken)
    return linear, Curvature(taken, (lines[1], lines[2], lines[3]), (constants[2], constants[3], constants[4]))
