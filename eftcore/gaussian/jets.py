"""Second-order forward automatic differentiation in the three kernel entries (K_aa, K_ab, K_bb) of a pair.

The tensor Gauss-Hermite rule is written for E2 alone; jets give the exact first and second derivatives of that rule.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VARIABLES = 3


@dataclass(frozen=True)
class Jet:
    """A value with its exact first and second derivatives.

    Attributes:
        value: (...).
        gradient: (..., 3) derivatives by K_aa, K_ab, K_bb.
        hessian: (..., 3, 3) second derivatives.
    """

    value: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray

    @classmethod
    def variables(cls, *values: np.ndarray) -> tuple[Jet, ...]:
        """The three independent variables K_aa, K_ab, K_bb as jets at these values."""
        shape = np.shape(values[0])
        hessian = np.zeros((*shape, VARIABLES, VARIABLES))
        unit = np.eye(VARIABLES)
        return tuple(
            cls(np.asarray(value, dtype=float), np.broadcast_to(unit[k], (*shape, VARIABLES)), hessian)
            for k, value in enumerate(values)
        )

    def apply(self, value: np.ndarray, slope: np.ndarray, curvature: np.ndarray) -> Jet:
        """The jet of f(self), by the chain rule from f, f' and f'' at self.value (eq. 6.13)."""
        outer = self.gradient[..., :, None] * self.gradient[..., None, :]
        return Jet(
            value,
            slope[..., None] * self.gradient,
            slope[..., None, None] * self.hessian + curvature[..., None, None] * outer,
        )

    def __add__(self, other: Jet | float) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.value + other, self.gradient, self.hessian)
        return Jet(self.value + other.value, self.gradient + other.gradient, self.hessian + other.hessian)

    __radd__ = __add__

    def __neg__(self) -> Jet:
        return Jet(-self.value, -self.gradient, -self.hessian)

    def __sub__(self, other: Jet | float) -> Jet:
        return self + (-other)

    def __rsub__(self, other: float) -> Jet:
        return -self + other

    def __mul__(self, other: Jet | np.ndarray | float) -> Jet:
        if not isinstance(other, Jet):
            factor = np.asarray(other)
            return Jet(self.value * factor, self.gradient * factor[..., None], self.hessian * factor[..., None, None])
        cross = self.gradient[..., :, None] * other.gradient[..., None, :]
        return Jet(
            self.value * other.value,
            self.value[..., None] * other.gradient + other.value[..., None] * self.gradient,
            self.value[..., None, None] * other.hessian
            + other.value[..., None, None] * self.hessian
            + cross
            + np.swapaxes(cross, -1, -2),
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Jet | float) -> Jet:
        if not isinstance(other, Jet):
            return self * (1.0 / other)
        inverse = 1 / other.value
        return self * other.apply(inverse, -(inverse**2), 2 * inverse**3)

    def sqrt(self) -> Jet:
        root = np.sqrt(self.value)
        return self.apply(root, 0.5 / root, -0.25 / root**3)
