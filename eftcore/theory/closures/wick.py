"""The Wick hierarchy of the exact leading order, truncated at a total order m (docs/theory.md, section 4).

Wick powers are martingales along a path of one neuron, so Z = Cov(u_q, Wick power of pair p) obeys
Z' = chi Z + C_W Cov(xi^S, Wick power) at equal times, written in orthonormal variables of the current layer. Order 2 is
the G-only theory with a normal-ordered source; m -> infinity is exact at any epsilon. Orders do not mix, so what they
contribute to V4, K1 and U1 adds up (eq. 4.22).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from eftcore.activations import get_activation
from eftcore.gaussian.branch import BranchExpectations
from eftcore.gaussian.normalised_series import NormalisedSeries, inner_engine
from eftcore.gaussian.pair_moments import Expectations
from eftcore.gaussian.wick_algebra import shear
from eftcore.gaussian.wick_series import Whitening, WickSeries, components, contract
from eftcore.pairs import pair_indices
from eftcore.specs import ResNet
from eftcore.theory.closures.base import Ingredients, Observed, State
from eftcore.theory.closures.response import Response


class Wick(Response):
    """The covariances of u with the Wick powers of order 1 to m of each pair's inputs (eq. 4.15).

    Variables, with I components (i, j) of the orders that are kept: Z (P, P, I), whose entry q, p is the covariance of
    u_q with the Wick power h_i(z_1) h_j(z_2) of pair p; U (P, P) = Cov(u); K1 (P,). Ingredients beside ``kernel``,
    ``chi`` and ``hessian`` of ``GOnly``:

    * ``products`` (P, I): coefficients of f_p, eq. 4.11; ``derivatives`` (P, 3, I): those of D_q f_p, eq. 4.13.
    * ``drive`` (P, P, I): Cov(xi^S_q, Wick power of p), eq. 4.14, which drives Z.
    * ``factor`` (P, 2, 2): C, the inputs of p in terms of its orthonormal variables, eq. 4.10.
    * ``turn`` (P, 2, 2): C'^-1 C, the next layer's orthonormal variables in terms of this layer's, eq. 4.15.
    * ``spread`` (P, 2, 2): C^-1 Q C^-T, the increments' covariance per unit of t in these variables, eq. 4.17.
    """

    needs_series: ClassVar = True
    powers: ClassVar = {"Z": 1, "U": 2, "K1": 1}
    stackable: ClassVar = False

    def __init__(self, model: ResNet, kernel: np.ndarray, final_kernel: np.ndarray, order: int, above: int = 0) -> None:
        """Orders above + 1 .. order: what these add to V4, K1 and U1. The second one brings the Wishart part of V4."""
        super().__init__(model, kernel, final_kernel)
        even_only = get_activation(model.activation).parity is not None
        self.basis = components(order, even_only=even_only, above=above, single=self.n_inputs == 1)
        self.own = np.equal(*pair_indices(self.n_inputs))

    def initial(self) -> State:
        pairs = len(self.neighbours)
        return {
            "Z": np.zeros((pairs, pairs, len(self.basis.first))),
            "U": np.zeros((pairs, pairs)),
            "K1": np.zeros(pairs),
        }

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        moments = engine.moments(kernel, 2)
        assert moments.gradient is not None
        assert moments.hessian is not None
        series = self.expansion(engine, kernel)
        products, white = series.products(), Whitening(kernel)
        drive = contract(products, kernel, white, self.basis)
        increment = self.increment(moments.value)
        after = Whitening(kernel + self.model.epsilon**2 * increment)
        first, second = pair_indices(self.n_inputs)
        inputs = np.stack([first, second], axis=-1)
        noise = increment[:, inputs[:, :, None], inputs[:, None, :]]
        return {
            "kernel": kernel,
            "chi": self.model.weight_variance * moments.gradient,
            "hessian": moments.hessian,
            "drive": drive,
            "products": products,
            "derivatives": series.derivatives(),
            "factor": white.factor,
            "turn": after.inverse @ white.factor,
            "spread": white.inverse @ noise @ np.swapaxes(white.inverse, -1, -2),
            **self.beside(series),
        }

    def expansion(self, engine: Expectations, kernel: np.ndarray) -> WickSeries | NormalisedSeries:
        """What S is made of, at the R kernels. Raises InputError for integrals that have no Wick expansion."""
        return WickSeries(inner_engine(engine), kernel, self.basis)

    def beside(self, series: WickSeries | NormalisedSeries) -> Ingredients:
        """Further ingredients that the expansion gives."""
        return {}

    def products(self, at: Ingredients) -> np.ndarray:
        covariance: np.ndarray = np.einsum("qpi,pi->qp", at["drive"], at["products"])
        return covariance

    def with_products(self, at: Ingredients, state: State) -> np.ndarray:
        covariance: np.ndarray = np.einsum("qpi,pi->qp", state["Z"], at["products"])
        return covariance

    def with_derivatives(self, at: Ingredients, state: State) -> np.ndarray:
        """(P,) the sum over q and over the components of a pair (eq. 4.21)."""
        pair = np.arange(len(self.neighbours))[:, None]
        mixed: np.ndarray = np.einsum("pqi,pqi->p", at["derivatives"], state["Z"][self.neighbours, pair])
        return mixed

    def rates(self, at: Ingredients, state: State) -> State:
        drive = self.model.weight_variance * at["drive"]
        own = self.respond(at["chi"], state["Z"]) + drive - self._turn(at["spread"], state["Z"])
        return {"Z": own, **super().rates(at, state)}

    def _turn(self, spread: np.ndarray, z: np.ndarray) -> np.ndarray:
        """How orthonormal variables change: z' = -B z, C^-1 Q C^-T = B + B^T, B lower triangular (eq. 4.17)."""
        i, j = self.basis.first, self.basis.second
        own = 0.5 * (spread[:, 0, 0, None] * i + spread[:, 1, 1, None] * j)
        mixing = spread[:, 1, 0, None] * np.sqrt(j * (i + 1))
        shifted = np.zeros_like(z)
        # the component (i + 1, j - 1) of the same order stands next to (i, j)
        shifted[..., :-1] = z[..., 1:]
        turned: np.ndarray = own * z + mixing * shifted
        return turned

    def step(self, at: Ingredients, state: State, h: float | np.ndarray, *, exact: bool) -> State:
        """One layer: Z is exact for any step, since forward Euler of (4.17) is unstable at high order."""
        after = {name: state[name] + h * rate for name, rate in super().rates(at, state).items()}
        if exact:
            after["U"] += h * h * self.second_order(at, state)["U"]
        here = state["Z"] + h * (self.respond(at["chi"], state["Z"]) + self.model.weight_variance * at["drive"])
        after["Z"] = shear(here, at["turn"], self.basis.first, self.basis.second)
        return after

    def observe(self, at: Ingredients, state: State) -> Observed:
        if 2 in self.basis.orders:
            return super().observe(at, state)
        return Observed(state["U"], state["K1"], self.source(at, state))

    def with_kernel(self, at: Ingredients, state: State) -> np.ndarray:
        """As :phi_a phi_b: = C_11 C_21 :z_1^2: + C_11 C_22 :z_1 z_2: (eq. 4.20)."""
        factor, z = at["factor"], state["Z"]
        square = factor[:, 0, 0] * np.where(self.own, factor[:, 0, 0], factor[:, 1, 0])
        found: np.ndarray = np.sqrt(2.0) * square * z[..., self.basis.position(2, 0)]
        if not self.basis.single:
            found = found + factor[:, 0, 0] * factor[:, 1, 1] * z[..., self.basis.position(1, 1)]
        return found


class NormalisedWick(Wick):
    """The same behind a normalisation, where S responds to the kernel that is divided by, too (eq. 11.16-11.18).

    Ingredients: those of ``Wick``, of the functions f~_p and T_q f_p in place of f_p and D_q f_p; ``mixed``
    (P, 2, 3), T_r N_v <f_p>; ``offset`` (P,), U1 of independent Gaussian neurons.
    """

    def expansion(self, engine: Expectations, kernel: np.ndarray) -> NormalisedSeries:
        assert isinstance(engine, BranchExpectations)
        return NormalisedSeries(engine, kernel, self.basis)

    def beside(self, series: WickSeries | NormalisedSeries) -> Ingredients:
        assert isinstance(series, NormalisedSeries)
        return {"mixed": series.mixed(), "offset": series.offset()}

    def source(self, at: Ingredients, state: State) -> np.ndarray:
        """With what fluctuates together with the kernel that is divided by (eq. 11.18)."""
        found = super().source(at, state)
        if 2 in self.basis.orders:
            mixed = self.with_kernel(at, state)
            near = self.neighbours
            found = (
                found
                + at["offset"]
                + np.einsum("pvr,prv->p", at["mixed"], mixed[near[:, :, None], near[:, None, [0, 2]]])
            )
        return found


def wick_class(model: ResNet) -> type[Wick]:
    """The hierarchy of a network's block."""
    return Wick if model.of_the_paper else NormalisedWick
