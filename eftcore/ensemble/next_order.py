"""D and K2 measured from simulated networks of several widths (docs/theory.md, section 10.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eftcore.ensemble.sample import Sample
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory
from eftcore.specs import MeasurementSpec

_MEASURED_FROM = {"D": "V4", "K2": "K1"}
"""The quantity of whose simulated values each measured one is the coefficient of 1/n."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredNextOrder:
    """The next order in 1/n of a network with N inputs and P pairs a <= b, at R recorded layers.

    It is a reference for predictions of the next order: ``eft.compare(theory, measured)``.

    Attributes:
        spec: what it was measured from.
        covariance_next: (R, P, P) D, V4(n) = V4 + D/n (eq. 10.3).
        covariance_next_se: (R, P, P) its standard error.
        correction_next: (R, N, N) K2, E[G] = K0 + K1/n + K2/n^2 (eq. 10.3).
        correction_next_se: (R, N, N) its standard error.
        freedom: (2, R) degrees of freedom of the standard errors of D and of K2, the fewest of all widths.
        trusted: (2, R) whether the standard errors of D and of K2 can be trusted at all widths.
    """

    spec: MeasurementSpec
    covariance_next: np.ndarray
    covariance_next_se: np.ndarray
    correction_next: np.ndarray
    correction_next_se: np.ndarray
    freedom: np.ndarray
    trusted: np.ndarray

    @property
    def depth(self) -> np.ndarray:
        """(R,) recorded layers."""
        return np.array(self.spec.depths, dtype=np.int64)

    @property
    def time(self) -> np.ndarray:
        """(R,) t = epsilon^2 * layer."""
        return self.spec.time

    @property
    def numerical_error(self) -> dict[str, float]:
        """Empty, because the standard errors contain the error of the leading order that was subtracted."""
        return {}

    def degrees_of_freedom(self, quantity: str) -> np.ndarray:
        """(R,) degrees of freedom of the standard errors of D or K2."""
        row: np.ndarray = self.freedom[list(_MEASURED_FROM).index(quantity)]
        return row

    def reliable(self, quantity: str) -> np.ndarray:
        """(R,) whether value +- 1.96 se of D or K2 is a 95 % interval."""
        row: np.ndarray = self.trusted[list(_MEASURED_FROM).index(quantity)]
        return row

    def group_fluctuations(self, quantity: str) -> None:
        """None: groups of networks are not followed through the fit."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the spec, for storage; from_arrays restores it exactly."""
        return {name: value for name, value in vars(self).items() if name != "spec"}

    @classmethod
    def from_arrays(cls, spec: MeasurementSpec, arrays: Mapping[str, Any]) -> MeasuredNextOrder:
        """The measurement with these arrays."""
        return cls(spec=spec, **arrays)


def measured_next_order(samples: Sequence[Sample], exact: Theory) -> MeasuredNextOrder:
    """D and K2 with standard errors, from samples of one network at two or more widths (eq. 10.10).

    At each width n, n (X_n - X0) = X1 + X2 / n + O(1/n^2) with the leading order X0 of ``exact``; X1 is the intercept
    of the weighted line through these numbers over 1/n. Its standard error has the statistical errors of the samples
    and the error that ``exact`` estimates for X0.

    Args:
        samples: of the same model, inputs and recorded layers at different widths; any number of inputs.
        exact: the exact closure (or another theory of the leading order) at the same layers.

    Raises InputError for fewer than two widths, or samples and a theory of different networks, inputs or layers.
    """
    spec = MeasurementSpec.of(exact.spec, [(sample.spec, sample.samples, sample.digest) for sample in samples])
    widths = np.array([float(sample.spec.width) for sample in samples])
    found: dict[str, np.ndarray] = {}
    for name, source in _MEASURED_FROM.items():
        attribute = QUANTITIES[name].attribute
        values, errors = zip(*(QUANTITIES[source].estimate_of(sample) for sample in samples), strict=True)
        leading = QUANTITIES[source].of(exact)
        if leading is None:
            raise InputError(f"has no {source}", place="exact", remedy="predict it with closure = 'exact'")
        known = (exact.relative_error(source) or 0.0) * np.abs(leading)
        found[attribute], found[f"{attribute}_se"] = _intercept(
            widths, np.array(values), np.array(errors), leading, known
        )
    sources = _MEASURED_FROM.values()
    return MeasuredNextOrder(
        spec=spec,
        freedom=np.array([np.min([sample.degrees_of_freedom(source) for sample in samples], 0) for source in sources]),
        trusted=np.array([np.all([sample.reliable(source) for sample in samples], 0) for source in sources]),
        **found,
    )


def _intercept(
    widths: np.ndarray, values: np.ndarray, errors: np.ndarray, leading: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """X1 and its standard error, of the shape of ``leading``, by weighted least squares over 1/n."""
    n = widths.reshape(-1, *[1] * leading.ndim)
    y, s = n * (values - leading), n * errors
    exactly = s == 0  # such as K1 at layer 0
    w = 1 / np.where(exactly, 1.0, s) ** 2
    x = 1 / n
    total, first, second = w.sum(0), (w * x).sum(0), (w * x * x).sum(0)
    determinant = total * second - first**2
    weights = w * (second - first * x) / determinant
    found = (weights * y).sum(0)
    variance = np.where(exactly, 0.0, (weights * s) ** 2).sum(0)
    # an error of X0 is common to all widths
    shared = np.abs((weights * n).sum(0)) * known
    return found, np.sqrt(variance + shared**2)
