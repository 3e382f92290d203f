"""The exact leading order of blocks with two matrices, which is the G-only hierarchy (docs/theory.md, section 11).

Given the neurons of a layer, the hidden preactivations of its branch are fresh Gaussians with a covariance that G
alone determines. So G is a Markov chain, its drift E[S | G] = E2 is a function of G, and nothing is closed by hand.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from eftcore.gaussian.branch import BranchExpectations
from eftcore.gaussian.pair_moments import Expectations
from eftcore.theory.closures.base import Ingredients, State
from eftcore.theory.closures.g_only import GOnly


class TwoMatrix(GOnly):
    """The equations of ``GOnly`` with chi and H of the branch, exact in each layer (eq. 11.4-11.6).

    What m hidden neurons instead of infinitely many add is of order epsilon^4: it is part of ``second_order``.
    Ingredients: those of ``GOnly``, and ``products`` (P, P), the covariance of sigma sigma of one hidden neuron.
    """

    powers: ClassVar = {"V4": 2, "K1": 1}

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        assert isinstance(engine, BranchExpectations)
        return {**super().ingredients(kernel, engine), "products": engine.products(kernel)}

    def second_order(self, at: Ingredients, state: State) -> State:
        hidden = self.model.weight_variance**2 / self.network.hidden_ratio * at["products"]
        return {"V4": super().second_order(at, state)["V4"] + hidden}
