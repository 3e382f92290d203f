"""Wick expansion of sigma sigma behind a normalisation, and how S responds to the kernel that is divided by.

Behind a normalisation, S is a mean over neurons of f_p(phi; G), which changes with the neurons and with G
(docs/theory.md, section 11.4). With T_q = D_q + N_q, where N_aa is the derivative by the G_aa that phi_a is divided by,

    deviation of S_p = mean over neurons of f~_p,   f~_p = f_p + sum_a <N_aa f_p> :phi_a^2:,

at leading order; layer normalisation takes out the first Wick order of f~ too. Everything is done in units of
sqrt(K_aa), in which the kernel is its correlation matrix R; E_a = x_a d/dx_a, so that K_aa N_aa f = -E_a f / 2.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from eftcore.errors import InputError
from eftcore.gaussian.branch import BranchExpectations, hidden_kernel
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.pair_moments import Expectations, PairMoments
from eftcore.gaussian.wick_series import Components, WickSeries
from eftcore.gaussian.wick_tails import Tails, tails
from eftcore.pairs import pair_indices, to_pairs

LOOSER = 3.0
"""T_q f above an order is at most this many times as large as the bound of D_q f there."""


def inner_engine(engine: Expectations) -> MehlerExpectations:
    """The Mehler series at the correlations. Raises InputError for integrals that have no Wick expansion."""
    inner = engine.inner if isinstance(engine, BranchExpectations) else engine
    if not isinstance(inner, MehlerExpectations):
        raise InputError(
            "the wick closure needs 'auto', since the fixed rule has no Wick expansion",
            place=("numerics", "quadrature"),
            value="gauss_hermite",
        )
    return inner


class NormalisedSeries:
    """Coefficients of f~_p and of T_q f_p for a stack of kernels (R, N, N), at one resolution (eq. 11.16).

    Attributes:
        series: those of f_p in units of sqrt(K_aa).
        correlation: (R, N, N) R.
    """

    def __init__(self, engine: BranchExpectations, kernel: np.ndarray, basis: Components) -> None:
        self.basis, self.kernel = basis, kernel
        self.layered = engine.model.normalisation == "layer"
        self.correlation = hidden_kernel(engine.model, kernel)
        self._inner = inner_engine(engine)
        self.series = WickSeries(self._inner, self.correlation, basis)
        self._first, self._second = pair_indices(kernel.shape[-1])
        self._own = self._first == self._second

    @cached_property
    def _moments(self) -> PairMoments:
        """E2 and its derivatives by the variances and the covariance of its two arguments, at R."""
        return self._inner.moments(self.correlation, 2)

    @cached_property
    def _rho(self) -> np.ndarray:
        return to_pairs(self.correlation)

    @cached_property
    def _scalings(self) -> np.ndarray:
        """(R, P, 2) K_aa N_aa <f_p> and K_bb N_bb <f_p>; column 0 alone for p = (a, a)."""
        e = self._moments.gradient
        assert e is not None
        found: np.ndarray = -(e[..., [0, 2]] + 0.5 * self._rho[..., None] * e[..., 1, None])
        found[:, self._own] = np.stack([-e[:, self._own, 0], np.zeros_like(e[:, self._own, 0])], axis=-1)
        return found

    def direct(self) -> np.ndarray:
        """(R, P, 3) N_q <f_p> for q = aa, ab, bb of p; 0 for ab, by which nothing is divided."""
        found = np.zeros((*self._scalings.shape[:-1], 3))
        found[..., [0, 2]] = self._scalings
        found /= self._units()
        return found

    def slopes(self) -> np.ndarray:
        """(R, P, 2) means of the derivatives of f_p by phi_a and phi_b; all in column 0 for proportional inputs."""
        white, table = self.series.white, self.series.table
        by_1, by_2 = table[..., 1, 0], table[..., 0, 1]
        rho = np.where(white.tied, 0.0, white.rho)
        w = np.sqrt((1 - rho) * (1 + rho))
        found = np.stack([by_1 - rho / w * by_2, by_2 / w], axis=-1)
        found[white.tied, 1] = 0.0
        found /= np.sqrt(self._units()[..., [0, 2]])
        return found

    def products(self) -> np.ndarray:
        """(R, P, I) Wick coefficients of f~_p."""
        basis = self.basis
        found = self.series.products().copy()
        if self.layered and 1 in basis.orders:
            found[..., basis.where(1)] = 0.0
        if 2 in basis.orders:
            # x_a^2 - 1 = sqrt(2) h_2(z_1), and x_b = rho z_1 + w z_2
            rho, (a, b), root = self._rho, np.moveaxis(self._scalings, -1, 0), np.sqrt(2.0)
            rho = np.where(self._own, 0.0, rho)
            w = np.sqrt(np.where(self._own, 0.0, (1 - rho) * (1 + rho)))
            found[..., basis.position(2, 0)] += root * (a + b * rho**2)
            if not basis.single:
                found[..., basis.position(1, 1)] += 2 * b * rho * w
                found[..., basis.position(0, 2)] += root * b * w**2
        return found

    def derivatives(self) -> np.ndarray:
        """(R, P, 3, I) coefficients of T_q f_p for q = aa, ab, bb of p; a diagonal pair uses column 0 alone."""
        found = self.series.derivatives()
        found[..., 0, :] -= 0.5 * self._stretched(0)
        found[..., 2, :] -= 0.5 * np.where(self._own[:, None], 0.0, self._stretched(1))
        found /= self._units()[..., None]
        return found

    def _units(self) -> np.ndarray:
        """(R, P, 3) K_aa, sqrt(K_aa K_bb), K_bb of p = (a, b)."""
        root = np.sqrt(np.diagonal(self.kernel, axis1=-2, axis2=-1))
        a, b = root[:, self._first], root[:, self._second]
        return np.stack([a * a, a * b, b * b], axis=-1)

    def _stretched(self, which: int) -> np.ndarray:
        """(R, P, I) coefficients of E_a f_p (``which`` = 0) or of E_b f_p (1); of E f_p for p = (a, a)."""
        i, j, table = self.basis.first, self.basis.second, self.series.table
        if self.basis.single:
            i = i - self.series.bottom
            k = self.basis.first
            whole: np.ndarray = k * table[..., i, 0] + np.sqrt((k + 1) * (k + 2)) * table[..., i + 2, 0]
            return whole
        # < z_r d_s f h_i h_j > by parts
        z1_d1 = i * table[..., i, j] + np.sqrt((i + 1) * (i + 2)) * table[..., i + 2, j]
        z2_d2 = j * table[..., i, j] + np.sqrt((j + 1) * (j + 2)) * table[..., i, j + 2]
        z1_d2 = np.sqrt(j + 1) * (np.sqrt(i + 1) * table[..., i + 1, j + 1] + np.sqrt(i) * table[..., i - 1, j + 1])
        white = self.series.white
        rho = np.where(white.tied, 0.0, white.rho)[..., None]
        w = np.sqrt((1 - rho) * (1 + rho))
        found: np.ndarray = z1_d1 - rho / w * z1_d2 if which == 0 else rho / w * z1_d2 + z2_d2
        found[white.tied] = self._tied_stretched(which)
        return found

    def _tied_stretched(self, which: int) -> np.ndarray:
        """(T, I) the same for the T pairs with one variable, z_1 = x_a = +- x_b: E f for p = (a, a).

        For two such inputs each has half of E f, unless sigma tells x from -x: then its derivative is used.
        """
        series, white = self.series, self.series.white
        alone, orders = self.basis.second == 0, np.array(self.basis.orders)
        own = np.broadcast_to(self._own, white.tied.shape)[white.tied]
        table = series.table[white.tied][..., 0]
        k = orders
        whole = k * table[:, k] + np.sqrt((k + 1) * (k + 2)) * table[:, k + 2]
        parts = np.where(own[:, None], whole, 0.5 * whole)
        opposite = ~own & (white.rho[white.tied] < 0)
        if opposite.any() and not series.line.by_parts:
            line = series.line
            a, b = series.a[white.tied][opposite], series.b[white.tied][opposite]
            x = line.rule.nodes
            left = x * line.values[1][a] * line.values[0][b][:, ::-1]
            right = line.values[0][a] * (x * line.values[1][b])[:, ::-1]
            parts[opposite] = ((left, right)[which] @ line.rule.table[:, : series.top + 1])[:, orders]
        found = np.zeros((len(own), len(alone)))
        found[:, alone] = parts
        return found

    def mixed(self) -> np.ndarray:
        """(R, P, 2, 3) T_r N_v <f_p> for v = aa, bb and r = aa, ab, bb of p."""
        units = self._units()
        found: np.ndarray = (self._once() + self._twice()) / (units[..., [0, 2], None] * units[..., None, :])
        return found

    def _once(self) -> np.ndarray:
        """(R, P, 2, 3) D_r N_v <f_p> in units of K."""
        e, h, rho = self._moments.gradient, self._moments.hessian, self._rho[..., None]
        assert e is not None
        assert h is not None
        found = np.zeros((*e.shape[:-1], 2, 3))
        for v, column in enumerate((0, 2)):
            found[..., v, :] = -(h[..., column, :] + 0.5 * rho * h[..., 1, :])
            found[..., v, column] -= e[..., column]
            found[..., v, 1] -= 0.5 * e[..., 1]
        own = self._own
        found[:, own] = 0.0
        found[:, own, 0, 0] = -(e[:, own, 0] + h[:, own, 0, 0])
        return found

    def _twice(self) -> np.ndarray:
        """(R, P, 2, 3) N_r N_v <f_p> in units of K; 0 for r = ab, by which nothing is divided."""
        e, h, rho = self._moments.gradient, self._moments.hessian, self._rho
        assert e is not None
        assert h is not None
        found = np.zeros((*e.shape[:-1], 2, 3))
        ab = e[..., 1]
        for v, column in enumerate((0, 2)):
            other = 2 - column
            # L_v = x_v d_v + (rho / 2) d_ab, in which variances are 1; N_v N_v = L_v + L_v L_v
            first = e[..., column] + 0.5 * rho * ab
            again = e[..., column] + h[..., column, column] + rho * h[..., column, 1]
            again += 0.25 * rho * ab + 0.25 * rho**2 * h[..., 1, 1]
            found[..., v, column] = first + again
            crossed = h[..., 0, 2] + 0.5 * rho * (h[..., column, 1] + h[..., other, 1])
            found[..., v, other] = crossed + 0.25 * rho * ab + 0.25 * rho**2 * h[..., 1, 1]
        own = self._own
        found[:, own] = 0.0
        found[:, own, 0, 0] = 2 * e[:, own, 0] + h[:, own, 0, 0]
        return found

    def offset(self) -> np.ndarray:
        """(R, P) what neurons that are independent and Gaussian add to U1: n (E[S] - E2) (eq. 11.18)."""
        inputs = np.stack(pair_indices(self.kernel.shape[-1]), axis=-1)
        around = np.stack([self._first, self._first, self._second, self._second], axis=-1)
        local = np.stack([around[:, [0, 1]], inputs, around[:, [2, 3]]], axis=1)  # (P, 3, 2) inputs of aa, ab, bb
        a, b = local[..., 0], local[..., 1]
        r = self.correlation
        wishart = (
            r[:, a[:, :, None], a[:, None, :]] * r[:, b[:, :, None], b[:, None, :]]
            + r[:, a[:, :, None], b[:, None, :]] * r[:, b[:, :, None], a[:, None, :]]
        )
        weights = self._once() + 0.5 * self._twice()
        found: np.ndarray = np.einsum("rpvq,rpvq->rp", weights, wishart[:, :, [0, 2], :])
        return found


def normalised_tails(engine: BranchExpectations, kernel: np.ndarray, basis: Components) -> Tails:
    """Bounds as ``tails`` gives them, of f_p behind a normalisation and of T_q f_p."""
    inner, correlation = inner_engine(engine), hidden_kernel(engine.model, kernel)
    found = tails(inner, correlation, basis)
    root = np.sqrt(np.diagonal(kernel, axis1=-2, axis2=-1))
    first, second = pair_indices(kernel.shape[-1])
    a, b = root[:, first], root[:, second]
    units = np.stack([a * a, a * b, b * b], axis=-1) / LOOSER
    if found.lift is not None:
        return Tails(found.products, found.share, None, found.lift / units)
    # E_a leaves an order as it is, where D_aa lowers it by two
    kept = basis.first + basis.second <= max(basis.orders[-1] - 2, basis.orders[0])
    lower = Components(
        tuple(k for k in basis.orders if k <= max(basis.orders[-1] - 2, basis.orders[0])),
        basis.first[kept],
        basis.second[kept],
        basis.single,
    )
    slopes = tails(inner, correlation, lower).slopes
    assert slopes is not None
    return Tails(found.products, found.share, slopes / units, None)
