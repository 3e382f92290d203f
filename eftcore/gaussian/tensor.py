"""The fixed tensor Gauss-Hermite rule of the published figures. Equation numbers are those of docs/theory.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eftcore.activations import Activation
from eftcore.errors import InputError
from eftcore.gaussian.hermite import gauss_hermite_nodes
from eftcore.gaussian.jets import Jet
from eftcore.gaussian.pair_moments import CHUNK, GRADIENT, Expectations, PairMoments, correlations, in_parts
from eftcore.pairs import pair_indices


@dataclass(frozen=True, eq=False)
class TensorGaussHermite(Expectations):
    """The fixed n x n Gauss-Hermite rule behind the published figures (n = 32), to reproduce them (eq. 6.7)."""

    activation: Activation
    nodes: int

    def __post_init__(self) -> None:
        if self.activation.derivatives is None:
            raise InputError(
                f"needs a differentiable activation, not {self.activation.name!r}",
                place=("numerics", "quadrature"),
                value="gauss_hermite",
                remedy="use quadrature = 'auto'",
            )

    def refined(self, *, nodes: bool, terms: bool) -> None:
        return None

    def describe(self) -> dict[str, object]:
        return {"rule": "tensor Gauss-Hermite", "nodes": self.nodes}

    def moments(self, kernel: np.ndarray, order: int = 0) -> PairMoments:
        pairs = len(pair_indices(kernel.shape[-1])[0])
        rows = max(1, CHUNK // (10 * pairs * self.nodes**2 * (1 if order < 2 else 2)))
        return in_parts(self._moments, kernel, order, rows)

    def _moments(self, kernel: np.ndarray, order: int) -> list[np.ndarray]:
        assert self.activation.derivatives is not None
        first, second = pair_indices(kernel.shape[-1])
        own = first == second
        z, w = gauss_hermite_nodes(self.nodes)
        diagonal = np.diagonal(kernel, axis1=-2, axis2=-1)
        rho = correlations(kernel, first, second)[..., None, None]
        left = np.sqrt(diagonal[:, first])[..., None, None] * z[:, None]
        right = np.sqrt(diagonal[:, second])[..., None, None] * (rho * z[:, None] + np.sqrt(1 - rho**2) * z[None, :])
        u, v = self.activation.derivatives(left), self.activation.derivatives(right)

        def mean(i: int, j: int) -> np.ndarray:
            found: np.ndarray = np.einsum("rpij,i,j->rp", u[i] * v[j], w, w)
            return found

        results = [mean(0, 0)]
        if order >= 1:
            gradient = np.stack([factor * mean(i, j) for factor, i, j in GRADIENT], axis=-1)
            total = gradient[:, own].sum(-1)
            gradient[:, own] = 0.0
            gradient[:, own, 0] = total
            results.append(gradient)
        if order >= 2:
            hessian = np.zeros((*results[0].shape, 3, 3))
            hessian[:, own, 0, 0] = self._own_curvature(diagonal)
            cross = np.flatnonzero(~own)
            hessian[:, cross] = self._cross_hessian(kernel, first[cross], second[cross])
            results.append(hessian)
        return results

    def _own_curvature(self, variance: np.ndarray) -> np.ndarray:
        """(R, N): the second derivative in K of the rule's own <sigma^2>; not the rule applied to derivatives.

        The two agree once converged. At 32 nodes they do not, and the published K1 is the former.
        """
        assert self.activation.derivatives is not None
        z, w = gauss_hermite_nodes(self.nodes)
        root = np.sqrt(variance)[..., None]
        s, d1, d2 = self.activation.derivatives(root * z)[:3]
        slope, curvature = 2 * s * d1 * z, 2 * (d1 * d1 + s * d2) * z * z
        second_derivative: np.ndarray = ((curvature - slope / root) / (4 * root**2)) @ w
        return second_derivative

    def _cross_hessian(self, kernel: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(R, M, 3, 3): second derivatives in (K_aa, K_ab, K_bb) of the rule's own E2."""
        z, w = gauss_hermite_nodes(self.nodes)
        diagonal = np.diagonal(kernel, axis1=-2, axis2=-1)
        tied = np.abs(correlations(kernel, first, second)) == 1
        a, c, b = (values[..., None] for values in (diagonal[:, first], kernel[:, first, second], diagonal[:, second]))
        ja, jc, jb = Jet.variables(a, c, b)
        root = ja.sqrt()
        left = self._sigma(root, z)
        total = np.zeros((*tied.shape, 3, 3))
        # where inputs are proportional the rule is one-dimensional, in K_aa and K_bb alone
        joint = left * self._sigma(jb.sqrt(), np.sign(c) * z)
        total[tied] = np.einsum("rpjqs,j->rpqs", joint.hessian, w)[tied]
        loose = np.where(tied[..., None], 0.0, c)
        _, jc, _ = Jet.variables(a, loose, b)
        mix = jc / root
        rest = (jb - mix * mix).sqrt()
        for node, weight in zip(z, w, strict=True):
            # phi_b = K_ab / sqrt(K_aa) z_1 + sqrt(K_bb - K_ab^2 / K_aa) z_2 with z_2 = node
            right = self._sigma(mix * z + rest * node, np.ones_like(z))
            product = left * right
            total[~tied] += weight * np.einsum("rpjqs,j->rpqs", product.hessian, w)[~tied]
        return total

    def _sigma(self, x: Jet, z: np.ndarray) -> Jet:
        """sigma(x z) as a jet."""
        assert self.activation.derivatives is not None
        scaled = x * z
        s, d1, d2 = self.activation.derivatives(scaled.value)[:3]
        return scaled.apply(s, d1, d2)
