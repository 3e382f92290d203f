"""The infinite-width closure: the mean kernel K0 alone (docs/theory.md, section 3)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from eftcore.gaussian.pair_moments import Expectations
from eftcore.theory.closures.base import Closure, Ingredients, Observed, State


class Mean(Closure):
    """Nothing fluctuates: no V4, no K1; K0 alone, which is solved for every closure (eq. 3.1).

    It has no variables, so it needs no ingredients, has no rates and observes nothing.
    """

    moments_order = 0
    powers: ClassVar = {}
    stackable: ClassVar = True

    def initial(self) -> State:
        return {}

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        return {}

    def rates(self, at: Ingredients, state: State) -> State:
        return {}

    def second_order(self, at: Ingredients, state: State) -> State:
        return {}

    def observe(self, at: Ingredients, state: State) -> Observed:
        return Observed()
