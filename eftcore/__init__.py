"""Theory and simulation of finite-width pre-activation ResNets: the collective-kernel effective field theory.

Public names; see docs/ for the theory and the README for a first example. Heavy imports wait until used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eftcore.activations import activation_names, get_activation, register_activation
from eftcore.errors import EftError, EnvironmentProblem, InputError, NumericsWarning, StepWarning, TruncationWarning
from eftcore.mean_field import mean_field
from eftcore.prediction import predict, predict_spec
from eftcore.results import Theory
from eftcore.specs import EnsembleSpec, InputKernel, Numerics, Precision, PredictionSpec, ResNet

if TYPE_CHECKING:
    from eftcore.checks import TheoremCheck, same_law, theorem_table
    from eftcore.ensemble import Sample, simulate
    from eftcore.residuals import EquationResidual, equation_residual
    from eftcore.sources import compare_sources, sources_on
    from eftcore.theorems import (
        block_law,
        check_theorems,
        ghost_free,
        initialisation,
        marginal_consistency,
        stochastic_recursion,
    )
    from eftcore.wick_orders import WickContributions, wick_contributions
    from eftcore.windows import Comparison, compare

_MODULES = {
    "checks": ("TheoremCheck", "same_law", "theorem_table"),
    "ensemble": ("Sample", "simulate"),
    "residuals": ("EquationResidual", "equation_residual"),
    "sources": ("compare_sources", "sources_on"),
    "theorems": (
        "block_law",
        "check_theorems",
        "ghost_free",
        "initialisation",
        "marginal_consistency",
        "stochastic_recursion",
    ),
    "wick_orders": ("WickContributions", "wick_contributions"),
    "windows": ("Comparison", "compare"),
}
_LAZY = {name: f"eftcore.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "Comparison",
    "EftError",
    "EnsembleSpec",
    "EnvironmentProblem",
    "EquationResidual",
    "InputError",
    "InputKernel",
    "Numerics",
    "NumericsWarning",
    "Precision",
    "PredictionSpec",
    "ResNet",
    "Sample",
    "StepWarning",
    "TheoremCheck",
    "Theory",
    "TruncationWarning",
    "WickContributions",
    "activation_names",
    "block_law",
    "check_theorems",
    "compare",
    "compare_sources",
    "equation_residual",
    "get_activation",
    "ghost_free",
    "initialisation",
    "marginal_consistency",
    "mean_field",
    "predict",
    "predict_spec",
    "register_activation",
    "same_law",
    "simulate",
    "sources_on",
    "stochastic_recursion",
    "theorem_table",
    "wick_contributions",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'eftcore' has no attribute {name!r}")
