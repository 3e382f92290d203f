"""The result of a prediction: arrays over recorded depths, with the numerics' own error estimate (docs/theory.md)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from eftcore.specs import PredictionSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class Theory:
    """Kernel trajectories of one closure at R recorded layers, N inputs, P = N (N + 1) / 2 pairs a <= b row-major.

    Attributes:
        spec: what was computed.
        depth: (R,) recorded layers.
        time: (R,) t = epsilon^2 * layer.
        mean: (R, N, N) mean kernel K0 at infinite width.
        covariance: (R, P, P) V4 = n Cov(G_ab, G_cd), O(1) (eq. 1.5); None for the mean closure.
        correction: (R, N, N) K1 = n (E[G] - K0), O(1); None where the closure has none.
        source: (R, N, N) U1 with K1' = C_W U1; None where the closure has none.
        increment_covariance: (R, P, P) Sigma(K0), the source of V4 (eq. 1.11, 3.5), for the "source_only" and "g_only"
            closures, whose V4 is driven by it as it stands; a simulation's differs from it by O(1/n).
        covariance_se: (R, P, P) standard error of V4, for the sampled "particle" closure alone.
        correction_se: (R, N, N) standard error of K1, likewise.
        numerical_error: estimated relative error of the numerics (Frobenius, largest over depth) for each of
            "K0", "V4", "K1" that is present.
        converged: whether every estimate meets ``spec.numerics.rtol``; the published fixed rule need not.
        details: what the numerics chose (rule, nodes, Wick order, remaining truncation error, ...), JSON-able.
    """

    spec: PredictionSpec
    depth: np.ndarray
    time: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray | None = None
    correction: np.ndarray | None = None
    source: np.ndarray | None = None
    increment_covariance: np.ndarray | None = None
    covariance_se: np.ndarray | None = None
    correction_se: np.ndarray | None = None
    numerical_error: dict[str, float] = field(default_factory=dict)
    converged: bool = True
    details: dict[str, object] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are present, by attribute name (for storage; ``Theory(spec=..., **arrays)`` restores)."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
