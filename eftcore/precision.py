"""How precise a simulation shall be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from eftcore.errors import InputError
from eftcore.identity import Spec
from eftcore.inputs.fields import Finite, Whole


class Precision(Spec):
    """How precise a simulation shall be: a bound on the standard error of one quantity, in place of a sample count.

    The error at one depth is sqrt(sum se^2) over pair space, as in eftcore.compare; the largest error over recorded
    depths has to meet the bound. ``absolute`` bounds the error itself; ``relative`` bounds the error divided by the
    Frobenius norm of the quantity at that depth, or, for K1 and U1, which start at 0, by the largest such norm over
    depth. No more than ``max_samples`` networks are simulated, whether or not the bound is met.

    >>> str(Precision(quantity="V4", relative=0.01))
    'V4 to 1 % (at most 1000000 networks)'
    """

    quantity: Literal["K0", "V4", "K1", "U1"]
    relative: Finite | None = Field(default=None, gt=0, lt=1)
    absolute: Finite | None = Field(default=None, gt=0)
    max_samples: Whole = Field(default=1_000_000, ge=2, description="networks after which to stop in any case")

    @model_validator(mode="after")
    def _one_bound(self) -> Precision:
        if (self.relative is None) == (self.absolute is None):
            raise InputError(
                "one of two is needed",
                place="relative",
                remedy="give either relative (such as 0.01) or absolute, and not both",
            )
        return self

    @property
    def bound(self) -> float:
        """The largest standard error allowed."""
        bound = self.relative if self.absolute is None else self.absolute
        assert bound is not None
        return bound

    def shown(self, error: float) -> str:
        """A standard error as text, in the units of the bound: a number or a percentage."""
        return f"{error:.3g}" if self.relative is None else f"{100 * error:.3g} %"

    def __str__(self) -> str:
        return f"{self.quantity} to {self.shown(self.bound)} (at most {self.max_samples} networks)"
