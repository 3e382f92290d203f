"""The exact leading order in terms of functions of one neuron (docs/theory.md, section 4).

The n neurons fluctuate around N(0, K0): xi^f is the 1/sqrt(n) fluctuation of the mean of f over independent neurons,
u the accumulated kernel response, u' = chi u + C_W xi^S (eq. 4.1-4.3). V4, K1 and U1 follow from Cov(u) and from the
covariances of u with functions of one neuron. Which functions these are tells the closures apart.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from eftcore.theory.closures.base import Ingredients, Observed, State
from eftcore.theory.closures.g_only import GOnly, wishart
from eftcore.theory.linear_response import with_transpose


class Response(GOnly):
    """V4 = Wishart(K0) + Cov(xi^G, u) + Cov(u, xi^G) + Cov(u) (eq. 4.4).

    Variables: U (P, P) = Cov(u), K1 (P,), and those from which a subclass finds the covariances of u with xi^S, xi^G
    and xi^{D f}. Ingredients: ``kernel``, ``chi`` and ``hessian`` of ``GOnly``, and those of a subclass.
    """

    @abstractmethod
    def products(self, at: Ingredients) -> np.ndarray:
        """(P, P) Cov(xi^S)."""

    @abstractmethod
    def with_products(self, at: Ingredients, state: State) -> np.ndarray:
        """(P, P) Cov(u_q, xi^S_p)."""

    @abstractmethod
    def with_kernel(self, at: Ingredients, state: State) -> np.ndarray:
        """(P, P) Cov(u_q, xi^G_p)."""

    @abstractmethod
    def with_derivatives(self, at: Ingredients, state: State) -> np.ndarray:
        """(P,) sum_q Cov(u_q, xi^{D_q f_p}) (eq. 4.5)."""

    def source(self, at: Ingredients, state: State) -> np.ndarray:
        """U1 = (1/C_W) chi K1 + (1/2) H : Cov(u) + sum_q Cov(xi^{D_q f_p}, u_q) (eq. 4.5)."""
        linear = self.respond(at["chi"], state["K1"]) / self.model.weight_variance
        source: np.ndarray = linear + self.tadpole(at["hessian"], state["U"]) + self.with_derivatives(at, state)
        return source

    def rates(self, at: Ingredients, state: State) -> State:
        """Those of U and K1 (eq. 4.18)."""
        c_w = self.model.weight_variance
        noise = self.with_products(at, state)
        return {
            "U": self.respond_both(at["chi"], state["U"]) + c_w * with_transpose(noise),
            "K1": c_w * self.source(at, state),
        }

    def second_order(self, at: Ingredients, state: State) -> State:
        c_w, chi = self.model.weight_variance, at["chi"]
        carried = self.respond(chi, self.with_products(at, state))
        transported = self.respond_right(self.respond(chi, state["U"]), chi)
        return {"U": transported + c_w * with_transpose(carried) + c_w**2 * self.products(at)}

    def observe(self, at: Ingredients, state: State) -> Observed:
        mixed = self.with_kernel(at, state)
        covariance = wishart(at["kernel"], 0) + with_transpose(mixed) + state["U"]
        return Observed(covariance, state["K1"], self.source(at, state))
