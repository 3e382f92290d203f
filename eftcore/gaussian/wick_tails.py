"""Norms of f_p = sigma(phi_a) sigma(phi_b) and D_q f_p in all Wick orders above m (docs/theory.md, section 4.3).

The basis of Wick powers is orthonormal, so by Parseval's identity the part of <f^2> - <f>^2 that is not in orders up to
m is above m (eq. 4.23). The norms are not extrapolated from the orders themselves, because any number of orders in a
row may be empty. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.wick_series import Components, WickSeries

FLOOR = 1e-14
"""Fraction of <f^2> below which a difference of two such numbers is rounding error."""

TRUSTED = 10.0
"""The orders of D_q f above m are extrapolated from the upper half of those up to m where the variance of f above m is
at most this many times the variance in that half."""


@dataclass(frozen=True, eq=False)
class Tails:
    """Norms in all Wick orders above the last one, m, for a stack of R kernels.

    Attributes:
        products: (R, P) norm of f_p above m.
        share: (R, P) share of the variance of f_p that is above m.
        slopes: (R, P, 3) norm of D_q f_p above m for q = aa, ab, bb; a diagonal pair uses column 0 alone. None where
            sigma has kinks: there D_q f_p may be no function.
        lift: (R, P, 3) where sigma has kinks, else None: upper bound of the norm of order k of D_q f_p over k times
            the norm of order k + 2 of f_p.
    """

    products: np.ndarray
    share: np.ndarray
    slopes: np.ndarray | None
    lift: np.ndarray | None


def tails(engine: MehlerExpectations, kernel: np.ndarray, basis: Components) -> Tails:
    """The norms above the highest order of ``basis``, which must contain every lower order."""
    series = WickSeries(engine, kernel, basis)
    line, products = series.line, series.products()
    square, mean = _mean_square(series, 0, 0), series.mean()
    rest = np.clip(square - mean**2 - (products**2).sum(-1), FLOOR * square, None)
    variance = square - mean**2
    share = np.divide(rest, variance, out=np.zeros_like(rest), where=variance > FLOOR * square)
    if line.by_parts:
        return Tails(np.sqrt(rest), share, None, _lift(series, products, rest))
    total = _slope_squares(series)
    gradient = engine.moments(kernel, 1).gradient
    assert gradient is not None
    left = np.clip(total - gradient**2 - (series.derivatives() ** 2).sum(-1), FLOOR * total, None)
    return Tails(np.sqrt(rest), share, np.sqrt(left), None)


def _mean_square(series: WickSeries, i: int, j: int) -> np.ndarray:
    """(R, P) upper bound of <sigma^(i)(phi_a)^2 sigma^(j)(phi_b)^2>.

    The Mehler series of the squares (eq. 6.1) is truncated; Parseval's identity bounds the terms that it leaves out.
    """
    line, white = series.line, series.white
    left, right = (line.values[k] ** 2 for k in (i, j))
    found = np.empty(white.tied.shape)
    found[white.tied] = line.rule.mean(_tied_product(series, i, j) ** 2)
    if not white.tied.all():
        one, two = (line.rule.coefficients(g)[:, : line.terms] for g in (left, right))
        over = [
            np.sqrt(np.clip(line.rule.mean(g**2) - (c**2).sum(-1), 0.0, None)) for g, c in ((left, one), (right, two))
        ]
        rho = np.where(white.tied, 0.0, white.rho)
        powers = rho[..., None] ** np.arange(line.terms)
        loose = np.einsum("rpk,rpk,rpk->rp", one[series.a], two[series.b], powers)
        loose += np.abs(rho) ** line.terms * over[0][series.a] * over[1][series.b]
        found = np.where(white.tied, found, loose)
    return found


def _tied_product(series: WickSeries, i: int, j: int) -> np.ndarray:
    """(T, J) sigma^(i)(phi_a) sigma^(j)(phi_b) on the nodes of the rule, for the T pairs with one variable."""
    tied = series.white.tied
    right = series.line.values[j][series.b[tied]]
    right = np.where(series.white.rho[tied][:, None] > 0, right, right[:, ::-1])
    product: np.ndarray = series.line.values[i][series.a[tied]] * right
    return product


def _slope_squares(series: WickSeries) -> np.ndarray:
    """(R, P, 3) <(D_q f_p)^2> for q = aa, ab, bb (eq. 1.12); a diagonal pair uses column 0 alone."""
    tied, rule = series.white.tied, series.line.rule
    parts = ((0.25, 2, 0), (1.0, 1, 1), (0.25, 0, 2))
    found = np.stack([factor * _mean_square(series, i, j) for factor, i, j in parts], axis=-1)
    own = np.broadcast_to(series.first == series.second, tied.shape)
    whole = sum(np.sqrt(factor) * _tied_product(series, i, j) for factor, i, j in parts)
    found[own, 1:] = 0.0
    found[own, 0] = rule.mean(whole**2)[own[tied]]
    return found


def _lift(series: WickSeries, products: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(R, P, 3) the bound ``Tails.lift`` for a sigma with kinks.

    With g_a, g_b the columns of C^-1, |D_ab f|_k <= |g_a| |g_b| sqrt((k + 1)(k + 2)) |f|_{k+2}. This is far too large
    where the derivative is along the kink of f_p, across which alone its singular part varies. So where the upper half
    of the computed orders holds enough of f_p, the ratio of the norms there, which falls with k, is used if smaller.
    """
    white, line, basis = series.white, series.line, series.basis
    tied, own = white.tied, np.broadcast_to(series.first == series.second, white.tied.shape)
    a, b = np.hypot(white.inverse[..., 0, 0], white.inverse[..., 1, 0]), np.abs(white.inverse[..., 1, 1])
    found = np.stack([a * a / 2, a * b, b * b / 2], axis=-1)
    found[tied] = 0.0
    variance = line.deviation[series.a] ** 2
    whole = np.divide(0.5, variance, out=np.zeros_like(variance), where=variance > 0)
    found[own, 0] = whole[own]
    duplicate = tied & ~own & (series.a == series.b) & (white.rho > 0)
    found[duplicate, 1] = whole[duplicate]
    top, order = basis.orders[-1], basis.first + basis.second
    found *= np.sqrt((top + 2) * (top + 3)) / (top + 1)
    upper = order > top // 2
    derivatives = series.derivatives()
    slopes = (derivatives**2 * (upper & (order <= top - 2))).sum(-1)
    held = (products**2 * np.where(order > top // 2 + 2, (order - 2.0) ** 2, 0.0)).sum(-1)[..., None]
    shown = (rest <= TRUSTED * (products**2 * upper).sum(-1))[..., None] & (held > 0)
    ratio = np.sqrt(np.divide(slopes, held, out=np.zeros_like(slopes), where=held > 0))
    return np.where(shown, np.minimum(ratio, found), found)
