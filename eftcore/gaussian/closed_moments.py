"""Closed forms of E2 and its derivatives on stacks of kernels, as they are or moved by the bound of their rounding.

A closed form has no second resolution to compare with. To see what its rounding errors do to a solution, the same
equations are solved once more with every entry moved by its own rounding bound (eq. 6.22).
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np

from eftcore.activation_families import Parity
from eftcore.activations import Activation
from eftcore.gaussian.closed_forms import PROPORTIONAL, ClosedForm
from eftcore.gaussian.pair_moments import Expectations, PairMoments
from eftcore.gaussian.summed import Summed, independence
from eftcore.pairs import pair_indices

ROUNDING = 16 * 2.0**-52
"""Bound of the relative rounding error of a closed form's entries, as a fraction of the sum of their absolute terms."""

KERNEL_ROUNDING = 4 * 2.0**-52

# fractions of the rounding bound by which value, gradient and Hessian of two inputs move (eq. 6.22); OWN are those of
# one input, and of two equal or proportional inputs
OWN = (1.0, -0.8, 0.9)
VALUE = -0.7
_GRADIENT = np.array([0.9, -1.0, 0.8])
_HESSIAN = np.array([[1.0, -0.9, 0.7], [-0.9, -1.0, 0.8], [0.7, 0.8, 0.9]])


class ClosedMoments:
    """E2 and its derivatives at a stack of kernels, with bounds of their rounding errors.

    Attributes:
        value: (..., P) E2 (eq. 1.6).
        gradient: (..., P, 3) first derivatives, in the layout of PairMoments; None for order 0.
        hessian: (..., P, 3, 3) second derivatives, in the layout of PairMoments; None below order 2.
        value_size, gradient_size, hessian_size: sums of absolute terms, of the same shapes; ROUNDING times these sums
            bounds the rounding errors (eq. 6.18).

    Two equal inputs (or, for odd and even sigma, opposite ones) stay equal at all depths, so only the derivative of
    <sigma^2> in K_aa counts: it is written into the column of K_ab.
    """

    def __init__(
        self, form: ClosedForm, parity: Parity | None, kernel: np.ndarray, disturbed: bool = False, order: int = 2
    ) -> None:
        first, second = pair_indices(kernel.shape[-1])
        diagonal = np.diagonal(kernel, axis1=-2, axis2=-1)
        a, c, b = diagonal[..., first], kernel[..., first, second], diagonal[..., second]
        same = (a == b) & (c == a) | (first == second)
        opposite = (a == b) & (c == -a) & ~same & (parity is not None)
        if disturbed:
            tied = same | opposite | (independence(a, c, b) <= PROPORTIONAL)
            a, b = a * (1 - KERNEL_ROUNDING), b * (1 - KERNEL_ROUNDING)
            c = c * np.where(tied, 1 - KERNEL_ROUNDING, 1 + KERNEL_ROUNDING)
        self.value, self.value_size = np.empty(a.shape), np.empty(a.shape)
        self.gradient: np.ndarray | None = None
        self.hessian: np.ndarray | None = None
        if order >= 1:
            self.gradient, self.gradient_size = np.zeros((*a.shape, 3)), np.zeros((*a.shape, 3))
        if order >= 2:
            self.hessian, self.hessian_size = np.zeros((*a.shape, 3, 3)), np.zeros((*a.shape, 3, 3))
        self._two(form, same | opposite, a, c, b)
        own = np.broadcast_to(first == second, a.shape)
        self._one(form, own, a, 0, (1, 1, 1))
        self._one(form, same & ~own, a, 1, (1, 1, 1))
        # opposite inputs: K_ab = -K_aa, and E2 = -<sigma^2> for odd sigma
        self._one(form, opposite, a, 1, (-1, 1, -1) if parity == "odd" else (1, -1, 1))
        if disturbed:
            self._disturb(tied)

    def _two(self, form: ClosedForm, skip: np.ndarray, a: np.ndarray, c: np.ndarray, b: np.ndarray) -> None:
        keep = ~skip
        if not keep.any():
            return
        found = form.pair(a[keep], c[keep], b[keep])
        self._set(self.value, self.value_size, keep, found.value)
        if self.gradient is not None:
            for q, entry in enumerate(found.gradient()):
                self._set(self.gradient[..., q], self.gradient_size[..., q], keep, entry)
        if self.hessian is None:
            return
        for (q, r), entry in zip(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)), found.hessian(), strict=True):
            for i, j in {(q, r), (r, q)}:
                self._set(self.hessian[..., i, j], self.hessian_size[..., i, j], keep, entry)

    def _one(
        self, form: ClosedForm, where: np.ndarray, a: np.ndarray, column: int, signs: tuple[int, int, int]
    ) -> None:
        if not where.any():
            return
        value, slope, curvature = (entry * sign for entry, sign in zip(form.single(a[where]), signs, strict=True))
        self._set(self.value, self.value_size, where, value)
        if self.gradient is not None:
            self._set(self.gradient[..., column], self.gradient_size[..., column], where, slope)
        if self.hessian is not None:
            self._set(self.hessian[..., column, column], self.hessian_size[..., column, column], where, curvature)

    @staticmethod
    def _set(value: np.ndarray, size: np.ndarray, where: np.ndarray, entry: Summed) -> None:
        value[where], size[where] = entry.value, entry.size

    def _disturb(self, tied: np.ndarray) -> None:
        """Move every entry by a fixed fraction of its rounding bound, the same at all depths and for equal inputs."""
        self.value += ROUNDING * self.value_size * np.where(tied, OWN[0], VALUE)
        if self.gradient is not None:
            self.gradient += ROUNDING * self.gradient_size * np.where(tied[..., None], OWN[1], _GRADIENT)
        if self.hessian is not None:
            self.hessian += ROUNDING * self.hessian_size * np.where(tied[..., None, None], OWN[2], _HESSIAN)


@dataclass(frozen=True, eq=False)
class ClosedFormExpectations(Expectations):
    """Closed forms (eq. 6.8-6.12), whose only error is rounding.

    ``disturbed``: with every entry moved by a bound of its rounding error. It stands for the coarser of two
    resolutions, so that the difference of two solutions shows what rounding does to them (eq. 6.22).
    """

    activation: Activation
    form: ClosedForm
    disturbed: bool = False

    @property
    def kind(self) -> Hashable | None:
        return "closed", self.activation.name, self.disturbed

    @property
    def numbers(self) -> int:
        return 100

    def moments(self, kernel: np.ndarray, order: int = 0) -> PairMoments:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            found = ClosedMoments(self.form, self.activation.parity, kernel, self.disturbed, order)
        return PairMoments(found.value, found.gradient, found.hessian)

    def refined(self, *, nodes: bool, terms: bool) -> ClosedFormExpectations | None:
        """Undisturbed."""
        return replace(self, disturbed=False) if self.disturbed else None

    def describe(self) -> dict[str, object]:
        return {"rule": "closed form, disturbed" if self.disturbed else "closed form"}
