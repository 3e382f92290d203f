"""The quantities that are recorded over depth: name, shape, symbol, and the attribute of a result that holds each.

A new quantity is an entry here, an array of that name in ``eftcore.results.KernelTrajectories``, and a migration that
lets the database hold it; windows, rows, views, archives, exports and figures follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eftcore.errors import InputError
from eftcore.pairs import to_pairs


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One quantity. All are O(1) at large width and dimensionless (docs/theory.md, section 1).

    Attributes:
        name: its name in tables, SQL and files.
        attribute: the array of a result that holds it; its standard error has the same name and ``_se``.
        over: what an entry belongs to: "inputs", (N, N) at one layer; "pairs", (P, P) with P = N (N + 1) / 2 pairs of
            inputs a <= b; or "triples" of pairs, (P, P, P).
        symbol: its symbol as HTML, for figures.
        meaning: its meaning in a few words, as HTML.
        compared: whether errors and validity windows are found for it against every reference.
        measured: whether simulations of several widths together give it, and predictions of it are compared with that.
        aimed_at: whether a simulation can be run until it is known to a given precision.
        partial: whether entries of a result may be unknown: NaN in its array, and no row for SQL.
        next_order: the quantity that is its coefficient of 1/n at finite width; None where that is not known.
    """

    name: str
    attribute: str
    over: Literal["inputs", "pairs", "triples"]
    symbol: str
    meaning: str
    compared: bool = False
    measured: bool = False
    aimed_at: bool = True
    partial: bool = False
    next_order: str | None = None

    def of(self, result: Any) -> np.ndarray | None:
        """The quantity in a prediction or simulation, over R layers; None where the result lacks it.

        >>> from eftcore import InputKernel, ResNet, predict
        >>> theory = predict(ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=2),
        ...                  InputKernel.explicit([[1.0]]))
        >>> QUANTITIES["V4"].of(theory).shape, QUANTITIES["D"].of(theory)
        ((3, 1, 1), None)
        """
        values: np.ndarray | None = getattr(result, self.attribute, None)
        return values

    def next_of(self, result: Any) -> np.ndarray | None:
        """Its coefficient of 1/n in a result; None where the result lacks it."""
        return None if self.next_order is None else QUANTITIES[self.next_order].of(result)

    def standard_error_of(self, result: Any) -> np.ndarray | None:
        """Standard error of the quantity, of the same shape; None where the result is not statistical."""
        errors: np.ndarray | None = getattr(result, f"{self.attribute}_se", None)
        return errors

    def numerical_error_of(self, result: Any) -> float | None:
        """Estimated relative error of the numbers of a prediction; None where it is not known.

        Of the next order in 1/n this is also the error by the functions that are left out. For K0, V4 and K1 that one
        is an error of the theory, not of its numbers, and stands in the details of a prediction.
        """
        error: float | None
        if self.compared or not hasattr(result, "relative_error"):
            error = result.numerical_error.get(self.name)
        else:
            error = result.relative_error(self.name)
        return error

    def estimate_of(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        """(value, standard error) of the quantity. Raises InputError where the result lacks either."""
        value, error = self.of(result), self.standard_error_of(result)
        if value is None or error is None:
            raise InputError("this result has no estimate of it with a standard error", place=self.name)
        return value, error

    def shape(self, layers: int, entries: int) -> tuple[int, ...]:
        """Shape of its array over recorded layers; ``entries`` is N for a quantity over inputs, otherwise P.

        >>> QUANTITIES["K0"].shape(5, 2), QUANTITIES["T"].shape(5, 3)
        ((5, 2, 2), (5, 3, 3, 3))
        """
        return (layers, *[entries] * (3 if self.over == "triples" else 2))

    def norms(self, values: np.ndarray) -> np.ndarray:
        """(R,) Frobenius norms over pair space, where every pair of inputs counts once.

        >>> QUANTITIES["K0"].norms(np.array([[[3.0, 4.0], [4.0, 0.0]]])).tolist()
        [5.0]
        """
        entries = to_pairs(values) if self.over == "inputs" else values
        sizes: np.ndarray = np.linalg.norm(entries.reshape(len(entries), -1), axis=1)
        return sizes


QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity(
            name="K0",
            attribute="mean",
            over="inputs",
            symbol="K<sub>0</sub>",
            meaning="mean kernel",
            compared=True,
            next_order="K1",
        ),
        Quantity(
            name="V4",
            attribute="covariance",
            over="pairs",
            symbol="V<sub>4</sub>",
            meaning="n Cov(G, G)",
            compared=True,
            next_order="D",
        ),
        Quantity(
            name="K1",
            attribute="correction",
            over="inputs",
            symbol="K<sub>1</sub>",
            meaning="1/n mean correction",
            compared=True,
            next_order="K2",
        ),
        Quantity(
            name="U1",
            attribute="source",
            over="inputs",
            symbol="U<sub>1</sub>",
            meaning="source of K<sub>1</sub>",
        ),
        Quantity(
            name="Sigma",
            attribute="increment_covariance",
            over="pairs",
            symbol="Σ",
            meaning="source of V<sub>4</sub>",
            aimed_at=False,
        ),
        Quantity(
            name="D",
            attribute="covariance_next",
            over="pairs",
            symbol="D",
            meaning="1/n coefficient of V<sub>4</sub>",
            measured=True,
            aimed_at=False,
            partial=True,
        ),
        Quantity(
            name="K2",
            attribute="correction_next",
            over="inputs",
            symbol="K<sub>2</sub>",
            meaning="1/n coefficient of K<sub>1</sub>",
            measured=True,
            aimed_at=False,
            partial=True,
        ),
        Quantity(
            name="T",
            attribute="third_cumulant",
            over="triples",
            symbol="T",
            meaning="n<sup>2</sup> third cumulant of G",
            aimed_at=False,
            partial=True,
        ),
    )
}
"""All quantities by name, in the order in which tables list them."""

COMPARED = tuple(quantity for quantity in QUANTITIES.values() if quantity.compared)
"""The quantities that are compared with every reference; predictions estimate their numerical error."""

MEASURED = tuple(quantity for quantity in QUANTITIES.values() if quantity.measured)
"""The quantities that simulations of several widths give together."""

ORDER = {name: position for position, name in enumerate(QUANTITIES)}
"""Position of each quantity in that order, for sorting."""
