"""The kernel of the inputs at layer 0, where every prediction and every simulation starts."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from eftcore.errors import InputError, within
from eftcore.identity import Spec
from eftcore.inputs.fields import Finite, Label
from eftcore.inputs.sizes import MOST_INPUTS, check_inputs
from eftcore.inputs.tables import real_table

_LARGEST = 1e150
"""Largest entry of a kernel: V4 and its sums hold squares of entries, and float64 ends near 1e308."""

_SMALLEST_SQUARE = 1e-300

SYMMETRY_RTOL = 1e-10
PSD_RTOL = 1e-10


class InputKernel(Spec):
    """The kernel K^0 of the N inputs at layer 0: symmetric positive semi-definite, N x N.

    Singular kernels (duplicated inputs, a zero input, rank below N) are legal.
    """

    matrix: tuple[tuple[Finite, ...], ...]
    label: Label = Field(default="", description="shown to people; not part of the identity")

    @field_validator("matrix")
    @classmethod
    def _symmetric_psd(cls, rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if not rows:
            raise InputError("has no rows", remedy="give N rows of N numbers")
        for number, row in enumerate(rows):
            if len(row) != len(rows):
                raise InputError(
                    f"has {len(row)} numbers, where a square matrix of {len(rows)} rows has {len(rows)}",
                    place=number,
                    value=list(row),
                    remedy="give N rows of N numbers",
                )
        check_inputs(len(rows))
        k = np.array(rows)
        scale = float(np.abs(k).max())
        if scale > _LARGEST:
            raise InputError(
                f"has entries up to {scale:.3g}", remedy="rescale the inputs so that they stay below 1e150"
            )
        skew = float(np.abs(k - k.T).max())
        if skew > SYMMETRY_RTOL * scale:
            raise InputError(f"is not symmetric (largest |K - K^T| is {skew:.3g})", remedy="give (K + K^T) / 2")
        lowest = float(np.linalg.eigvalsh((k + k.T) / 2)[0])
        if lowest < -PSD_RTOL * scale * len(rows):
            raise InputError(
                f"is not positive semi-definite (lowest eigenvalue {lowest:.6g})",
                remedy="take X X^T of some data X",
            )
        return tuple(tuple(row) for row in ((k + k.T) / 2).tolist())

    @classmethod
    def equicorrelated(cls, *, n_inputs: int, variance: float, correlation: float) -> InputKernel:
        """variance [(1 - correlation) I + correlation 1 1^T].

        >>> InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3).matrix
        ((2.0, 0.6), (0.6, 2.0))
        """
        if not _is_real(n_inputs) or not 1 <= n_inputs <= MOST_INPUTS or int(n_inputs) != n_inputs:
            raise InputError(f"must be a whole number from 1 to {MOST_INPUTS}", place="n_inputs", value=n_inputs)
        n_inputs = int(n_inputs)
        if not (_is_real(variance) and variance >= 0):
            raise InputError("must be a finite number >= 0", place="variance", value=variance)
        lowest = -1.0 / (n_inputs - 1) if n_inputs > 1 else -1.0
        if not (_is_real(correlation) and lowest - 1e-12 <= correlation <= 1.0):
            raise InputError(
                f"must lie between {lowest:.6g} and 1 for {n_inputs} inputs", place="correlation", value=correlation
            )
        k = variance * ((1 - correlation) * np.eye(n_inputs) + correlation * np.ones((n_inputs, n_inputs)))
        np.fill_diagonal(k, variance)
        return cls(matrix=k.tolist(), label=f"equicorrelated(N={n_inputs}, K={variance:g}, rho={correlation:g})")

    @classmethod
    def explicit(cls, matrix: Any, *, label: str = "explicit") -> InputKernel:
        """Any symmetric positive semi-definite N x N matrix."""
        with within("matrix"):
            table = real_table(matrix)
        return cls(matrix=table.tolist(), label=label)

    @classmethod
    def from_data(cls, data: Any, *, label: str = "data") -> InputKernel:
        """X X^T / features of real inputs, one row each.

        Raises InputError where ``data`` is not a table of real numbers (eftcore.inputs.tables), and where the mean
        square of an input leaves the range of double precision, so that its kernel would be infinite or zero.

        >>> InputKernel.from_data([[1.0, 1.0], [1.0, -1.0]]).matrix
        ((1.0, 0.0), (0.0, 1.0))
        """
        with within("data"):
            x = real_table(data)
            if len(x) > MOST_INPUTS:
                raise InputError(
                    f"has {len(x)} rows: a kernel may have {MOST_INPUTS} inputs", remedy="choose fewer rows"
                )
            check_squares(x)
        return cls(matrix=(x @ x.T / x.shape[1]).tolist(), label=label)

    @property
    def array(self) -> np.ndarray:
        """(N, N) float64 copy of the matrix."""
        return np.array(self.matrix)

    @property
    def n_inputs(self) -> int:
        """N, the number of inputs."""
        return len(self.matrix)

    @property
    def variance(self) -> float:
        """Mean diagonal entry."""
        return float(np.mean(np.diag(self.array)))

    @property
    def correlation(self) -> float | None:
        """Mean off-diagonal correlation; None for one input or where a variance is zero."""
        k = self.array
        d = np.diag(k)
        if len(k) < 2 or (d <= 0).any():
            return None
        upper = np.triu_indices(len(k), 1)
        return float(np.mean((k / np.sqrt(np.outer(d, d)))[upper]))

    def identity(self) -> dict[str, Any]:
        return {"matrix": self.model_dump(mode="json")["matrix"]}


def _is_real(value: Any) -> bool:
    """Whether this is one finite real number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def check_squares(x: np.ndarray) -> None:
    """Raises InputError unless the mean square of every row of x (N, features) is zero, or within 1e-300 .. 1e150.

    A kernel made of squares that overflow or underflow would be infinite or zero, and scaling it would hide that.
    """
    largest = np.abs(x).max(axis=1)
    with np.errstate(over="ignore", under="ignore"):
        squares = np.mean(x * x, axis=1)
    wrong = np.flatnonzero((largest > 0) & ~((squares >= _SMALLEST_SQUARE) & (squares <= _LARGEST)))
    if wrong.size:
        row = int(wrong[0])
        what = "overflow" if largest[row] > 1 else "vanish"
        raise InputError(
            f"has values up to {largest[row]:.3g}, whose squares {what} in double precision",
            place=row,
            remedy="rescale the data, for example to values of order 1",
        )
