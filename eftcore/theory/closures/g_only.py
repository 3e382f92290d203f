"""The paper's G-only hierarchy: V4 driven by Sigma(K0), K1 by the one-loop tadpole (docs/theory.md, section 3)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from eftcore.gaussian.pair_moments import Expectations
from eftcore.pairs import product_covariance, to_matrix
from eftcore.theory.closures.base import Closure, Ingredients, Observed, State, over_rows


def wishart(kernel: np.ndarray, axis: int = -2) -> np.ndarray:
    """(..., P, P) V4 of independent Gaussian neurons: K_ac K_bd + K_ad K_bc (eq. 1.11).

    ``axis`` is the first one of the kernels: 0 for kernels (N, N, *B) and a result (P, P, *B).

    >>> wishart(np.array([[2.0]]))
    array([[8.]])
    """
    return product_covariance(kernel, kernel, axis)


def noise_source(kernel: np.ndarray, increment: np.ndarray, axis: int = -2) -> np.ndarray:
    """(..., P, P) Sigma_{ab,cd} = K_ac Q_bd + K_ad Q_bc + K_bc Q_ad + K_bd Q_ac; ``axis`` as above (eq. 1.11)."""
    source: np.ndarray = product_covariance(kernel, increment, axis) + product_covariance(increment, kernel, axis)
    return source


class SourceOnly(Closure):
    """V4' = Sigma(K0): fluctuations are made but not transported (eq. 3.5).

    Variable: V4 (P, P). Ingredients: ``kernel`` (N, N) K0, and ``increment`` (N, N) Q, the covariance that a neuron's
    increments have per unit of t.
    """

    moments_order = 0
    powers: ClassVar = {"V4": 2}
    stackable: ClassVar = True

    def initial(self) -> State:
        return {"V4": wishart(self.start, 0)}

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        return {"kernel": kernel, "increment": self.increment(engine.moments(kernel).value)}

    def increment(self, second_moment: np.ndarray) -> np.ndarray:
        """(R, P) E2 at R kernels to (R, N, N) Q = C_b + C_W E2 (eq. 1.4)."""
        weight, bias = (
            over_rows(constant, second_moment) for constant in (self.model.weight_variance, self.model.bias_variance)
        )
        return to_matrix(bias + weight * second_moment)

    def susceptibility(self, gradient: np.ndarray) -> np.ndarray:
        """(R, P, 3) gradients of E2 at R kernels to chi = C_W times these (eq. 1.9)."""
        chi: np.ndarray = over_rows(self.model.weight_variance, gradient) * gradient
        return chi

    def rates(self, at: Ingredients, state: State) -> State:
        return {"V4": self.noise(at)}

    def noise(self, at: Ingredients) -> np.ndarray:
        """(P, P) Sigma(K0), the source of V4 (eq. 3.5)."""
        return noise_source(at["kernel"], at["increment"], 0)

    def second_order(self, at: Ingredients, state: State) -> State:
        return {"V4": wishart(at["increment"], 0)}

    def observe(self, at: Ingredients, state: State) -> Observed:
        return Observed(covariance=state["V4"], increment_covariance=self.noise(at))


class GOnly(SourceOnly):
    """V4' = chi V4 + V4 chi^T + Sigma(K0);  K1' = chi K1 + (1/2) C_W H : V4 (eq. 3.2, 3.3 and 3.7).

    Variables: V4 (P, P) and K1 (P,). Ingredients: those of ``SourceOnly``; ``chi`` (P, 3), the susceptibility, and
    ``hessian`` (P, 3, 3), H, stored as LinearResponse says.
    """

    moments_order = 2
    powers: ClassVar = {"V4": 2, "K1": 1}

    def initial(self) -> State:
        return {**super().initial(), "K1": self.zeros()}

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        moments = engine.moments(kernel, 2)
        assert moments.gradient is not None
        assert moments.hessian is not None
        return {
            "kernel": kernel,
            "increment": self.increment(moments.value),
            "chi": self.susceptibility(moments.gradient),
            "hessian": moments.hessian,
        }

    def source(self, at: Ingredients, state: State) -> np.ndarray:
        """(P,) the model's U1 = (1/C_W) chi K1 + (1/2) H : V4 (eq. 3.4)."""
        linear = self.respond(at["chi"], state["K1"]) / self.model.weight_variance
        source: np.ndarray = linear + self.tadpole(at["hessian"], state["V4"])
        return source

    def rates(self, at: Ingredients, state: State) -> State:
        return {
            "V4": self.respond_both(at["chi"], state["V4"]) + self.noise(at),
            "K1": self.model.weight_variance * self.source(at, state),
        }

    def second_order(self, at: Ingredients, state: State) -> State:
        transported = self.respond_right(self.respond(at["chi"], state["V4"]), at["chi"])
        return {"V4": transported + wishart(at["increment"], 0)}

    def observe(self, at: Ingredients, state: State) -> Observed:
        return Observed(state["V4"], state["K1"], self.source(at, state), self.noise(at))
