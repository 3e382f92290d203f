"""Closures of the kernel hierarchy, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from eftcore.specs import PredictionSpec
from eftcore.theory.closures.base import Closure
from eftcore.theory.closures.g_only import GOnly, SourceOnly
from eftcore.theory.closures.mean import Mean
from eftcore.theory.closures.sigma import Sigma
from eftcore.theory.closures.trigonometric import Trigonometric
from eftcore.theory.closures.two_matrix import TwoMatrix
from eftcore.theory.closures.wick import Wick, wick_class

_CLASSES: dict[str, type[Closure]] = {
    "mean": Mean,
    "source_only": SourceOnly,
    "g_only": GOnly,
    "sigma": Sigma,
    "wick": Wick,
    "exact": Trigonometric,
}


def closure_class(spec: PredictionSpec) -> type[Closure]:
    """The closure that a spec names; of two matrices, "g_only" and "exact" are the same."""
    if spec.model.block == "two_matrix" and spec.closure in ("g_only", "exact"):
        return TwoMatrix
    return _CLASSES[spec.closure]


def builder(spec: PredictionSpec) -> Callable[[np.ndarray, np.ndarray], Closure]:
    """What makes the closure that a spec asks for from the first and the last kernel.

    The exact closure of one matrix is not made here, since the number of its waves is found while it is solved.
    """
    if spec.closure == "wick":
        assert isinstance(spec.order, int)
        return partial(wick_class(spec.model), spec.model, order=spec.order)
    return partial(closure_class(spec), spec.model)


__all__ = ["Closure", "builder", "closure_class"]
