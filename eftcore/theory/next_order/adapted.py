"""The few functions of one neuron that the next order needs, for smooth bounded activations.

What a layer makes of f_p = sigma_a sigma_b is its mean over the Gaussian increment, and what the response to Q makes of
it are derivatives D_q of that. All functions

    f_p,  D_q f_p,  D_q D_r f_p,   each averaged over N(0, K0(t') - K0(t)) for any two depths t < t',

are nearly linear combinations of a few dozen, which a singular value decomposition finds. Together with the products
phi_a phi_b they are followed (after eq. 10.4). Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import itertools

import numpy as np

from eftcore.activations import Activation
from eftcore.gaussian import fourier
from eftcore.theory.closures.trigonometric import Waves
from eftcore.theory.next_order.grid import Grid, points_needed

DERIVATIVE = 0.1
"""Weight of a derivative against the function itself in the choice of functions."""

NEGLIGIBLE = 1e-7
"""Relative size of combinations that are not considered at all."""


MOST_POINTS = 2**16
"""Most points of a grid."""

MOST_VALUES = 3 * 10**7
"""Most values of waves at points that are held at a time."""


def adapted_functions(
    activation: Activation, weight_variance: float, kernels: np.ndarray, modes: int, tolerance: float
) -> AdaptedFunctions | None:
    """The functions from waves up to ``modes`` pi / L, on points as dense as the shortest wave needs.

    ``kernels`` (R, N, N) are K0 at some depths from first to last. None where there would be too many points or waves.
    """
    narrowest, widest = kernels[0], kernels[-1]
    spacing = fourier.half_period(modes, 1.0) / modes
    if not points_needed(narrowest, widest, spacing) <= MOST_POINTS:
        return None
    grid = Grid(narrowest, widest, spacing, even=activation.parity is not None)
    waves = Waves(activation, np.diag(widest), modes)
    if len(waves.pair) * len(grid.near) > MOST_VALUES:
        return None
    sigma = np.asarray(activation.function(grid.points), dtype=float)
    increment = weight_variance * (sigma[:, waves.first] * sigma[:, waves.second]).T
    return AdaptedFunctions(waves, increment, grid, kernels, tolerance)


class AdaptedFunctions:
    """M functions: phi_a phi_b for the P pairs a <= b, and combinations of waves that are orthonormal on the path.

    As numbers (..., M + 1), of functions or of matrices between them, the last one belongs to the constant 1.

    Args:
        waves: sigma_a sigma_b as sums of sines and cosines.
        increment: (P, points) C_W sigma_a sigma_b on all points of the grid.
        grid: whose points near the origin stand for integrals.
        kernels: (R, N, N) K0 at some depths from first to last.
        tolerance: combinations of relative size below it are left out.

    Attributes:
        size: M.
        values: (G, M + 1) at the points ``grid.near``.
        lowering: (P, M + 1, M + 1) D_q u_i = sum_j lowering[q, i, j] u_j.
        response: (P, M) the deviation of Q is ``response @ x``.
        kernel: (P, M) the deviation of the kernel G is ``kernel @ x``.
        left_out: largest share of the variance of sigma_a sigma_b that is not in the functions.
        largest_left_out: size of the largest combination that is not followed, relative to the largest that is.
    """

    def __init__(self, waves: Waves, increment: np.ndarray, grid: Grid, kernels: np.ndarray, tolerance: float) -> None:
        self.grid, self.increment, self._waves = grid, increment, waves
        first, second, pairs = waves.first, waves.second, len(waves.first)
        inputs, number = kernels.shape[-1], np.arange(len(waves.pair))
        self._vectors = np.zeros((len(number), inputs))
        self._vectors[number, first[waves.pair]] = waves.vector[:, 0]
        self._vectors[number, second[waves.pair]] += waves.vector[:, 1]
        factor = np.where(first == second, -0.5, -1.0)[:, None]
        self._factors = factor * (self._vectors[:, first] * self._vectors[:, second]).T  # D_q of each wave
        phases = grid.near @ self._vectors.T
        of_waves = np.where(waves.odd, np.sin(phases), np.cos(phases))
        weight = np.sqrt(np.mean(grid.measures(np.stack([grid.gaussian(k) for k in kernels])), axis=0))[:, None]
        of_waves *= weight
        products = grid.near[:, first] * grid.near[:, second]
        simple = weight * np.concatenate([products, np.ones((len(products), 1))], axis=1)
        self._combined, self.largest_left_out = self._chosen(kernels, of_waves, np.linalg.qr(simple)[0], tolerance)
        orthonormal = of_waves @ self._combined.T
        weighted = np.concatenate([simple[:, :-1], orthonormal, simple[:, -1:]], axis=1)
        self.size = m = weighted.shape[1] - 1
        self.values = weighted / weight
        inverse = np.linalg.pinv(weighted)
        self._projected = (inverse @ of_waves).T  # (I, M + 1) of each wave
        self.lowering = np.zeros((pairs, m + 1, m + 1))
        self.lowering[:, pairs:m] = (self._factors[:, None] * self._combined) @ self._projected
        self.lowering[np.arange(pairs), np.arange(pairs), m] = 1.0
        self.kernel = np.eye(pairs, m)
        exact = increment[:, grid.kept] * weight[:, 0]
        response = exact @ inverse.T
        self.response = response[:, :m]
        centred = exact - (exact @ weight) * weight[:, 0]
        self.left_out = float(np.max(((exact - response @ weighted.T) ** 2).sum(1) / (centred**2).sum(1)))

    def _chosen(
        self, kernels: np.ndarray, of_waves: np.ndarray, simple: np.ndarray, tolerance: float
    ) -> tuple[np.ndarray, float]:
        """(M - P, I) coefficients of the combinations, and the relative size of the largest one that is left out.

        The size of a combination includes that of its derivatives, which are large where two inputs are nearly equal.
        """
        waves, pairs = self._waves, len(self._waves.first)
        deviations = np.sqrt(np.diag(kernels[-1]))
        units = DERIVATIVE * deviations[waves.first] * deviations[waves.second]
        once = units[:, None] * self._factors
        twice = [once[q] * once[r] for q, r in itertools.combinations_with_replacement(range(pairs), 2)]
        steps = [after - before for before, after in itertools.combinations(kernels, 2)]
        averages = np.stack([np.exp(-self._half_form(step)) for step in [np.zeros_like(kernels[0]), *steps]])
        own = np.where(waves.pair == np.arange(pairs)[:, None], waves.coefficient, 0.0)
        own /= np.linalg.norm(own @ of_waves.T, axis=1)[:, None]
        lowered = np.concatenate([np.ones_like(own[:1]), once, twice])
        family = np.einsum("pi,di,si->pdsi", own, lowered, averages).reshape(-1, own.shape[1])
        family = family[family.any(axis=1)]

        def values(combinations: np.ndarray) -> np.ndarray:
            """(G, A) of combinations (A, I), without what ``simple`` has of them."""
            found: np.ndarray = of_waves @ combinations.T
            found -= simple @ (simple.T @ found)
            return found

        _, sizes, directions = np.linalg.svd(values(family), full_matrices=False)
        family = directions[sizes > NEGLIGIBLE * sizes[0]] @ family
        own_values = values(family)
        squares = own_values.T @ own_values
        for factor in lowered[1:]:
            derivative = of_waves @ (family * factor).T
            squares += derivative.T @ derivative
        sizes, directions = np.linalg.eigh(squares)
        sizes = np.sqrt(np.maximum(sizes / sizes[-1], 0.0))
        kept = sizes > tolerance
        _, triangle = np.linalg.qr(own_values @ directions[:, kept])
        chosen = np.linalg.solve(triangle.T, directions[:, kept].T @ family)
        return chosen, float(np.max(sizes[~kept], initial=0.0))

    def averaging(self, step: np.ndarray) -> np.ndarray:
        """(M + 1, M + 1) the average of each function over a Gaussian increment of covariance ``step`` (N, N)."""
        pairs, m = len(self._waves.first), self.size
        found = np.eye(m + 1)
        found[:pairs, m] = step[self._waves.first, self._waves.second]
        found[pairs:m] = (self._combined * np.exp(-self._half_form(step))) @ self._projected
        return found

    def derivative_means(self, kernel: np.ndarray) -> list[np.ndarray]:
        """(P, M), (P, P, M), ...: means of D_q u, D_q D_r u, up to four derivatives, under N(0, kernel)."""
        pairs = len(self._waves.first)
        values = np.where(self._waves.odd, 0.0, np.exp(-self._half_form(kernel)))
        found = []
        for _ in range(4):
            values = self._factors.reshape(pairs, *[1] * (values.ndim - 1), -1) * values
            means = np.zeros((*values.shape[:-1], self.size))
            means[..., pairs:] = values @ self._combined.T
            found.append(means)
        found[0][np.arange(pairs), np.arange(pairs)] = 1.0
        return found

    def lowered(self, values: np.ndarray) -> np.ndarray:
        """(P, M, ...) D_q on deviations (M, ...) of the functions."""
        found: np.ndarray = np.tensordot(self.lowering[:, : self.size, : self.size], values, 1)
        return found

    def squared(self, densities: np.ndarray) -> np.ndarray:
        """(A, M + 1, M + 1) integrals of u_i u_j over densities (A, points)."""
        u = self.values
        return np.stack([(u.T * measure) @ u for measure in self.grid.measures(densities)])

    def _half_form(self, matrix: np.ndarray) -> np.ndarray:
        """(I,) k M k / 2 of the waves."""
        found: np.ndarray = 0.5 * ((self._vectors @ matrix) * self._vectors).sum(1)
        return found
