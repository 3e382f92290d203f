"""What a closure is: variables that evolve with depth along the mean kernel, and what they say about V4 and K1.

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from eftcore.gaussian.pair_moments import Expectations
from eftcore.specs import ResNet
from eftcore.theory.linear_response import LinearResponse

State = dict[str, np.ndarray]
"""The variables of a closure at one depth, by name: what evolves, and all that one layer hands on to the next.

Each is an array whose first axis has the P pairs of inputs, such as V4 (P, P) or K1 (P,); its shape is the same at all
depths. Of B networks that are solved together it has one more axis at the end, such as V4 (P, P, B).
"""

Ingredients = dict[str, np.ndarray]
"""What the rates need and the mean kernel K0 alone determines, by name, such as chi (P, 3) at one depth.

They are smooth in depth, so that deep networks compute them at some layers and interpolate between these. At several
depths at once each has a leading axis over depths. Of B networks that are solved together each has one more axis at the
end, as the state has.
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


@dataclass(frozen=True)
class Networks:
    """What closures need to know of a network, for B networks with one activation: arrays (B,) of their constants."""

    activation: str
    weight_variance: np.ndarray
    bias_variance: np.ndarray
    epsilon: np.ndarray

    @classmethod
    def of(cls, models: Sequence[ResNet]) -> Networks:
        """The constants of networks of one activation."""
        return cls(
            models[0].activation,
            np.array([model.weight_variance for model in models]),
            np.array([model.bias_variance for model in models]),
            np.array([model.epsilon for model in models]),
        )


def over_rows(constant: float | np.ndarray, rows: np.ndarray) -> float | np.ndarray:
    """A constant of one network, or those (R,) of R networks, as a factor of ``rows`` (R, ...)."""
    return constant if isinstance(constant, float) else constant.reshape(-1, *(1,) * (rows.ndim - 1))


class Closure(LinearResponse, ABC):
    """One closed set of equations for how fluctuations evolve with depth. Time is t = epsilon^2 * layer.

    A layer is a step of size h = epsilon^2, ``state + h rates + h^2 second_order``: the first two terms are the paper's
    forward Euler step, the third completes every power of epsilon (eq. 3.6). The limit epsilon -> 0 is the ordinary
    differential equation with ``rates`` (eq. 3.8).

    A class gives all abstract methods, and ``moments_order`` and ``powers``. One without variables says so: its states
    are empty (see ``Mean``).

    All methods but ``ingredients`` also serve B networks at once where ``stackable`` says so: arrays have one more axis
    at their end, over networks, and the constants in ``model`` are arrays (B,) (see ``stacked``).

    Attributes:
        model: the network.
        start: (N, N) K0 at layer 0; (N, N, B) of B networks.
        final: (N, N) K0 at the last layer, for the scale that K0 reaches; (N, N, B) of B networks.
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

    stackable: ClassVar[bool] = False
    """Whether networks with one activation and as many inputs may be solved together."""

    def __init__(self, model: ResNet, kernel: np.ndarray, final_kernel: np.ndarray) -> None:
        super().__init__(len(kernel))
        self.model: ResNet | Networks = model
        self.start = kernel
        self.final = final_kernel

    @property
    def pattern(self) -> Hashable | None:
        """What closures of a class must have in common to be stacked; None where this one cannot be."""
        if not self.stackable or not isinstance(self.model, ResNet) or not self.model.of_the_paper:
            return None
        return self.model.activation, self.n_inputs

    @classmethod
    def stacked(cls, closures: Sequence[Self]) -> Self:
        """One closure for the networks of B closures of the same ``pattern``, in their order."""
        one = copy.copy(closures[0])
        one.model = Networks.of([closure.model for closure in closures if isinstance(closure.model, ResNet)])
        one.start = np.stack([closure.start for closure in closures], axis=-1)
        one.final = np.stack([closure.final for closure in closures], axis=-1)
        return one

    def separate(self, ingredients: Ingredients, place: int) -> Ingredients:
        """Of ingredients at kernels of the ``place``-th network, in arrays as all stacked networks need them, its own.

        The other way round from ``align``.
        """
        return ingredients

    def align(self, ingredients: Sequence[Ingredients]) -> Sequence[Ingredients]:
        """The ingredients of each of the stacked networks, leading axis over depths, in arrays of the same shapes."""
        return ingredients

    @property
    def network(self) -> ResNet:
        """The network of a closure that is not stacked."""
        assert isinstance(self.model, ResNet)
        return self.model

    @property
    def batch(self) -> tuple[int, ...]:
        """The last axes of all arrays: () of one network, (B,) of B networks."""
        return self.start.shape[2:]

    def zeros(self, *shape: int) -> np.ndarray:
        """(P, *shape, *B) zeros."""
        return np.zeros((len(self.neighbours), *shape, *self.batch))

    @abstractmethod
    def initial(self) -> State:
        """The variables at layer 0, whose neurons are independent and Gaussian."""

    @abstractmethod
    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        """All ingredients at the R kernels (R, N, N), with leading axis R. ``engine`` does the Gaussian integrals.

        Those at one kernel do not depend on the other kernels. Of a stacked closure of R networks the r-th kernel
        belongs to the r-th of them. Raises InputError for an engine or an activation that the closure cannot use.
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

    def step(self, at: Ingredients, state: State, h: float | np.ndarray, *, exact: bool) -> State:
        """The state one layer deeper; ``exact`` keeps every power of epsilon (eq. 3.6).

        ``h`` is epsilon^2, (B,) of B networks. A closure whose variables relax faster than forward Euler can follow
        replaces the step of these variables; it still agrees with h rates to first order in h.
        """
        rates = self.rates(at, state)
        second = self.second_order(at, state) if exact else {}
        return {
            name: value + h * rates[name] + (h * h * second[name] if name in second else 0.0)
            for name, value in state.items()
        }
