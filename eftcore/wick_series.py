"""Wick expansion of f_p = sigma(phi_a) sigma(phi_b), and covariances of Wick powers (docs/theory.md, section 4.3).

Each pair p = (a, b) has its own orthonormal variables: phi_a = C_11 z_1, phi_b = C_21 z_1 + C_22 z_2 with C the
Cholesky factor of the pair's 2 x 2 kernel. The basis h_i(z_1) h_j(z_2) is orthonormal, so coefficients are bounded
(Parseval) and covariances between pairs are contractions: high orders and strong correlations lose no digits. With
s_l = <sigma(phi_b) h_l(x_b)>, x_b = phi_b / sqrt(K_bb) = rho z_1 + w z_2, w = sqrt(1 - rho^2),

    <f_p h_i(z_1) h_j(z_2)> = sum_r <sigma(phi_a) h_i h_r> rho^r w^j sqrt(C(r+j, j)) s_{r+j} (eq. 4.12).

Components are flattened over (order k, power i of z_1), j = k - i.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln

from eftcore.expectations import LineMoments, MehlerExpectations, correlations
from eftcore.pairs import pair_indices


@dataclass(frozen=True, eq=False)
class Components:
    """Which products h_i(z_1) h_j(z_2) are kept.

    Attributes:
        orders: total orders k = i + j, increasing.
        first: (I,) i of each component.
        second: (I,) j of each component.
        single: one input only, where h_k(z_1) is all there is.
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
    """Orders above + 1 .. order; the even ones alone where sigma is odd or even, since then f_p is even.

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
        tied: (R, P) pairs with one variable.
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
        self.terms = engine.terms
        self.line = LineMoments(replace(engine, extra=self.top), kernel, 2)
        self.a, self.b = self.line.where[:, self.first], self.line.where[:, self.second]
        self.table = self._all_coefficients()

    def products(self) -> np.ndarray:
        """(R, P, I) coefficients of f_p, the constant left out."""
        return self.table[..., self.basis.first, self.basis.second]

    def derivatives(self) -> np.ndarray:
        """(R, P, 3, I) coefficients of D_q f_p for q = aa, ab, bb of p; a diagonal pair uses column 0 alone.

        Derivatives in z shift indices, <d_z1 f h_i h_j> = sqrt(i + 1) <f h_{i+1} h_j>, and grad_phi = C^-T grad_z: no
        derivative of sigma is needed, and kinks do no harm (eq. 4.13).
        """
        i, j = self.basis.first, self.basis.second
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
        """(R, P, m+3, m+3) <f_p h_i(z_1) h_j(z_2)>."""
        count, terms = self.top + 1, self.terms
        functions = self.line.rule.functions
        sigma = self.line.values[0]
        left = np.matmul((functions[:, :count].T * sigma[:, None, :]), functions[:, :terms])
        s = self.line.coefficients(0)
        j, r = np.arange(count)[:, None], np.arange(terms)[None, :]
        right = s[:, j + r] * np.exp(0.5 * (gammaln(r + j + 1) - gammaln(r + 1) - gammaln(j + 1)))
        rho = np.where(self.white.tied, 0.0, self.white.rho)
        across = rho[..., None] ** np.arange(terms)
        rest = np.sqrt((1 - rho) * (1 + rho))[..., None] ** np.arange(count)
        table = np.matmul(left[self.a] * across[..., None, :], np.swapaxes(right[self.b], -1, -2)) * rest[..., None, :]
        table[self.white.tied] = 0.0
        table[self.white.tied, :, 0] = self._project_tied(0, 0, count)
        return table

    def _project_tied(self, i: int, j: int, count: int) -> np.ndarray:
        """(T, count) <sigma^(i)(phi_a) sigma^(j)(phi_b) h_k(z_1)> where phi_b = +- sqrt(K_bb / K_aa) phi_a."""
        tied = self.white.tied
        a, b, sign = self.a[tied], self.b[tied], self.white.rho[tied]
        right = self.line.values[j][b]
        right = np.where(sign[:, None] > 0, right, right[:, ::-1])
        return (self.line.values[i][a] * right) @ self.line.rule.table[:, :count]

    def _tied_derivatives(self) -> np.ndarray:
        """(T, 3, I): with one variable, derivatives across it come from sigma's own.

        For a sigma with kinks the whole derivative of sigma^2 is used; a diagonal pair reads it at aa, a duplicated
        input at ab.
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


def contract(series: np.ndarray, kernel: np.ndarray, white: Whitening, basis: Components) -> np.ndarray:
    """(R, P, P, I): Cov( f_q, h_i(z_1) h_j(z_2) of pair p ) (eq. 4.14), f_q given by ``series`` (R, P, I).

    Order by order f_q is a homogeneous polynomial in its two variables; contracting each factor with a variable of p is
    the substitution z_q -> R z_p with the 2 x 2 correlations R between their variables, done by Horner's rule.
    """
    first, second = pair_indices(kernel.shape[-1])
    inputs = np.stack([first, second], axis=-1)
    raw = kernel[:, inputs[:, None, :, None], inputs[None, :, None, :]]
    cross = white.inverse[:, :, None] @ raw @ np.swapaxes(white.inverse, -1, -2)[:, None]
    ac, ad, bc, bd = np.ascontiguousarray(np.moveaxis(cross.reshape(*cross.shape[:-2], 4), -1, 0))
    result = np.empty((*ac.shape, series.shape[-1]))
    for k in basis.orders:
        where = basis.where(k)
        if basis.single:
            result[..., where] = series[..., where][:, :, None]
            continue
        i = np.arange(k + 1)
        norm = np.exp(0.5 * (gammaln(i + 1) + gammaln(k - i + 1)))
        coefficients = np.moveaxis(series[..., where] / norm, -1, 0)[..., None]
        total = np.zeros((k + 1, *ac.shape))
        power = np.zeros((k + 1, *ac.shape))
        total[0] = coefficients[k]
        power[0] = 1.0
        for degree, lower in enumerate(range(k - 1, -1, -1)):
            total = _times_linear(total, degree, ac, ad)
            power = _times_linear(power, degree, bc, bd)
            total[: degree + 2] += coefficients[lower] * power[: degree + 2]
        result[..., where] = np.moveaxis(total, 0, -1) * norm
    return result


def _times_linear(polynomial: np.ndarray, degree: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A homogeneous polynomial of this degree (coefficients over powers of X) times x X + y Y."""
    product = np.zeros_like(polynomial)
    product[: degree + 1] = polynomial[: degree + 1] * y
    product[1 : degree + 2] += polynomial[: degree + 1] * x
    return product


def transport(before: np.ndarray, after: np.ndarray, basis: Components) -> list[np.ndarray]:
    """For each order, (R, P, k+1, k+1) matrices that carry Cov(u, h_i h_j) to the next layer (eq. 4.15, 4.16).

    Wick powers of phi are martingales; only the variables they are written in change: z' = T z, T = C'^-1 C lower
    triangular, so :z1'^i z2'^j: is a sum of :z1^{i+j-s} z2^s: with binomial weights, and nothing cancels.

    Args:
        before: (R, P, 2, 2) factor C at the layers.
        after: (R, P, 2, 2) inverse C'^-1 at the next layers.
    """
    step = after @ before
    alpha, gamma, beta = (step[..., i, j][..., None, None] for i, j in ((0, 0), (1, 0), (1, 1)))
    matrices = []
    for k in basis.orders:
        if basis.single:
            matrices.append(alpha**k)
            continue
        i_new = np.arange(k + 1)[None, :]
        s = k - np.arange(k + 1)[:, None]
        j_new = k - i_new
        gap = j_new - s
        reach = gap >= 0
        gap = np.maximum(gap, 0)
        logs = gammaln(j_new + 1) - gammaln(s + 1) - gammaln(gap + 1)
        logs = logs + 0.5 * (gammaln(k - s + 1) + gammaln(s + 1) - gammaln(i_new + 1) - gammaln(j_new + 1))
        matrices.append(np.where(reach, np.exp(np.where(reach, logs, 0.0)), 0.0) * alpha**i_new * gamma**gap * beta**s)
    return matrices
