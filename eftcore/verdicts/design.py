"""The predictions from which it follows how deep and how wide a network can be trusted to which theory.

``eft design`` and the first page of the explorer answer from them.
"""

from __future__ import annotations

from eftcore.inputs.kernel import InputKernel
from eftcore.specs import PredictionSpec, ResNet, default_depths

RECORDED = 100
"""Number of depths at which windows are looked for."""

TRUNCATION = 0.01
"""Relative error of the exact closure, small beside any tolerance that is asked for."""


def design_specs(model: ResNet, kernel: InputKernel) -> dict[str, PredictionSpec]:
    """Predictions by name, from the simplest theory on, with every power of epsilon and for the same layers.

    "exact" has the next order in 1/n. Networks whose G-only hierarchy is exact have no other closures.

    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=100)
    >>> list(design_specs(model, InputKernel.explicit([[1.0]])))
    ['g_only', 'sigma', 'exact']
    """
    common = {"model": model, "kernel": kernel, "depths": default_depths(model.depth, RECORDED)}
    usual = ("g_only", "sigma") if model.block == "one_matrix" else ()
    closures = [name for name in usual if name in model.closures]
    return {
        **{name: PredictionSpec(**common, closure=name, step="exact") for name in closures},
        "exact": PredictionSpec(**common, closure="exact", next_order=True, truncation=TRUNCATION),
    }
