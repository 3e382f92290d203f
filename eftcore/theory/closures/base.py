"""What a closure is: variables that evolve with depth along the mean kernel, and what they say about V4 and K1.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eftcore.gaussian.expectations import Expectations
from eftcore.pairs import pair_indices, pair_table
from eftcore.specs import ResNet

State = dict[str, np.ndarray]
"""Variables of a closure at one depth, by name."""

Ingredients = dict[str, np.ndarray]
"""What the right-hand side needs at one depth (or, with a leading axis, at several)."""


@dataclass(frozen=True)
class Observed:
    """What a closure predicts at one depth: V4 (P, P), K1 (P,), U1 (P,), and the source Sigma (P, P) of its V4.

    None where it predicts nothing.
    """

    covariance: np.ndarray | None = None
    correction: np.ndarray | None = None
    source: np.ndarray | None = None
    increment_covariance: np.ndarray | None = None


class Closure:
    """One closed set of equations. Time is t = epsilon^2 * layer.

    A step of size h = epsilon^2 is ``state + h rates + h^2 second_order``: the first two terms are the paper's forward
    Euler step, the third completes every power of epsilon; the limit epsilon -> 0 is the ODE with ``rates``
    (eq. 3.6 and 3.8).
    """

    moments_order: ClassVar[int] = 0
    """Derivatives of E2 that the integrals must resolve."""

    needs_series: ClassVar[bool] = False
    """Whether the closure needs Hermite coefficients, which closed forms do not give."""

    powers: ClassVar[dict[str, int]] = {}
    """Power of the kernel's scale that each variable carries, for absolute tolerances."""

    def __init__(self, model: ResNet, kernel: np.ndarray, final_kernel: np.ndarray) -> None:
        self.model = model
        self.start = kernel
        self.final = final_kernel
        self.n_inputs = len(kernel)
        first, second = pair_indices(self.n_inputs)
        table = pair_table(self.n_inputs)
        self.neighbours = np.stack([table[first, first], np.arange(len(first)), table[second, second]], axis=-1)
        """(P, 3): positions of the pairs aa, ab, bb for each pair (a, b)."""

    def initial(self) -> State:
        """Variables at depth 0."""
        return {}

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        """(R, N, N) kernels to everything the right-hand side needs at them, each with leading axis R."""
        return {}

    def rates(self, at: Ingredients, state: State) -> State:
        """d(state)/dt."""
        return {}

    def second_order(self, at: Ingredients, state: State) -> State:
        """The coefficient of epsilon^4 in one layer (eq. 3.6)."""
        return {}

    def step(self, at: Ingredients, state: State, h: float, *, exact: bool) -> State:
        """The state one layer deeper, h = epsilon^2; ``exact`` keeps every power of epsilon (eq. 3.6)."""
        rates = self.rates(at, state)
        second = self.second_order(at, state) if exact else {}
        return {
            name: value + h * rates[name] + (h * h * second[name] if name in second else 0.0)
            for name, value in state.items()
        }

    def observe(self, at: Ingredients, state: State) -> Observed:
        """V4, K1, U1 and Sigma at this depth."""
        return Observed()

    def respond(self, gradient: np.ndarray, x: np.ndarray) -> np.ndarray:
        """chi x for x of shape (P, ...): at most three entries per row (eq. 1.10)."""
        aa, _, bb = self.neighbours.T
        shape = (-1,) + (1,) * (x.ndim - 1)
        own, cross, other = (column.reshape(shape) for column in gradient.T)
        result = own * x[aa]
        result += cross * x
        result += other * x[bb]
        return result

    def respond_both(self, gradient: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """chi C + C chi^T for a symmetric (P, P) C (eq. 1.10)."""
        left = self.respond(gradient, covariance)
        return left + left.T

    def tadpole(self, hessian: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """(1/2) H : C, (P,): half the sum over q, r of H_p[q, r] C[q, r] (eq. 1.10)."""
        q, r = self.neighbours[:, :, None], self.neighbours[:, None, :]
        return 0.5 * np.einsum("pqr,pqr->p", hessian, covariance[q, r])
