"""Wick expansion of f_p = sigma(phi_a) sigma(phi_b), and covariances of Wick powers (docs/theory.md, section 4.3).

Each pair p = (a, b) has its own orthonormal variables: phi_a = C_11 z_1, phi_b = C_21 z_1 + C_22 z_2 with C the
Cholesky factor of the pair's 2 x 2 kernel. The basis h_i(z_1) h_j(z_2) is orthonormal, so coefficients are bounded
(Parseval) and covariances between pairs are contractions: high orders and strong correlations lose no digits. With
s_l = <sigma(phi_b) h_l(x_b)>, x_b = phi_b / sqrt(K_bb) = rho z_1 + w z_2, w = sqrt(1 - rho^2),

    <f_p h_i(z_1) h_j(z_2)> = sum_r <sigma(phi_a) h_i h_r> rho^r w^j sqrt(C(r+j, j)) s_{r+j} (eq. 4.12).

Components are flattened over (order k, power i of z_1), j = k - i.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from eftcore.gaussian.hermite import high_coefficients
from eftcore.gaussian.mehler import LineMoments, MehlerExpectations
from eftcore.gaussian.pair_moments import correlations
from eftcore.gaussian.wick_algebra import Substitution, Turn, largest_correlation, to_circular
from eftcore.pairs import pair_indices

NEGLIGIBLE = 1e-16
"""Contributions below this fraction of the largest variance are left out."""

HOMOGENEOUS = 1e-14
"""Relative rounding error of sigma(c x) = c sigma(x)."""

_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class Components:
    """Which products h_i(z_1) h_j(z_2) are kept.

    Attributes:
        orders: total orders k = i + j, increasing.
        first: (I,) i of each component.
        second: (I,) j of each component.
        single: whether there is only one input, so that each order has the one component h_k(z_1).
    """

    orders: tuple[int, ...]
    first: np.ndarray
    second: np.ndarray
    single: bool

    def where(self, order: int) -> slice:
        """Positions of the components of one order, by increasing i."""
        found = np.flatnonzero(self.first + self.second == order)
        return slice(int(found[0]), int(found[-1]) + 1)

    def position(self, i: int, j: int) -> int:
        """Position of h_i(z_1) h_j(z_2)."""
        return int(np.flatnonzero((self.first == i) & (self.second == j))[0])


def components(order: int, *, even_only: bool, above: int = 0, single: bool = False) -> Components:
    """The components of orders above + 1 .. order; only even orders where sigma is odd or even, since f_p is even.

    >>> components(4, even_only=True).orders
    (2, 4)
    """
    orders = tuple(k for k in range(above + 1, order + 1) if not (even_only and k % 2))
    i = np.concatenate([np.array([k]) if single else np.arange(k + 1) for k in orders])
    j = np.concatenate([np.array([0]) if single else k - np.arange(k + 1) for k in orders])
    return Components(orders, i, j, single)


class Whitening:
    """Orthonormal variables of each pair, for a stack of kernels (eq. 4.10).

    Attributes:
        factor: (R, P, 2, 2) lower-triangular C; a diagonal or proportional pair has C_22 = 0 and one variable.
        inverse: (R, P, 2, 2) C^-1, with 0 for a variable that does not fluctuate.
        tied: (R, P) whether the pair has only one variable: a = b, or proportional inputs.
        rho: (R, P) correlation of the pair's inputs.
    """

    def __init__(self, kernel: np.ndarray) -> None:
        first, second = pair_indices(kernel.shape[-1])
        self.rho = np.where(first == second, 1.0, correlations(kernel, first, second))
        self.tied = np.abs(self.rho) == 1
        root = np.sqrt(np.diagonal(kernel, axis1=-2, axis2=-1))
        a, b = root[..., first], root[..., second]
        rest = np.where(self.tied, 0.0, np.sqrt((1 - self.rho) * (1 + self.rho)))
        zero = np.zeros_like(a)
        self.factor = _matrix(a, zero, self.rho * b, rest * b)
        over_a = np.divide(1.0, a, out=np.zeros_like(a), where=a > 0)
        own = rest * b
        over_b = np.divide(1.0, own, out=np.zeros_like(own), where=own > 0)
        self.inverse = _matrix(over_a, zero, -self.rho * b * over_a * over_b, over_b)


def _matrix(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.stack([a, b, c, d], axis=-1).reshape(*a.shape, 2, 2)


class WickSeries:
    """Coefficients of f_p and of D_q f_p for a stack of kernels, at one resolution (eq. 4.11)."""

    def __init__(self, engine: MehlerExpectations, kernel: np.ndarray, basis: Components) -> None:
        self.basis = basis
        self.white = Whitening(kernel)
        self.first, self.second = pair_indices(kernel.shape[-1])
        self.top = basis.orders[-1] + 2
        self.bottom = basis.orders[0] if basis.single else 0
        self.terms = engine.terms
        # one input needs no table of all orders at once, and no table of two variables
        engine = engine.resolving(self.top) if basis.single else replace(engine, extra=self.top)
        self.line = LineMoments(engine, kernel, 2)
        self.a, self.b = self.line.where[:, self.first], self.line.where[:, self.second]
        self.table = self._all_coefficients()

    def products(self) -> np.ndarray:
        """(R, P, I) Wick coefficients of f_p, without that of order 0."""
        return self.table[..., self.basis.first - self.bottom, self.basis.second]

    def mean(self) -> np.ndarray:
        """(R, P) <f_p>."""
        if self.basis.single:
            return self.line.square(0)
        return self.table[..., 0, 0]

    def derivatives(self) -> np.ndarray:
        """(R, P, 3, I) coefficients of D_q f_p for q = aa, ab, bb of p; a diagonal pair uses column 0 alone.

        Derivatives in z shift indices, <d_z1 f h_i h_j> = sqrt(i + 1) <f h_{i+1} h_j>, and grad_phi = C^-T grad_z: no
        derivative of sigma is needed, and kinks do no harm (eq. 4.13).
        """
        i, j = self.basis.first, self.basis.second
        if self.basis.single:
            found = np.zeros((len(self.a), 1, 3, len(i)))
            found[:, :, 0] = self._single_derivatives()[:, None]
            return found
        zz = [
            self.table[..., i + 2, j] * np.sqrt((i + 1) * (i + 2)),
            self.table[..., i + 1, j + 1] * np.sqrt((i + 1) * (j + 1)),
            self.table[..., i, j + 2] * np.sqrt((j + 1) * (j + 2)),
        ]
        inverse = self.white.inverse[..., None]
        # d_a = A d_1 + B d_2 and d_b = D d_2
        a, b, d = inverse[..., 0, 0, :], inverse[..., 1, 0, :], inverse[..., 1, 1, :]
        found = np.stack(
            [
                0.5 * (a * a * zz[0] + 2 * a * b * zz[1] + b * b * zz[2]),
                d * (a * zz[1] + b * zz[2]),
                0.5 * d * d * zz[2],
            ],
            axis=2,
        )
        found[self.white.tied] = self._tied_derivatives()
        return found

    def _all_coefficients(self) -> np.ndarray:
        """(R, P, m+3, m+3) <f_p h_i(z_1) h_j(z_2)>; with one input (R, 1, ..., 1), i from the lowest order on."""
        count, terms = self.top + 1, self.terms
        if self.basis.single:
            return self._project_single(self.line.values[0] ** 2)[:, None, :, None]
        loose = ~self.white.tied
        table = np.zeros((*loose.shape, count, count))
        table[~loose, :, 0] = self._project_tied(0, 0, count)
        if not loose.any():
            return table
        a, b, rho = self.a[loose], self.b[loose], self.white.rho[loose]
        s = self.line.coefficients(0)
        j, r = np.arange(count)[:, None], np.arange(terms)[None, :]
        right = s[:, j + r] * _roots_of_binomials(count, terms)
        across = self._left(a, count) * (rho[:, None] ** np.arange(terms))[:, None, :]
        rest = np.sqrt((1 - rho) * (1 + rho))[:, None] ** np.arange(count)
        table[loose] = np.matmul(across, np.swapaxes(right[b], -1, -2)) * rest[:, None, :]
        return table

    def _left(self, which: np.ndarray, count: int) -> np.ndarray:
        """(M, count, terms) <sigma(phi) h_i(x) h_r(x)> at M of the distinct variances, x = phi / sqrt(K).

        For sigma(c x) = c sigma(x), c > 0, such as ReLU, one of them gives all.
        """
        functions, deviation = self.line.rule.functions, self.line.deviation
        needed, place = np.unique(which, return_inverse=True)
        sigma = self.line.values[0][needed]
        scale = deviation[needed] / max(deviation[needed[-1]], 1e-300)
        scaled = scale[:, None] * sigma[-1]
        homogeneous = bool((np.abs(sigma - scaled) <= HOMOGENEOUS * np.abs(scaled)).all())
        shown = sigma[-1:] if homogeneous else sigma
        found: np.ndarray = np.matmul(functions[:, :count].T * shown[:, None, :], functions[:, : self.terms])
        found = found * scale[place][:, None, None] if homogeneous else found[place]
        return found

    def _project_tied(self, i: int, j: int, count: int) -> np.ndarray:
        """(T, count) <sigma^(i)(phi_a) sigma^(j)(phi_b) h_k(z_1)> for the T pairs with one variable.

        There phi_b = +- sqrt(K_bb / K_aa) phi_a.
        """
        tied = self.white.tied
        a, b, sign = self.a[tied], self.b[tied], self.white.rho[tied]
        right = self.line.values[j][b]
        right = np.where(sign[:, None] > 0, right, right[:, ::-1])
        found: np.ndarray = (self.line.values[i][a] * right) @ self.line.rule.table[:, :count]
        return found

    def _project_single(self, values: np.ndarray) -> np.ndarray:
        """(R, top + 1 - bottom) Hermite coefficients for one input, from values (U, J) at every distinct variance."""
        return high_coefficients(self.line.rule, values, self.top + 1, self.bottom)[self.a[:, 0]]

    def _single_derivatives(self) -> np.ndarray:
        """(R, I) Hermite coefficients of D_aa f_aa = (1/2) d^2/dphi^2 sigma(phi)^2, for one input."""
        k = np.array(self.basis.orders)
        if self.line.by_parts:
            shifted = self.table[:, 0, k + 2 - self.bottom, 0] * np.sqrt((k + 1) * (k + 2)) / 2
            variance = self.line.deviation[self.a] ** 2
            found: np.ndarray = np.divide(shifted, variance, out=np.zeros_like(shifted), where=variance > 0)
            return found
        sigma, slope, curvature = self.line.values[:3]
        return self._project_single(slope**2 + sigma * curvature)[:, k - self.bottom]

    def _tied_derivatives(self) -> np.ndarray:
        """(T, 3, I) coefficients of D_q f_p for the T pairs with one variable, from the derivatives of sigma.

        For a sigma with kinks the derivative of sigma^2 as a whole is used. It stands in column aa for a diagonal pair
        and in column ab for two equal inputs.
        """
        tied = self.white.tied
        own = np.broadcast_to(self.first == self.second, tied.shape)[tied]
        alone, orders = self.basis.second == 0, list(self.basis.orders)
        found = np.zeros((len(own), 3, len(alone)))
        count = self.top + 1
        if self.line.by_parts:
            k = np.arange(count - 2)
            variance = self.line.deviation[self.a[tied]][:, None] ** 2
            shifted = self._project_tied(0, 0, count)[:, 2:] * np.sqrt((k + 1) * (k + 2)) / 2
            whole = np.divide(shifted, variance, out=np.zeros_like(shifted), where=variance > 0)[:, orders]
            duplicate = ~own & (self.a[tied] == self.b[tied]) & (self.white.rho[tied] > 0)
            found[:, 0, alone] = np.where(own[:, None], whole, 0.0)
            found[:, 1, alone] = np.where(duplicate[:, None], whole, 0.0)
            return found
        parts = [f * self._project_tied(i, j, count)[:, orders] for f, i, j in ((0.5, 2, 0), (1, 1, 1), (0.5, 0, 2))]
        for column, part in enumerate(parts):
            found[:, column, alone] = np.where(own[:, None], 0.0, part)
        found[:, 0, alone] += np.where(own[:, None], sum(parts), 0.0)
        return found


@lru_cache(maxsize=8)
def _roots_of_binomials(count: int, terms: int) -> np.ndarray:
    """(count, terms) sqrt(C(r + j, j)) for j < count and r < terms."""
    j, r = np.arange(count)[:, None], np.arange(terms)[None, :]
    roots: np.ndarray = np.exp(0.5 * (gammaln(r + j + 1) - gammaln(r + 1) - gammaln(j + 1)))
    roots.setflags(write=False)
    return roots


def contract(series: np.ndarray, kernel: np.ndarray, white: Whitening, basis: Components) -> np.ndarray:
    """(R, P, P, I) Cov(f_q, h_i(z_1) h_j(z_2) of pair p) (eq. 4.14), from coefficients ``series`` (R, P, I) of f_q.

    Contracting each factor of f_q with a variable of p is the substitution z_q -> M z_p, where the 2 x 2 matrix M holds
    the correlations between the variables of q and of p.
    """
    rows, pairs, size = series.shape
    if basis.single:
        return series[:, :, None].copy()
    top = basis.orders[-1]
    flat = series.reshape(rows * pairs, size)
    parts = {k: to_circular(k, flat[:, basis.where(k)]) for k in basis.orders}
    result = np.empty((rows * pairs * pairs, size))
    for chunk in _chunks(len(result), top):
        row, left, right = np.unravel_index(np.arange(chunk.start, chunk.stop), (rows, pairs, pairs))
        change = Substitution(_cross(kernel, white, row, left, right), top)
        turn = Turn(change.angle, top)
        source = row * pairs + left
        for k, (real, imaginary) in parts.items():
            scaled = change.scaled(k, (real[source], imaginary[source]))
            result[chunk, basis.where(k)] = turn.powers(k, to_circular(k, scaled))
    return result.reshape(rows, pairs, pairs, size)


def covariances(
    series: np.ndarray, kernel: np.ndarray, white: Whitening, basis: Components, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """(R, M) Cov(f_q, f_p) for listed pairs q = ``left``, p = ``right``, (M,) or (R, M) each.

    With s the largest canonical correlation between the variables of q and p, orders k and above contribute at most
    s^k times the norms of f_q and f_p in these orders; the sum for each covariance ends where this is below NEGLIGIBLE.
    """
    rows = len(series)
    left, right = (np.broadcast_to(index, (rows, index.shape[-1])) for index in (left, right))
    orders, top = np.array(basis.orders), basis.orders[-1]
    size = np.stack([(series[..., basis.where(k)] ** 2).sum(-1) for k in basis.orders], axis=-1)
    rest = np.sqrt(np.cumsum(size[..., ::-1], axis=-1)[..., ::-1])
    result = np.zeros(left.shape)
    for row in range(rows):
        parts = {k: to_circular(k, series[row][:, basis.where(k)]) for k in basis.orders}
        floor = NEGLIGIBLE * float((rest[row, :, 0] ** 2).max())
        for chunk in _chunks(left.shape[1], top):
            q, p = left[row, chunk], right[row, chunk]
            change = _cross(kernel, white, np.full(len(q), row), q, p)
            bound = largest_correlation(change)[:, None] ** orders * rest[row, q] * rest[row, p]
            needed = (bound > floor).sum(1)
            by_need = np.argsort(-needed)
            q, p, needed = q[by_need], p[by_need], needed[by_need]
            substitution = Substitution(change[by_need], top)
            turn = Turn(-substitution.angle, top)
            total = np.zeros(len(q))
            for index, k in enumerate(basis.orders):
                count = int(np.searchsorted(-needed, -index))
                if count == 0:
                    break
                real, imaginary = parts[k]
                scaled = substitution.scaled(k, (real[q[:count]], imaginary[q[:count]]))
                turned = turn.powers(k, (real[p[:count]], imaginary[p[:count]]))
                total[:count] += np.einsum("mi,mi->m", scaled, turned)
            result[row, chunk][by_need] = total
    return result


def cross_correlations(kernel: np.ndarray, white: Whitening, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(R, M, 2, 2) correlations between the variables of pairs ``left`` and ``right``, (M,) each."""
    rows = len(kernel)
    row = np.repeat(np.arange(rows), len(left))
    found = _cross(kernel, white, row, np.tile(left, rows), np.tile(right, rows))
    return found.reshape(rows, len(left), 2, 2)


def _cross(kernel: np.ndarray, white: Whitening, row: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    inputs = np.stack(pair_indices(kernel.shape[-1]), axis=-1)
    raw = kernel[row[:, None, None], inputs[left][:, :, None], inputs[right][:, None, :]]
    correlations: np.ndarray = white.inverse[row, left] @ raw @ np.swapaxes(white.inverse[row, right], -1, -2)
    return correlations


def _chunks(total: int, order: int) -> Iterator[slice]:
    size = max(64, _CHUNK // (order + 1))
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
