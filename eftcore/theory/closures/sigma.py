"""The (G, sigma-kernel) closure: the smallest state that carries the sigma-kernel (docs/theory.md, section 5).

Variables: U = Cov(u), X_G = Cov(u, xi^G), X_S = Cov(u, xi^S), K1. xi^G is a martingale; xi^S drifts with the
generator sum_r Q_r D_r, closed by local projection.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from eftcore.errors import InputError
from eftcore.gaussian.fourth_moments import sigma_covariance
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.pair_functions import PairFunctions
from eftcore.gaussian.pair_moments import Expectations
from eftcore.gaussian.projection import project
from eftcore.pairs import to_pairs
from eftcore.theory.closures.base import Ingredients, Observed, State, over_rows
from eftcore.theory.closures.g_only import GOnly, wishart
from eftcore.theory.linear_response import with_transpose
from eftcore.theory.relaxation import relaxation, second_order


class Sigma(GOnly):
    """U' = chi U + U chi^T + C_W (X_S + X_S^T);  X_G' = chi X_G + C_W Cov(xi^S, xi^G);
    X_S' = chi X_S + C_W Cov(xi^S, xi^S) + sum_r Q_r Cov(u, xi^{D_r f}) (eq. 5.1, 5.2 and 5.6).

    Variables: U, XG and XS, (P, P) each, whose rows belong to u; K1 (P,). Ingredients beside ``kernel``, ``chi`` and
    ``hessian`` of ``GOnly``, with columns q and s at the pairs aa, ab, bb of p:

    * ``sigma_sigma`` (P, P) Cov(xi^S, xi^S), eq. 5.7.
    * ``on_kernel`` and ``on_sigma`` (P, 3, 3): A^p_qs and B^p_qs, what the projection of D_q f_p has of
      (phi phi)_s and of (sigma sigma)_s, eq. 5.3.
    * ``drift_kernel`` and ``drift_sigma`` (P, 3): the same of sum_q Q_q D_q f_p, eq. 5.5.
    * ``gradient_after`` (P, 3): g of the next layer, <D_q f_p> at its kernel, eq. 5.10.
    * ``relaxation`` (P, 3): beta, how much of xi^S beyond its second Wick order one layer keeps, eq. 5.11.
    """

    needs_series: ClassVar = True
    powers: ClassVar = {"U": 2, "XG": 2, "XS": 2, "K1": 1}

    @property
    def own(self) -> np.ndarray:
        """(P,) whether p = (a, a)."""
        own: np.ndarray = self.neighbours[:, 0] == self.neighbours[:, 2]
        return own

    def initial(self) -> State:
        return {**{name: self.zeros(len(self.neighbours)) for name in ("U", "XG", "XS")}, "K1": self.zeros()}

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        if not isinstance(engine, MehlerExpectations):
            raise InputError(
                "the sigma closure needs 'auto', since the fixed rule lacks its integrals",
                place=("numerics", "quadrature"),
                value="gauss_hermite",
            )
        jumps = engine.activation.jumps
        if jumps:
            raise InputError(
                f"sigma jumps at x = {jumps[0]:g}, where the drift of the sigma-kernel is infinite",
                place="activation",
                value=self.model.activation,
                remedy="take closure = 'wick' or 'g_only'",
            )
        moments = engine.moments(kernel, 2)
        assert moments.gradient is not None
        assert moments.hessian is not None
        functions = PairFunctions(engine, kernel)
        sigma_sigma = sigma_covariance(engine, kernel, moments, functions)
        on_kernel, on_sigma = project(functions, moments, kernel, sigma_sigma, self.neighbours)
        increment = self.increment(moments.value)
        along = to_pairs(increment)[:, self.neighbours]
        drift_sigma = np.einsum("rpq,rpqs->rps", along, on_sigma)
        gram = sigma_sigma[:, self.neighbours[:, :, None], self.neighbours[:, None, :]]
        gram = gram - second_order(kernel, moments.gradient, self.neighbours)
        step = over_rows(self.model.epsilon**2, kernel)
        after, gradient_after = self._variance(kernel + step * increment, engine)
        return {
            "kernel": kernel,
            "chi": self.susceptibility(moments.gradient),
            "hessian": moments.hessian,
            "sigma_sigma": sigma_sigma,
            "on_kernel": on_kernel,
            "on_sigma": on_sigma,
            "drift_kernel": np.einsum("rpq,rpqs->rps", along, on_kernel),
            "drift_sigma": drift_sigma,
            "gradient_after": gradient_after,
            "relaxation": relaxation(
                over_rows(self.model.epsilon**2, drift_sigma) * drift_sigma, gram, after, self.neighbours
            ),
        }

    def _variance(self, kernel: np.ndarray, engine: MehlerExpectations) -> tuple[np.ndarray, np.ndarray]:
        """(R, P) variance of r_p = f_p less its second Wick order, and (R, P, 3) <D_q f_p>."""
        moments = engine.moments(kernel, 1)
        assert moments.gradient is not None
        functions = PairFunctions(engine, kernel)
        square = functions.mean("s2", "s2")
        square[:, self.own] = functions.single("s4")
        second = second_order(kernel, moments.gradient, self.neighbours)[..., 1, 1]
        return square - moments.value**2 - second, moments.gradient

    def source(self, at: Ingredients, state: State) -> np.ndarray:
        """U1 = (1/C_W) chi K1 + (1/2) H : Cov(u) + sum_q Cov(xi^{D_q f_p}, u_q), the last projected (eq. 4.5, 5.5)."""
        q, s = self.neighbours[:, :, None], self.neighbours[:, None, :]
        mixed = np.einsum("pqs...,pqs...->p...", at["on_kernel"], state["XG"][q, s])
        mixed += np.einsum("pqs...,pqs...->p...", at["on_sigma"], state["XS"][q, s])
        linear = self.respond(at["chi"], state["K1"]) / self.model.weight_variance
        source: np.ndarray = linear + self.tadpole(at["hessian"], state["U"]) + mixed
        return source

    def rates(self, at: Ingredients, state: State) -> State:
        c_w, chi = self.model.weight_variance, at["chi"]
        drift = self.respond_right(state["XG"], at["drift_kernel"])
        drift += self.respond_right(state["XS"], at["drift_sigma"])
        return {**self._carried(at, state), "XS": self.respond(chi, state["XS"]) + c_w * at["sigma_sigma"] + drift}

    def _carried(self, at: Ingredients, state: State) -> State:
        """The rates of U, XG and K1, which need no projection of the generator."""
        c_w, chi = self.model.weight_variance, at["chi"]
        response = self.respond(chi, state["U"])
        response += c_w * state["XS"]
        # C_W Cov(xi^S, xi^G) is the second Wick order, chi times the Wishart covariance
        kernels = wishart(at["kernel"], 0)
        kernels += state["XG"]
        return {
            "U": with_transpose(response),
            "XG": self.respond(chi, kernels),
            "K1": c_w * self.source(at, state),
        }

    def step(self, at: Ingredients, state: State, h: float | np.ndarray, *, exact: bool) -> State:
        """One layer: X_S relaxes by conditional expectation, with euler and exact steps alike (eq. 5.10)."""
        c_w, chi = self.model.weight_variance, at["chi"]
        after = {name: state[name] + h * rate for name, rate in self._carried(at, state).items()}
        if exact:
            after["U"] += h * h * self.second_order(at, state)["U"]
        rest = self.respond(chi, state["XS"])
        rest += c_w * at["sigma_sigma"]
        rest *= h
        rest += state["XS"]
        rest -= self.respond_right(after["XG"], chi / c_w)
        relaxed = self.respond_right(after["XG"], at["gradient_after"])
        relaxed += self.respond_right(rest, at["relaxation"])
        return {**after, "XS": relaxed}

    def second_order(self, at: Ingredients, state: State) -> State:
        c_w, chi = self.model.weight_variance, at["chi"]
        carried = self.respond_right(self.respond(chi, state["U"]), chi)
        carried += with_transpose(c_w * self.respond(chi, state["XS"]))
        carried += c_w**2 * at["sigma_sigma"]
        return {"U": carried}

    def observe(self, at: Ingredients, state: State) -> Observed:
        covariance = wishart(at["kernel"], 0) + with_transpose(state["XG"]) + state["U"]
        return Observed(covariance, state["K1"], self.source(at, state))
