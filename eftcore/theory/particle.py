"""The one-particle form of the exact leading order (docs/theory.md, eq. 4.6): an independent check, for any N.

V4 = Cov[phi_a phi_b + u_ab, phi_c phi_d + u_cd] over one mean-field neuron's Gaussian path, where u is driven by that
path's own sigma sigma - E2(K0). Paths come from randomised quasi-Monte Carlo: scrambled Sobol points, whose first
coordinates carry the slowest modes in depth (a cosine transform); independent scramblings give the standard error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import idct
from scipy.special import ndtri

from eftcore.activations import Activation, get_activation
from eftcore.errors import InputError
from eftcore.gaussian.roots import symmetric_root
from eftcore.pairs import pair_indices, to_pairs
from eftcore.specs import PredictionSpec
from eftcore.theory.closures.g_only import wishart
from eftcore.theory.linear_response import LinearResponse
from eftcore.theory.mean_field import MeanField

SCRAMBLINGS = 16
"""Independent randomisations behind each standard error."""

STUDENTISED = 1.4
"""Factor by which standard errors from so few scramblings are multiplied (eq. 7.14). The outermost point of each
scrambling dominates its estimate, so that the estimates are about as skewed as an exponential variable (skewness 2)."""

PATHS = 1024
"""Sobol points in each randomisation."""

MAX_DIMENSIONS = 21201
"""Largest dimension of SciPy's Sobol sequence."""


@dataclass(frozen=True, eq=False)
class ParticleEstimate:
    """V4 (R, P, P), K1 and U1 (R, P), with standard errors of the same shapes."""

    covariance: np.ndarray
    covariance_se: np.ndarray
    correction: np.ndarray
    correction_se: np.ndarray
    source: np.ndarray


def sample_paths(spec: PredictionSpec, path: MeanField) -> ParticleEstimate:
    """Estimates at the recorded layers along the mean kernel (eq. 4.8). Raises InputError for a network too deep."""
    dimensions = (spec.model.depth + 1) * spec.kernel.n_inputs
    if dimensions > MAX_DIMENSIONS:
        raise InputError(
            f"(depth + 1) * inputs = {dimensions} exceeds {MAX_DIMENSIONS}",
            place="closure",
            value="particle",
            remedy="use 'wick' instead",
        )
    walkers = _Walkers(spec, path)
    parts = [walkers.run(scrambling) for scrambling in range(SCRAMBLINGS)]
    means = [np.mean(values, axis=0) for values in zip(*parts, strict=True)]
    scale = STUDENTISED / np.sqrt(SCRAMBLINGS)
    errors = [scale * np.std(values, axis=0, ddof=1) for values in zip(*parts, strict=True)]
    return ParticleEstimate(means[0], errors[0], means[1], errors[1], means[2])


class _Walkers:
    """Mean-field neurons that share the deterministic path of K0, chi and H."""

    def __init__(self, spec: PredictionSpec, path: MeanField) -> None:
        self.model, self.path = spec.model, path
        self.activation: Activation = get_activation(spec.model.activation)
        assert spec.depths is not None
        self.depths = set(spec.depths)
        self.response = LinearResponse(path.kernel.shape[-1])
        moments = path.engine.moments(path.kernel, 2)
        assert moments.gradient is not None
        assert moments.hessian is not None
        self.gradient, self.hessian = moments.gradient, moments.hessian
        self.mean = to_pairs(path.second_moment)
        self.first, self.second = pair_indices(path.kernel.shape[-1])

    def run(self, scrambling: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One randomisation: V4, K1, U1 at the recorded layers (eq. 4.2, 4.6)."""
        model, c_w, h = self.model, self.model.weight_variance, self.model.epsilon**2
        normals = self._normals(scrambling)
        phi = normals[:, 0] @ symmetric_root(self.path.kernel[0]).T
        u = np.zeros((len(phi), len(self.first)))
        correction = np.zeros(len(self.first))
        increment = None
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for layer in range(model.depth + 1):
            chi = c_w * self.gradient[layer]
            mixed = self._mixed(layer, phi, u, increment)
            centred = u - u.mean(0)
            tadpole = self.response.tadpole(self.hessian[layer], centred.T @ centred / len(u))
            source = self.response.respond(chi, correction) / c_w + tadpole + mixed
            if layer in self.depths:
                kernel = phi[:, self.first] * phi[:, self.second] - to_pairs(self.path.kernel[layer])
                mixed_covariance = kernel.T @ centred / len(u)
                # Cov(xi^G) is known exactly (Wishart), so that its heavy tails need not be sampled
                covariance = wishart(self.path.kernel[layer]) + mixed_covariance + mixed_covariance.T
                found.append((covariance + centred.T @ centred / len(u), correction, source))
            if layer == model.depth:
                break
            sigma = np.asarray(self.activation.function(phi), dtype=float)
            fluctuation = sigma[:, self.first] * sigma[:, self.second] - self.mean[layer]
            u = u + h * (self.response.respond(chi, u.T).T + c_w * fluctuation)
            correction = correction + h * c_w * source
            increment = model.epsilon * normals[:, layer + 1] @ symmetric_root(self.path.increment[layer]).T
            phi = phi + increment
        covariance, corrections, sources = (np.stack(values) for values in zip(*found, strict=True))
        return covariance, corrections, sources

    def _normals(self, scrambling: int) -> np.ndarray:
        """(M, L + 1, N) standard normals, quasi-random; slow modes in depth have the first coordinates (eq. 4.7)."""
        from scipy.stats import qmc  # half the time that importing eftcore would take

        inputs, layers = self.path.kernel.shape[-1], self.model.depth
        sobol = qmc.Sobol((layers + 1) * inputs, scramble=True, rng=np.random.default_rng(scrambling))
        points: np.ndarray = ndtri(np.clip(sobol.random(PATHS), 1e-15, 1 - 1e-15)).reshape(PATHS, layers + 1, inputs)
        points[:, 1:] = idct(points[:, 1:], axis=1, norm="ortho")
        return points

    def _mixed(self, layer: int, phi: np.ndarray, u: np.ndarray, increment: np.ndarray | None) -> np.ndarray:
        """(P,) sum over q of Cov(D_q f_p, u_q) over paths."""
        if increment is None:
            return np.zeros(len(self.first))
        u = u - u.mean(0)
        aa, _, bb = self.response.neighbours.T
        own = self.first == self.second
        if self.activation.derivatives is None:
            return self._mixed_by_weights(layer, phi, u, increment)
        s, d, c = self.activation.derivatives(phi)[:3]
        a, b = self.first, self.second
        left = np.where(own, d[:, a] ** 2 + s[:, a] * c[:, a], 0.5 * c[:, a] * s[:, b])
        other = np.where(own, 0.0, 1.0) * (d[:, a] * d[:, b] * u + 0.5 * s[:, a] * c[:, b] * u[:, bb])
        mixed: np.ndarray = (left * u[:, aa] + other).mean(0)
        return mixed

    def _mixed_by_weights(self, layer: int, phi: np.ndarray, u: np.ndarray, increment: np.ndarray) -> np.ndarray:
        """(P,) sum over q of Cov(D_q f_p, u_q) over paths, for a sigma with kinks (eq. 4.9).

        u does not depend on the last increment eta ~ N(0, eps^2 Q), so derivatives are moved onto the density of eta.
        Only the part of f_p that is even in eta contributes; taking it alone keeps the variance finite.
        """
        sigma = [np.asarray(self.activation.function(phi - k * increment), dtype=float) for k in (0, 1, 2)]
        result = np.empty(len(self.first))
        neighbours = self.response.neighbours
        q = self.model.epsilon**2 * self.path.increment[layer - 1]
        for p, (a, b) in enumerate(zip(self.first, self.second, strict=True)):
            f = [s[:, a] * s[:, b] for s in sigma]
            even = 0.5 * (f[0] + f[2]) - f[1]
            pair = [a] if a == b else [a, b]
            precision = np.linalg.pinv(q[np.ix_(pair, pair)], hermitian=True)
            score = increment[:, pair] @ precision
            if a == b:
                weights = 0.5 * (score[:, 0] ** 2 - precision[0, 0]) * u[:, neighbours[p, 0]]
            else:
                weights = 0.5 * (score[:, 0] ** 2 - precision[0, 0]) * u[:, neighbours[p, 0]]
                weights += (score[:, 0] * score[:, 1] - precision[0, 1]) * u[:, p]
                weights += 0.5 * (score[:, 1] ** 2 - precision[1, 1]) * u[:, neighbours[p, 2]]
            result[p] = (even * weights).mean()
        return result
