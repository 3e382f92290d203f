"""How large an error over depth is, given the errors of both sides (docs/theory.md, section 9: eq. 9.1, 9.2, 9.5, 9.6).

A reference is a sample with statistical errors, or a theory that estimates its own error; the theory that is judged
has numerical errors too. Norms are Frobenius norms over pair space, in the units of the quantity, at R recorded depths.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd

from eftcore.ensemble.bands import Noise
from eftcore.quantities import Quantity
from eftcore.results import Theory
from eftcore.specs import CheckSpec, EnsembleSpec, MeasurementSpec
from eftcore.theory.particle import SCRAMBLINGS
from eftcore.theory.solving import error_scales


class Measured(Protocol):
    """Estimates with statistical errors at R recorded layers, such as a simulated sample's.

    For each of the quantities K0, V4, K1, D and K2 that is present there is an array of standard errors of the same
    name with ``_se``; value +- 1.96 se is a 95 % interval. The methods take the name of such a quantity and return what
    is needed for bounds that hold at all depths at once.
    """

    @property
    def spec(self) -> EnsembleSpec | MeasurementSpec | CheckSpec:
        """The networks that were measured, and their inputs."""
        ...

    @property
    def depth(self) -> np.ndarray:
        """(R,) recorded layers."""
        ...

    def degrees_of_freedom(self, quantity: str) -> np.ndarray:
        """(R,) degrees of freedom of the standard errors; infinity where they are practically exact."""
        ...

    def group_fluctuations(self, quantity: str) -> np.ndarray | None:
        """(G, R, K) contributions of G independent groups of networks to the errors of K entries; or None."""
        ...

    def reliable(self, quantity: str) -> np.ndarray:
        """(R,) whether the standard errors can be trusted."""
        ...


Reference = Measured | Theory
"""What a theory is compared with: a simulated sample, the next order measured from several, or another theory."""


def reference_errors(
    reference: Reference, quantity: Quantity, rows: np.ndarray, counted: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Typical error of the reference, and the radius that its error exceeds at none of the depths ``rows``.

    Both are Frobenius norms over pair space, in the units of the quantity (eq. 9.1, 9.2, 9.5); ``counted`` marks the
    entries that are compared at these depths, None for all.
    """
    noise = _noise(reference, quantity, rows, counted)
    if noise is not None:
        return noise.size, noise.radius()
    assert isinstance(reference, Theory)
    left_out = reference.details.get("truncation_error")
    truncation = left_out.get(quantity.name, 0.0) if isinstance(left_out, dict) else 0.0
    known = _claimed(reference.numerical_error.get(quantity.name, 0.0) + float(truncation), reference, quantity)[rows]
    return known, known


def own_error(theory: Theory, quantity: Quantity, rows: np.ndarray, counted: np.ndarray | None) -> np.ndarray:
    """Numerical error of the compared theory at ``rows``, in the units of the quantity; 0 for a fixed rule.

    A fixed rule is judged together with the error of its integrals.
    """
    noise = _noise(theory, quantity, rows, counted)
    if noise is not None:
        return noise.radius()
    if theory.spec.numerics.quadrature == "gauss_hermite":
        return np.zeros(len(rows))
    claimed: np.ndarray = _claimed(quantity.numerical_error_of(theory) or 0.0, theory, quantity)[rows]
    return claimed


def _claimed(relative: float, theory: Theory, quantity: Quantity) -> np.ndarray:
    """(R,) a relative error estimate in the units of the quantity; infinite where the estimate failed."""
    absolute: np.ndarray = np.where(np.isfinite(relative), relative, np.inf) * error_scales(theory)[quantity.name]
    return absolute


def _noise(source: Reference, quantity: Quantity, rows: np.ndarray, counted: np.ndarray | None) -> Noise | None:
    """Statistical error of a sample, or of the sampled closure "particle", at the depths ``rows`` over the entries that
    are ``counted``; None for any other theory."""
    se = quantity.standard_error_of(source)
    if se is None:
        return None
    size = quantity.norms(se)
    if counted is not None:
        size[rows] = quantity.norms(np.where(counted, se[rows], 0.0))
    if isinstance(source, Theory):
        return Noise(size, np.full(len(size), SCRAMBLINGS - 1.0), None, np.full(len(size), True)).at(rows)
    return Noise(
        size=size,
        degrees_of_freedom=source.degrees_of_freedom(quantity.name),
        fluctuations=source.group_fluctuations(quantity.name),
        reliable=source.reliable(quantity.name),
    ).at(rows)


def error_bounds(
    quantity: Quantity,
    mine: np.ndarray,
    true: np.ndarray,
    spread: np.ndarray,
    radius: np.ndarray,
    numerics: np.ndarray,
) -> pd.DataFrame:
    """The rows of ``Comparison.errors`` of one quantity without their depth and time (eq. 9.1, 9.6).

    ``mine`` and ``true`` are its arrays over R depths; (R,) ``spread`` and ``radius`` come from ``reference_errors``,
    ``numerics`` from ``own_error``.
    """
    absolute, size = quantity.norms(mine - true), quantity.norms(true)
    known = size > radius
    blank, infinite = np.full(len(size), np.nan), np.full(len(size), np.inf)
    margin = radius + numerics
    with np.errstate(invalid="ignore"):
        least = np.where(np.isinf(margin), 0.0, np.maximum(absolute - margin, 0.0))
        most, over, under = absolute + margin, size + radius, size - radius
    return pd.DataFrame(
        {
            "quantity": quantity.name,
            "error": np.divide(absolute, size, out=blank.copy(), where=known),
            "error_se": np.divide(spread, size, out=blank.copy(), where=known),
            # a reference and a theory that are both exactly 0 agree
            "error_low": np.divide(least, over, out=np.zeros(len(size)), where=(over > 0) & (least > 0)),
            "error_high": np.divide(most, under, out=infinite.copy(), where=known),
            "resolution": np.divide(radius, under, out=infinite.copy(), where=known),
            "absolute_error": absolute,
            "absolute_error_se": spread,
            "defined": known,
        }
    )
