"""Gaussian expectations of a branch behind a matrix or a normalisation, as functions of the kernel G of its input.

What sigma is applied to is Gaussian with covariance A(G) = C_1 norm(G) + C_b1 for two matrices in a branch (eq. 11.2),
and A(G) = norm(G) for one (eq. 11.15). What the integrals of sigma say of A, the chain rule says of G. Equation numbers
are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eftcore.activations import get_activation
from eftcore.gaussian.expectations import expectations
from eftcore.gaussian.fourth_moments import sigma_covariance
from eftcore.gaussian.mehler import MehlerExpectations, concentrated
from eftcore.gaussian.pair_functions import PairFunctions
from eftcore.gaussian.pair_moments import Expectations, PairMoments, correlation_derivatives
from eftcore.pairs import pair_indices
from eftcore.specs import Numerics, ResNet

LEVEL, TERMS = 2, 64
"""Resolution at which the fourth moments of an activation with closed forms of its second ones begin."""

EQUAL = 4e-16
"""Rounding error of a correlation."""


def hidden_kernel(model: ResNet, kernel: np.ndarray) -> np.ndarray:
    """(..., N, N) G to A, the covariance of what sigma is applied to (eq. 11.2); an input that is 0 stays 0.

    >>> model = ResNet(block="two_matrix", normalisation="rms", activation="tanh", weight_variance=1.0, epsilon=0.1,
    ...                depth=1, hidden_bias_variance=0.5)
    >>> hidden_kernel(model, np.array([[4.0, 1.0], [1.0, 1.0]])).tolist()
    [[1.5, 1.0], [1.0, 1.5]]
    """
    normed = kernel
    if model.normalisation is not None:
        root = np.sqrt(np.diagonal(kernel, axis1=-2, axis2=-1))
        scale = root[..., :, None] * root[..., None, :]
        normed = np.divide(kernel, scale, out=np.zeros_like(kernel), where=scale > 0)
        # proportional inputs are equal up to the sign, not nearly so
        normed = np.where(np.abs(np.abs(normed) - 1) <= EQUAL, np.sign(normed), normed)
    return model.hidden_weight_variance * normed + model.hidden_bias_variance


@dataclass(frozen=True, eq=False)
class BranchExpectations(Expectations):
    """E2 of a branch with its derivatives by the entries of G (eq. 11.2, 11.3).

    Attributes:
        model: the network.
        inner: the integrals at the hidden covariance.
        series: those of fourth moments, which need Hermite coefficients; ``inner`` itself where it has them.
    """

    model: ResNet
    inner: Expectations
    series: MehlerExpectations

    @classmethod
    def of(cls, model: ResNet, numerics: Numerics, *, series: bool = False) -> BranchExpectations:
        """The coarsest, to be refined, as ``expectations`` gives it."""
        activation = get_activation(model.activation)
        inner = expectations(activation, numerics, series=series)
        own = inner if isinstance(inner, MehlerExpectations) else MehlerExpectations(activation, LEVEL, TERMS)
        return cls(model, inner, own)

    def moments(self, kernel: np.ndarray, order: int = 0) -> PairMoments:
        found = self.inner.moments(hidden_kernel(self.model, kernel), order)
        scale = self.model.hidden_weight_variance
        if self.model.normalisation is None:
            return PairMoments(
                found.value,
                None if found.gradient is None else scale * found.gradient,
                None if found.hessian is None else scale**2 * found.hessian,
            )
        if found.gradient is None:
            return found
        slopes, curvatures = _correlation(kernel)
        first = scale * found.gradient[..., 1, None]
        gradient = first * slopes
        if found.hessian is None:
            return PairMoments(found.value, gradient)
        second = scale**2 * found.hessian[..., 1, 1, None, None]
        outer = slopes[..., :, None] * slopes[..., None, :]
        return PairMoments(found.value, gradient, second * outer + first[..., None] * curvatures)

    def products(self, kernel: np.ndarray) -> np.ndarray:
        """(R, P, P) covariance of sigma sigma of one hidden neuron at the R kernels (R, N, N) of the input."""
        hidden = hidden_kernel(self.model, kernel)
        moments = self.series.moments(hidden)
        return sigma_covariance(self.series, hidden, moments, PairFunctions(self.series, hidden))

    def refined(self, *, nodes: bool, terms: bool) -> BranchExpectations | None:
        own = self.inner is self.series
        inner = self.inner.refined(nodes=nodes, terms=terms)
        series = self.series.refined(nodes=nodes, terms=terms)
        if inner is None and (own or series is None):
            return None
        if own:
            assert isinstance(inner, MehlerExpectations)
            return replace(self, inner=inner, series=inner)
        return replace(self, inner=inner or self.inner, series=series or self.series)

    def describe(self) -> dict[str, object]:
        own = self.inner is self.series
        return self.inner.describe() | ({} if own else {"fourth_moments": f"{self.series.terms} Mehler terms"})

    def concentrated(self, kernel: np.ndarray) -> BranchExpectations:
        """With nodes that resolve sigma at all these kernels (..., N, N) of the input."""
        largest = float(hidden_kernel(self.model, kernel).max())
        inner, series = (concentrated(engine, largest) for engine in (self.inner, self.series))
        assert isinstance(series, MehlerExpectations)
        return replace(self, inner=series if self.inner is self.series else inner, series=series)


def _correlation(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., P, 3) and (..., P, 3, 3): derivatives of G_ab / sqrt(G_aa G_bb) by G_aa, G_ab, G_bb; 0 for a = b."""
    first, second = pair_indices(kernel.shape[-1])
    diagonal = np.diagonal(kernel, axis1=-2, axis2=-1)
    a, c, b = diagonal[..., first], kernel[..., first, second], diagonal[..., second]
    known = (a > 0) & (b > 0) & (first != second)
    found = correlation_derivatives(np.where(known, a, 1.0), c, np.where(known, b, 1.0))
    return found[0] * known[..., None], found[1] * known[..., None, None]
