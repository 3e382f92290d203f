"""Results over recorded depths: kernel trajectories in general, and a theory's prediction (docs/theory.md)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from eftcore.specs import PredictionSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelTrajectories:
    """Kernel statistics at R recorded layers: N inputs, P = N (N + 1) / 2 pairs a <= b in row-major order.

    ``eftcore.quantities`` lists the quantities. The standard error of each is the field of the same name with ``_se``
    and of the same shape; it is None where the result is not statistical.

    Attributes:
        depth: (R,) recorded layers.
        time: (R,) t = epsilon^2 * layer.
        mean: (R, N, N) mean kernel: K0 of a theory, E[G] of a simulation.
        covariance: (R, P, P) V4 = n Cov(G_ab, G_cd), O(1) (eq. 1.5); None for the mean closure.
        correction: (R, N, N) K1 = n (E[G] - K0), O(1); None where a closure has none.
        source: (R, N, N) U1 with K1' = C_W U1; None where a closure has none.
        increment_covariance: (R, P, P) Sigma, the source of V4 (eq. 1.11, 3.5). A theory has Sigma(K0), and only with
            the closures "source_only" and "g_only", whose equation for V4 contains it; the Sigma of a simulation
            differs from Sigma(K0) by O(1/n).
        covariance_next: (R, P, P) D, V4(n) = V4 + D/n + O(1/n^2) (eq. 10.3); NaN for entries that belong to more inputs
            than were solved for together; None unless it was asked for.
        correction_next: (R, N, N) K2, E[G] = K0 + K1/n + K2/n^2 + O(1/n^3) (eq. 10.3); likewise.
        third_cumulant: (R, P, P, P) n^2 times the third cumulant of the kernel as n -> infinity (eq. 10.3); likewise.
        numerical_error: estimated relative error of the numerics (Frobenius norm, largest over depth), for each of K0,
            V4 and K1 that is present.
    """

    depth: np.ndarray
    time: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray | None = None
    correction: np.ndarray | None = None
    source: np.ndarray | None = None
    increment_covariance: np.ndarray | None = None
    covariance_next: np.ndarray | None = None
    correction_next: np.ndarray | None = None
    third_cumulant: np.ndarray | None = None
    mean_se: np.ndarray | None = None
    covariance_se: np.ndarray | None = None
    correction_se: np.ndarray | None = None
    source_se: np.ndarray | None = None
    increment_covariance_se: np.ndarray | None = None
    covariance_next_se: np.ndarray | None = None
    correction_next_se: np.ndarray | None = None
    third_cumulant_se: np.ndarray | None = None
    numerical_error: dict[str, float] = field(default_factory=dict)

    def trajectories(self) -> dict[str, Any]:
        """The fields listed above by name, without the further fields of a subclass."""
        return {item.name: getattr(self, item.name) for item in fields(KernelTrajectories)}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are present, by name, for storage."""
        return {name: value for name, value in self.trajectories().items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Theory(KernelTrajectories):
    """Kernel trajectories of one closure; the sampled "particle" closure has standard errors of V4 and K1.

    Attributes:
        spec: what was computed.
        converged: whether every estimate meets ``spec.numerics.rtol``; the published fixed rule need not.
        details: what the numerics chose (rule, nodes, Wick order, truncation error, ...), JSON-able.
    """

    spec: PredictionSpec
    converged: bool = True
    details: dict[str, object] = field(default_factory=dict)

    @property
    def order(self) -> int | str | None:
        """The highest Wick order in the solution, also where order = "auto" chose it; None for other closures."""
        found = self.details.get("wick_order") if self.spec.closure == "wick" else None
        return found if isinstance(found, int) else self.spec.order

    def relative_error(self, quantity: str) -> float | None:
        """Estimated relative error of a quantity: that of the numerics, and of what a series leaves out.

        ``quantity`` is K0, V4, K1, D, K2 or T. None where neither is known.

        >>> from eftcore import InputKernel, ResNet, predict
        >>> model = ResNet(activation="linear", weight_variance=1.0, epsilon=0.1, depth=2)
        >>> exact = predict(model, InputKernel.explicit([[1.0]]), "exact", next_order=True)
        >>> exact.relative_error("D") < 1e-9, exact.relative_error("U1")
        (True, None)
        """
        left_out = self.details.get("truncation_error")
        parts = [
            part[quantity] for part in (self.numerical_error, left_out) if isinstance(part, dict) and quantity in part
        ]
        return sum(map(float, parts)) if parts else None
