"""What the Wick orders above m can add to V4 and K1 (docs/theory.md, section 4.3).

All orders above m of a pair are treated as one: the lowest of them, which decays most slowly over depth, with the whole
norm that is above m by Parseval's identity (eq. 4.23). Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eftcore.activations import get_activation
from eftcore.gaussian.branch import BranchExpectations
from eftcore.gaussian.normalised_series import inner_engine, normalised_tails
from eftcore.gaussian.pair_moments import Expectations
from eftcore.gaussian.wick_algebra import largest_correlation
from eftcore.gaussian.wick_series import Whitening, components
from eftcore.gaussian.wick_tails import tails
from eftcore.pairs import pair_indices
from eftcore.specs import PredictionSpec, ResNet
from eftcore.theory.linear_response import LinearResponse

ROWS = 17
"""Number of depths at which the norms are computed; between these depths they are interpolated linearly."""

DOUBLINGS = 12
"""Where sigma has kinks, what is left out of K1 may be at any order: lowest order x 2^j, j < DOUBLINGS, are tried."""

STEPS = 200
"""Least number of steps in depth, which is enough for a bound."""

LONGEST = 0.05
"""Longest step in t, unless one layer is longer."""


@dataclass(frozen=True, eq=False)
class Track:
    """K0 along depth at M increasing times from 0.

    The fields are the times (M,), the kernels (M, N, N), whether these are all layers, and how the Gaussian integrals
    were done.
    """

    time: np.ndarray
    kernel: np.ndarray
    layered: bool
    engine: Expectations


@dataclass(frozen=True, eq=False)
class Remainder:
    """Upper bounds of what the Wick orders above m can add at the recorded depths.

    Attributes:
        variance: (R, P) bound of the addition to V4_pp; for V4_pq it is sqrt(variance_p variance_q).
        correction: (R, P) bound of the addition to |K1_p|.
        share: largest share over depth and pairs of the variance of f_p that is above m.
        coarse: whether, because of kinks, the bound of K1 is a worst case that may be far above the truth.
    """

    variance: np.ndarray
    correction: np.ndarray
    share: float
    coarse: bool


def steps_in_depth(depth: int, layer: float) -> np.ndarray:
    """Layers 0 .. depth at which K0 is kept for the bounds; ``layer`` is the t of one layer, epsilon^2.

    >>> len(steps_in_depth(20, 0.01)), len(steps_in_depth(800, 0.0025)), len(steps_in_depth(100, 0.25))
    (21, 201, 101)
    """
    count = min(depth, max(STEPS, int(np.ceil(depth * layer / LONGEST))))
    return np.unique(np.round(np.linspace(0, depth, count + 1)).astype(int))


def remainder(spec: PredictionSpec, track: Track, order: int) -> Remainder:
    """The bounds for the hierarchy truncated at ``order``, at the recorded depths of ``spec`` (eq. 4.24, 4.25)."""
    walk = _Walk(spec.model, track, order)
    variance, correction = (_at(spec.time, track.time, part) for part in walk.run())
    return Remainder(variance, correction, walk.share, coarse=walk.lift is not None)


def _at(times: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(times, known, column) for column in values.T], axis=-1)


class _Walk:
    """Carries the bounds of eq. 4.24 and 4.25 through depth.

    The bounds for a pair p = (a, b) involve the response u at its own three pairs aa, ab, bb only, so that they form a
    closed system.
    """

    def __init__(self, model: ResNet, track: Track, order: int) -> None:
        self.track, self.c_w = track, model.weight_variance
        n_inputs = track.kernel.shape[-1]
        self.own = np.equal(*pair_indices(n_inputs))
        self.neighbours = LinearResponse(n_inputs).neighbours
        even_only = get_activation(model.activation).parity is not None
        basis = components(order, even_only=even_only, single=n_inputs == 1)
        lowest = basis.orders[-1] + (2 if even_only else 1)
        rows = np.unique(np.round(np.linspace(0, len(track.time) - 1, ROWS)).astype(int))
        kernels = track.kernel[rows]
        if isinstance(track.engine, BranchExpectations):
            found = normalised_tails(track.engine, kernels, basis)
        else:
            found = tails(inner_engine(track.engine), kernels, basis)
        self.orders = lowest * 2.0 ** np.arange(1 if found.lift is None else DOUBLINGS)
        moments = track.engine.moments(kernels, 2)
        assert moments.gradient is not None
        assert moments.hessian is not None
        between = _Linear(track.time, track.time[rows])
        self.rest = between(found.products)
        self.share = float(found.share.max())
        self.slopes = None if found.slopes is None else between(found.slopes)
        self.lift = None if found.lift is None else between(found.lift)
        self.hessian = between(0.5 * np.abs(moments.hessian))
        self.growth = between(self._comparison(self.c_w * moments.gradient))
        turn = Whitening(track.kernel)
        memory = np.minimum(largest_correlation(turn.inverse[1:] @ turn.factor[:-1]), 1.0)
        with np.errstate(divide="ignore"):
            self.forgetting = np.clip(-np.log(memory), 1e-18, 1e3)

    def _comparison(self, chi: np.ndarray) -> np.ndarray:
        """(R, P, 3, 3) chi on aa, ab, bb; absolute values off the diagonal, so that upper bounds stay upper bounds."""
        local = np.zeros((*chi.shape, 3))
        local[..., 0, 0] = chi[:, self.neighbours[:, 0], 0]
        local[..., 2, 2] = chi[:, self.neighbours[:, 2], 0]
        local[..., 1, :] = np.abs(chi)
        local[..., 1, 1] = np.where(self.own, chi[..., 0], chi[..., 1])
        local[:, self.own, 1, 0] = local[:, self.own, 1, 2] = 0.0
        return local

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of the additions to V4_pp and to |K1_p| at the M times of the track, (M, P) each."""
        pairs = len(self.own)
        z = np.zeros((pairs, 3, len(self.orders)))
        u = np.zeros((pairs, 3, 3))
        k1 = np.zeros(pairs)
        variance, correction = np.zeros_like(self.rest), np.zeros_like(self.rest)
        for row, step in enumerate(np.diff(self.track.time)):
            grow = np.eye(3) + step * self.growth[row]
            drive = step * self.c_w * self.rest[row][self.neighbours]
            source = self._source(row, z, u)
            z = grow @ z
            mixed = z[:, :, :1] * drive[:, None, :]
            u = grow @ u @ np.swapaxes(grow, 1, 2) + mixed + np.swapaxes(mixed, 1, 2)
            u += drive[:, :, None] * drive[:, None, :]
            lost = self.forgetting[row][:, None, None] * self.orders
            kept = np.exp(-lost)
            if self.track.layered:
                z = kept * (z + drive[:, :, None])
            else:  # several layers in a step: mean decay over them, source at the end, so that bounds hold
                z = kept * z - np.expm1(-lost) / np.maximum(lost, 1e-300) * drive[:, :, None]
                source = self._source(row + 1, z, u)
            k1 = np.einsum("pq,pq->p", grow[:, 1], k1[self.neighbours]) + step * self.c_w * source
            variance[row + 1], correction[row + 1] = u[:, 1, 1], k1
        return variance, correction

    def _source(self, row: int, z: np.ndarray, u: np.ndarray) -> np.ndarray:
        """(P,) bound of what the orders above m add to U1, without the term chi K1 / C_W (eq. 4.25)."""
        if self.slopes is not None:
            mixed = self.slopes[row] * z[:, :, 0]
        else:
            assert self.lift is not None
            mixed = self.lift[row] * self.rest[row][:, None] * (z * self.orders).max(-1)
        mixed[self.own, 1:] = 0.0
        source: np.ndarray = mixed.sum(-1) + np.einsum("pqr,pqr->p", self.hessian[row], u)
        return source


class _Linear:
    """Linear interpolation along the first axis."""

    def __init__(self, where: np.ndarray, known: np.ndarray) -> None:
        self.left = np.clip(np.searchsorted(known, where, side="right") - 1, 0, len(known) - 2)
        self.share = (where - known[self.left]) / (known[self.left + 1] - known[self.left])

    def __call__(self, values: np.ndarray) -> np.ndarray:
        share = self.share.reshape(-1, *(1,) * (values.ndim - 1))
        between: np.ndarray = (1 - share) * values[self.left] + share * values[self.left + 1]
        return between
