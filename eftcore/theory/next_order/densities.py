"""The leading order of the means of all functions at once, as signed densities of one neuron's preactivations.

For functions f, g of one neuron, with P the pairs of inputs, K1 (P,), U (P, P) the covariance of the response of
section 4.1, and zeta_q the density of Z_q(f), the covariance of that response with the mean of f,

    a(f) = K1_q <D_q f> + U_qr <D_q D_r f> / 2 + Z_q(D_q f),
    C(f, g) = <f g> - <f><g> + <D_q f> Z_q(g) + Z_q(f) <D_q g> + <D_q f> U_qr <D_r g>

(eq. 10.4). So three densities stand for the covariances of all functions. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eftcore.theory.next_order.grid import Grid


@dataclass(frozen=True, eq=False)
class Response:
    """The transforms of zeta (P, ...), U (P, P) and K1 (P,)."""

    zeta: np.ndarray
    U: np.ndarray
    K1: np.ndarray


class LeadingOrder:
    """All means over neurons of one layer at leading order.

    Args:
        grid: of the densities.
        increment: (P, points) F_q = C_W sigma_a sigma_b, of whose mean the fluctuations of Q are made.
        kernel: (N, N) K0 at this layer.
        response: to earlier fluctuations; None at a layer of independent Gaussian neurons.

    Attributes:
        gaussian, slopes, zeta, products: (points,), (P, points) three times: the density of N(0, K0), D_q of it, zeta,
            and F_q times the Gaussian density.
        mean: (P,) <F_q>.
        chi: (P, P) <D_r F_q>.
        forward: (P, P) [r, q] Z_r(F_q) + (U chi^T)_rq.
        covariance: (P, P) C(F_q, F_r).
        shift: (points,) the density of a(f).
        change: (P,) a(F_q).
    """

    def __init__(self, grid: Grid, increment: np.ndarray, kernel: np.ndarray, response: Response | None = None) -> None:
        self.grid, self.increment = grid, increment
        pairs = len(increment)
        gaussian = grid.gaussian(kernel)
        self._transform = grid.transformed(gaussian[None])[0]
        if response is None:
            none = np.zeros_like(grid.derivative, dtype=complex)
            response = Response(none, np.zeros((pairs, pairs)), np.zeros(pairs))
        self.response = response
        self.gaussian = gaussian
        self.slopes = grid.densities(grid.derivative * self._transform)
        self.zeta = grid.densities(response.zeta)
        self.products = gaussian * increment
        self.mean = self.products.sum(1) * grid.cell
        self.chi = self._total(self.slopes).T
        self._crossed = self._total(self.zeta)
        self.forward = self._crossed + response.U @ self.chi.T
        self._source = self.products - self.mean[:, None] * gaussian
        self.covariance = self._total(self.with_increment())
        first, second = response.K1 @ self._flat(grid.derivative), response.U @ self._flat(grid.derivative)
        self._shift = (first + 0.5 * (second * self._flat(grid.derivative)).sum(0)).reshape(self._transform.shape)
        self._shift = self._shift * self._transform + (grid.derivative * response.zeta).sum(0)
        self.shift = grid.densities(self._shift[None])[0]
        self.change = self._total(self.shift[None])[0]

    def with_increment(self) -> np.ndarray:
        """(P, points) the densities of C(f, F_q)."""
        found: np.ndarray = self._source + self.forward.T @ self.slopes + self.chi @ self.zeta
        return found

    def following(self, h: float, smoothing: np.ndarray) -> Response:
        """The response one layer deeper, where ``smoothing`` is that of h Q0 (eq. 4.2, 4.18)."""
        before, J = self.response, np.eye(len(self.chi)) + h * self.chi
        source = h * self.grid.transformed(self._source)
        zeta = (J @ self._flat(before.zeta)).reshape(before.zeta.shape) + source
        both = h * J @ self._crossed
        U = J @ before.U @ J.T + both + both.T + h * h * self._total(self._source)
        return Response(smoothing * zeta, U, before.K1 + h * self.change)

    def noise(self, h: float, smoothing: np.ndarray) -> np.ndarray:
        """(points,) the density, one layer deeper, of what a and C add to the mean of a product of two functions:
        E a + h sum_q D_q E C(., F_q) + h^2/2 sum_qr C(F_q, F_r) D_q D_r of the Gaussian density."""
        derivative = self.grid.derivative
        moved = (derivative * self.grid.transformed(self.with_increment())).sum(0)
        twice = (self._flat(derivative) * (self.covariance @ self._flat(derivative))).sum(0)
        twice = twice.reshape(self._transform.shape) * self._transform
        total = smoothing * (self._shift + h * moved + 0.5 * h * h * twice)
        found: np.ndarray = self.grid.densities(total[None])[0]
        return found

    def _total(self, densities: np.ndarray) -> np.ndarray:
        """(A, P) integrals of F_q over densities (A, points)."""
        found: np.ndarray = densities @ self.increment.T * self.grid.cell
        return found

    @staticmethod
    def _flat(transforms: np.ndarray) -> np.ndarray:
        return transforms.reshape(len(transforms), -1)
