"""The Wick hierarchy of the exact leading order, truncated at a total order m (docs/theory.md, section 4).

The n neurons fluctuate around N(0, K0): xi^f is the 1/sqrt(n) fluctuation of the mean of f over independent neurons,
u the accumulated kernel response, u' = chi u + C_W xi^S (eq. 4.1-4.3). Wick powers are martingales along a path, so
Z = Cov(u_q, Wick power of pair p) obeys Z' = chi Z + C_W Cov(xi^S, Wick power) at equal times, written in orthonormal
variables of the current layer. Order 2 is the G-only theory with a normal-ordered source; m -> infinity is exact at
any epsilon. Orders do not mix, so what they contribute to V4, K1 and U1 adds up (eq. 4.22).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from eftcore.activations import get_activation
from eftcore.errors import InputError
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.pair_moments import Expectations
from eftcore.gaussian.wick_algebra import shear
from eftcore.gaussian.wick_series import Whitening, WickSeries, components, contract
from eftcore.pairs import pair_indices
from eftcore.specs import ResNet
from eftcore.theory.closures.base import Ingredients, Observed, State
from eftcore.theory.closures.g_only import GOnly, wishart


class Wick(GOnly):
    """V4 = Wishart(K0) + Cov(xi^G, u) + Cov(u, xi^G) + Cov(u), from the orders 1 to m (eq. 4.4, 4.15, 4.18).

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
        if not isinstance(engine, MehlerExpectations):
            raise InputError(
                "the wick closure needs 'auto', since the fixed rule has no Wick expansion",
                place=("numerics", "quadrature"),
                value="gauss_hermite",
            )
        moments = engine.moments(kernel, 2)
        assert moments.gradient is not None
        assert moments.hessian is not None
        series = WickSeries(engine, kernel, self.basis)
        products = series.products()
        drive = contract(products, kernel, series.white, self.basis)
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
            "factor": series.white.factor,
            "turn": after.inverse @ series.white.factor,
            "spread": series.white.inverse @ noise @ np.swapaxes(series.white.inverse, -1, -2),
        }

    def _response_noise(self, at: Ingredients, state: State) -> np.ndarray:
        """(P, P) Cov(u_q, xi^S_p)."""
        covariance: np.ndarray = np.einsum("qpi,pi->qp", state["Z"], at["products"])
        return covariance

    def source(self, at: Ingredients, state: State) -> np.ndarray:
        """U1 = (1/C_W) chi K1 + (1/2) H : Cov(u) + sum_q Cov(xi^{D_q f_p}, u_q) (eq. 4.5, 4.21)."""
        pair = np.arange(len(self.neighbours))[:, None]
        mixed = np.einsum("pqi,pqi->p", at["derivatives"], state["Z"][self.neighbours, pair])
        linear = self.respond(at["chi"], state["K1"]) / self.model.weight_variance
        source: np.ndarray = linear + self.tadpole(at["hessian"], state["U"]) + mixed
        return source

    def rates(self, at: Ingredients, state: State) -> State:
        c_w = self.model.weight_variance
        noise = self._response_noise(at, state)
        return {
            "Z": self.respond(at["chi"], state["Z"]) + c_w * at["drive"] - self._turn(at["spread"], state["Z"]),
            "U": self.respond_both(at["chi"], state["U"]) + c_w * (noise + noise.T),
            "K1": c_w * self.source(at, state),
        }

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

    def second_order(self, at: Ingredients, state: State) -> State:
        c_w, chi = self.model.weight_variance, at["chi"]
        carried = self.respond(chi, self._response_noise(at, state))
        transported = self.respond(chi, self.respond(chi, state["U"]).T)
        noise = np.einsum("qpi,pi->qp", at["drive"], at["products"])
        return {"U": transported + c_w * (carried + carried.T) + c_w**2 * noise}

    def step(self, at: Ingredients, state: State, h: float, *, exact: bool) -> State:
        """One layer: Z is exact for any step, since forward Euler of (4.17) is unstable at high order."""
        after = super().step(at, state, h, exact=exact)
        here = state["Z"] + h * (self.respond(at["chi"], state["Z"]) + self.model.weight_variance * at["drive"])
        after["Z"] = shear(here, at["turn"], self.basis.first, self.basis.second)
        return after

    def observe(self, at: Ingredients, state: State) -> Observed:
        covariance = state["U"]
        if 2 in self.basis.orders:
            mixed = self._response_kernel(at["factor"], state["Z"])
            covariance = wishart(at["kernel"]) + mixed + mixed.T + covariance
        return Observed(covariance, state["K1"], self.source(at, state))

    def _response_kernel(self, factor: np.ndarray, z: np.ndarray) -> np.ndarray:
        """(P, P) Cov(u_q, xi^G_p): as :phi_a phi_b: = C_11 C_21 :z_1^2: + C_11 C_22 :z_1 z_2: (eq. 4.20)."""
        square = factor[:, 0, 0] * np.where(self.own, factor[:, 0, 0], factor[:, 1, 0])
        found: np.ndarray = np.sqrt(2.0) * square * z[..., self.basis.position(2, 0)]
        if not self.basis.single:
            found = found + factor[:, 0, 0] * factor[:, 1, 1] * z[..., self.basis.position(1, 1)]
        return found
