"""Gaussian pair expectations of one activation for whole stacks of kernels: what they are, and what computes them.

E2(K) = <sigma(phi_a) sigma(phi_b)>, its gradient (chi / C_W) and its Hessian. Three engines compute them: closed forms
(closed_moments.py), Mehler series (mehler.py) and the fixed rule of the published figures (tensor.py); expectations.py
chooses. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

PROPORTIONAL = 1e-13
"""Inputs with 1 - |rho| below this are treated as proportional."""

CHUNK = 4_000_000
"""Numbers that an engine holds at a time."""

# D_q f for q = aa, ab, bb as (factor, i, j) of <sigma^(i)_a sigma^(j)_b>, and D_q D_r f likewise (eq. 1.12)
GRADIENT = ((0.5, 2, 0), (1.0, 1, 1), (0.5, 0, 2))
HESSIAN = (
    ((0.25, 4, 0), (0.5, 3, 1), (0.25, 2, 2)),
    ((0.5, 3, 1), (1.0, 2, 2), (0.5, 1, 3)),
    ((0.25, 2, 2), (0.5, 1, 3), (0.25, 0, 4)),
)


@dataclass(frozen=True, eq=False)
class PairMoments:
    """Expectations for a stack of kernels; column order of q is aa, ab, bb of the pair p = (a, b).

    Attributes:
        value: (..., P) E2 = <f_p>, f_p = sigma(phi_a) sigma(phi_b) (eq. 1.6).
        gradient: (..., P, 3) <D_q f_p> (eq. 1.8, 1.9); a diagonal pair uses column 0 alone.
        hessian: (..., P, 3, 3) <D_q D_r f_p> (eq. 1.9); a diagonal pair uses entry 0, 0 alone.
    """

    value: np.ndarray
    gradient: np.ndarray | None = None
    hessian: np.ndarray | None = None


class Expectations(ABC):
    """A way of doing the integrals of one activation, at one resolution."""

    @abstractmethod
    def moments(self, kernel: np.ndarray, order: int = 0) -> PairMoments:
        """(..., N, N) kernels to E2 (order 0), and its gradient (1) and Hessian (2); None beyond ``order``."""

    @abstractmethod
    def refined(self, *, nodes: bool, terms: bool) -> Expectations | None:
        """More nodes (by sqrt 2) or Hermite terms (twice), or no rounding on purpose; None where nothing is left.

        Refining again and again ends with None.
        """

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Rule and resolution, JSON-able. For one activation the same description means the same integrals."""

    @property
    def kind(self) -> Hashable | None:
        """Engines of the same kind do the same integrals, and may be given the kernels of several networks at once.

        None where integrals at one kernel depend, beyond rounding, on which other kernels are given with it.
        """
        return None

    @property
    def numbers(self) -> int:
        """About how many numbers are held for each input of each kernel."""
        return 0


def correlations(kernel: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., M) correlation of inputs first and second; 0 at variance 0; exactly +-1 for proportional inputs."""
    diagonal = np.diagonal(kernel, axis1=-2, axis2=-1)
    scale = np.sqrt(diagonal[..., first] * diagonal[..., second])
    rho = np.divide(kernel[..., first, second], scale, out=np.zeros_like(scale), where=scale > 0)
    snapped: np.ndarray = np.where(np.abs(rho) > 1 - PROPORTIONAL, np.sign(rho), rho)
    return snapped


def powers(x: np.ndarray, count: int) -> np.ndarray:
    """(..., count) powers x^0 .. x^(count - 1) of x, (...).

    >>> powers(np.array([3.0]), 4).tolist()
    [[1.0, 3.0, 9.0, 27.0]]
    """
    found = np.empty((*x.shape, count))
    found[..., 0] = 1.0
    known, power = 1, x[..., None]
    while known < count:
        more = min(known, count - known)
        np.multiply(found[..., :more], power, out=found[..., known : known + more])
        known, power = known + more, power * power
    return found


def correlation_derivatives(a: np.ndarray, c: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 3) first and (..., 3, 3) second derivatives of c / sqrt(a b) by a, c and b, for a and b above 0.

    >>> correlation_derivatives(np.array(4.0), np.array(1.0), np.array(1.0))[0].tolist()
    [-0.0625, 0.5, -0.25]
    """
    root = np.sqrt(a * b)
    rho = c / root
    zero = np.zeros_like(rho)
    slopes = np.stack([-rho / (2 * a), 1 / root, -rho / (2 * b)], axis=-1)
    a_c, a_b, c_b = -1 / (2 * a * root), rho / (4 * a * b), -1 / (2 * b * root)
    rows = ((3 * rho / (4 * a**2), a_c, a_b), (a_c, zero, c_b), (a_b, c_b, 3 * rho / (4 * b**2)))
    return slopes, np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def in_parts(
    moments: Callable[[np.ndarray, int], list[np.ndarray]], kernel: np.ndarray, order: int, rows: int
) -> PairMoments:
    """Moments of (..., N, N) kernels, found for at most ``rows`` kernels at a time to bound the memory."""
    stack = kernel.reshape(-1, *kernel.shape[-2:])
    parts = [moments(stack[start : start + rows], order) for start in range(0, len(stack), rows)]
    shape = (*kernel.shape[:-2], parts[0][0].shape[-1])
    return PairMoments(
        np.concatenate([part[0] for part in parts]).reshape(shape),
        None if order < 1 else np.concatenate([part[1] for part in parts]).reshape(*shape, 3),
        None if order < 2 else np.concatenate([part[2] for part in parts]).reshape(*shape, 3, 3),
    )
