"""Line rules for Gaussian integrals, with normalised Hermite polynomials h_k = He_k / sqrt(k!) on their nodes.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

REACH = 12.5
"""Nodes cover |z| <= REACH, where sqrt of the Gaussian weight has fallen below 1e-17."""


_BLOCK = 256
"""Number of Hermite orders that are summed over the nodes at once."""


@dataclass(frozen=True, eq=False)
class LineRule:
    """Nodes z and the table that turns values f(z_j) into Hermite coefficients <f h_k>, z ~ N(0, 1).

    Attributes:
        nodes: (J,), symmetric about 0.
        table: (J, M), weight_j * h_k(nodes_j); column 0 holds the weights, since h_0 = 1.
        functions: (J, M), sqrt(weight_j) * h_k(nodes_j); the columns are orthonormal.
    """

    nodes: np.ndarray
    table: np.ndarray
    functions: np.ndarray

    def coefficients(self, values: np.ndarray) -> np.ndarray:
        """Hermite coefficients <f h_k>, (..., M), of f given by its values at the nodes, (..., J)."""
        found: np.ndarray = values @ self.table
        return found

    def mean(self, values: np.ndarray) -> np.ndarray:
        """<f>, (...), of f given by its values at the nodes, (..., J)."""
        found: np.ndarray = values @ self.table[:, 0]
        return found


def hermite_functions(z: np.ndarray, count: int) -> np.ndarray:
    """(J, count): h_k(z) times the square root of the Gaussian density, by the three-term recursion (eq. 6.6)."""
    psi = np.empty((count, len(z)))
    psi[0] = np.exp(-z * z / 4) / (2 * np.pi) ** 0.25
    if count > 1:
        psi[1] = z * psi[0]
    for k in range(1, count - 1):
        psi[k + 1] = (z * psi[k] - np.sqrt(k) * psi[k - 1]) / np.sqrt(k + 1)
    return psi.T


def high_coefficients(rule: LineRule, values: np.ndarray, count: int, first: int = 0) -> np.ndarray:
    """Coefficients <f h_k>, k = first .. count - 1, shape (M, count - first), from values at the nodes, (M, J).

    The numbers are those of ``rule.coefficients``, but no table of all orders is held in memory. The nodes must be
    dense enough for the highest order (MehlerExpectations.resolving).

    >>> rule = trapezoidal_rule(0.25, 5)
    >>> bool(np.allclose(high_coefficients(rule, rule.nodes[None] ** 2, 5), rule.coefficients(rule.nodes**2)))
    True
    """
    z = rule.nodes
    weighted = (values * rule.functions[:, 0]).T
    found = np.empty((len(values), count - first))
    before, here = np.zeros_like(z), rule.functions[:, 0]
    block = np.empty((_BLOCK, len(z)))
    filled = 0
    for k in range(count):
        if k >= first:
            block[filled] = here
            filled += 1
            if filled == _BLOCK or k == count - 1:
                found[:, k + 1 - filled - first : k + 1 - first] = (block[:filled] @ weighted).T
                filled = 0
        before, here = here, (z * here - np.sqrt(k) * before) / np.sqrt(k + 1)
    return found


@lru_cache(maxsize=32)
def trapezoidal_rule(step: float, count: int) -> LineRule:
    """The truncated trapezoidal rule: error exp(-2 pi d / step) for sigma analytic within d of the real axis (eq. 6.4).

    L. N. Trefethen, SIAM Review 64 (2022) 132: it beats Gauss-Hermite where sigma has poles near the axis.

    >>> rule = trapezoidal_rule(0.25, 5)
    >>> bool(np.allclose(rule.coefficients(rule.nodes**2), [1, 0, np.sqrt(2), 0, 0], atol=1e-14))
    True
    """
    half = int(REACH / step)
    nodes = step * np.arange(-half, half + 1)
    return _rule(nodes, np.full(len(nodes), step), count)


@lru_cache(maxsize=32)
def concentrated_rule(step: float, width: float, count: int) -> LineRule:
    """The trapezoidal rule in u = z + asinh(z / width): nodes crowd towards z = 0, down to the spacing step * width.

    For a sigma whose scale in z, 1 / sqrt(K), is far below 1 (saturated inputs). Poles on the imaginary axis beyond
    i width, such as those of tanh(sqrt(K) z), lie at Im u >= pi / 2, so the error exp(-pi^2 / step) does not depend on
    K, and a width that is too small costs only a few more nodes (eq. 6.23). The nodes are nowhere sparser than those of
    trapezoidal_rule at the same step.

    >>> rule = concentrated_rule(0.25, 1e-3, 5)
    >>> mean = rule.mean(np.tanh(1e3 * rule.nodes) ** 2)
    >>> len(rule.nodes), bool(np.isclose(mean, 1 - 2e-3 / np.sqrt(2 * np.pi)))
    (181, True)
    """
    half = int((REACH + np.arcsinh(REACH / width)) / step)
    u = step * np.arange(1, half + 1)
    z = np.zeros_like(u)
    for _ in range(100):
        # u(z) is concave for z > 0: Newton's method rises to the root from below
        change = (u - z - np.arcsinh(z / width)) / (1 + 1 / np.hypot(width, z))
        z = z + change
        if np.all(np.abs(change) <= 1e-15 * z):
            break
    slope = 1 / (1 + 1 / np.hypot(width, z))
    nodes = np.concatenate([-z[::-1], [0.0], z])
    weights = step * np.concatenate([slope[::-1], [1 / (1 + 1 / width)], slope])
    return _rule(nodes, weights, count)


@lru_cache(maxsize=32)
def panel_rule(panels: int, count: int, points: int = 16) -> LineRule:
    """Gauss-Legendre on equal panels each side of z = 0: for sigma with a kink at the origin (eq. 6.5)."""
    return _panels(REACH / panels, (), count, points)


@lru_cache(maxsize=4)
def broken_rule(panels: int, count: int, breaks: tuple[float, ...], points: int = 16) -> LineRule:
    """panel_rule with panels that also end at +-breaks: for kinks away from the origin, at kink / sqrt(K) (eq. 6.5).

    Short panels get fewer nodes.

    >>> rule = broken_rule(6, 1, (0.5,))
    >>> bool(np.isclose(rule.mean(np.maximum(rule.nodes - 0.5, 0)), 0.19779655740130, atol=1e-14))
    True
    """
    return _panels(REACH / panels, breaks, count, points)


def _panels(longest: float, breaks: tuple[float, ...], count: int, points: int) -> LineRule:
    ends = np.unique([0.0, *(b for b in breaks if 0 < b < REACH), REACH])
    edges = np.concatenate(
        [np.linspace(a, b, int(np.ceil((b - a) / longest - 1e-9)) + 1)[:-1] for a, b in pairwise(ends)]
    )
    widths = np.diff(edges, append=REACH)
    # a panel of width w needs about as many nodes as make (w / longest)^(2 nodes) small
    wanted = np.ceil(points / (1 + 0.5 * np.log2(np.maximum(longest / widths, 1.0)))).astype(int)
    wanted = np.where(widths > 0.99 * longest, points, np.maximum(wanted, 4))
    nodes, weights = [], []
    for left, width, number in zip(edges, widths, wanted, strict=True):
        x, w = _legendre(int(number))
        nodes.append(left + (x + 1) / 2 * width)
        weights.append(w * width / 2)
    right, weight = np.concatenate(nodes), np.concatenate(weights)
    return _rule(np.concatenate([-right[::-1], right]), np.concatenate([weight[::-1], weight]), count)


@lru_cache(maxsize=64)
def _legendre(points: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(points)


@lru_cache(maxsize=8)
def gauss_hermite_nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss-Hermite rule for z ~ N(0, 1) (eq. 6.7)."""
    nodes = eigvalsh_tridiagonal(np.zeros(count), np.sqrt(np.arange(1.0, count)))
    for _ in range(2):
        # Newton's method on h_count, with derivative sqrt(count) h_{count - 1}; Hermite functions, unlike polynomials,
        # do not overflow
        psi = hermite_functions(nodes, count + 1)
        nodes = nodes - psi[:, count] / (np.sqrt(count) * psi[:, count - 1])
    nodes = (nodes - nodes[::-1]) / 2
    psi = hermite_functions(nodes, count)
    return nodes, psi[:, 0] ** 2 / (psi**2).sum(1)


def _rule(nodes: np.ndarray, weights: np.ndarray, count: int) -> LineRule:
    psi = hermite_functions(nodes, max(count, 1))
    table = psi * (weights * psi[:, 0])[:, None]
    functions = psi * np.sqrt(weights)[:, None]
    for array in (nodes, table, functions):
        array.setflags(write=False)
    return LineRule(nodes, table, functions)
