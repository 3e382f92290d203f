"""What a closure is: variables that evolve with depth along the mean kernel, and what they say about V4 and K1.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eftcore.gaussian.pair_moments import Expectations
from eftcore.specs import ResNet
from eftcore.theory.linear_response import LinearResponse

State = dict[str, np.ndarray]
"""The variables of a closure at one depth, by name: what evolves, and all that one layer hands on to the next.

Each is an array whose first axis has the P pairs of inputs, such as V4 (P, P) or K1 (P,); its shape is the same at all
depths.
"""

Ingredients = dict[str, np.ndarray]
"""What the rates need and the mean kernel K0 alone determines, by name, such as chi (P, 3) at one depth.

They are smooth in depth, so that deep networks compute them at some layers and interpolate between these. At several
depths at once each has a leading axis over depths.
"""


@dataclass(frozen=True)
class Observed:
    """What a closure predicts at one depth. None where it predicts nothing.

    Attributes:
        covariance: (P, P) V4.
        correction: (P,) K1.
        source: (P,) U1, with K1' = C_W U1.
        increment_covariance: (P, P) Sigma(K0), where it drives V4 as it stands.
        covariance_next: (P, P) D.
        correction_next: (P,) K2.
        third_cumulant: (P, P, P) T.
    """

    covariance: np.ndarray | None = None
    correction: np.ndarray | None = None
    source: np.ndarray | None = None
    increment_covariance: np.ndarray | None = None
    covariance_next: np.ndarray | None = None
    correction_next: np.ndarray | None = None
    third_cumulant: np.ndarray | None = None


class Closure(LinearResponse, ABC):
    """One closed set of equations for how fluctuations evolve with depth. Time is t = epsilon^2 * layer.

    A layer is a step of size h = epsilon^2, ``state + h rates + h^2 second_order``: the first two terms are the paper's
    forward Euler step, the third completes every power of epsilon (eq. 3.6). The limit epsilon -> 0 is the ordinary
    differential equation with ``rates`` (eq. 3.8).

    A class gives all abstract methods, and ``moments_order`` and ``powers``. One without variables says so: its states
    are empty (see ``Mean``).

    Attributes:
        model: the network.
        start: (N, N) K0 at layer 0.
        final: (N, N) K0 at the last layer, for the scale that K0 reaches.
    """

    moments_order: ClassVar[int]
    """How often the ingredients need E2 differentiated: 0 for E2 alone, 1 for chi too, 2 for the Hessian too.

    The integrals are refined until all these derivatives are known to the requested accuracy.
    """

    powers: ClassVar[dict[str, int]]
    """For each variable the power p of its unit: it is multiplied by s^p where the kernel is measured in a unit that is
    s times smaller. The solver of the continuous equations takes its absolute tolerances from it."""

    needs_series: ClassVar[bool] = False
    """Whether the ingredients need Hermite coefficients of the activation, which closed forms of E2 do not give."""

    def __init__(self, model: ResNet, kernel: np.ndarray, final_kernel: np.ndarray) -> None:
        super().__init__(len(kernel))
        self.model = model
        self.start = kernel
        self.final = final_kernel

    @abstractmethod
    def initial(self) -> State:
        """The variables at layer 0, whose neurons are independent and Gaussian."""

    @abstractmethod
    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        """All ingredients at the R kernels (R, N, N), with leading axis R. ``engine`` does the Gaussian integrals.

        Those at one kernel do not depend on the other kernels. Raises InputError for an engine or an activation that
        the closure cannot use.
        """

    @abstractmethod
    def rates(self, at: Ingredients, state: State) -> State:
        """d/dt of every variable, from the ingredients and the state at one depth (eq. 3.8)."""

    @abstractmethod
    def second_order(self, at: Ingredients, state: State) -> State:
        """The coefficient of h^2 = epsilon^4 in one layer (eq. 3.6), without the variables for which it is 0."""

    @abstractmethod
    def observe(self, at: Ingredients, state: State) -> Observed:
        """The quantities that the closure predicts, from the ingredients and the state at one depth."""

    def step(self, at: Ingredients, state: State, h: float, *, exact: bool) -> State:
        """The state one layer deeper, h = epsilon^2; ``exact`` keeps every power of epsilon (eq. 3.6).

        A closure whose variables relax faster than forward Euler can follow replaces the step of these variables; it
        still agrees with h rates to first order in h.
        """
        rates = self.rates(at, state)
        second = self.second_order(at, state) if exact else {}
        return {
            name: value + h * rates[name] + (h * h * second[name] if name in second else 0.0)
            for name, value in state.items()
        }
