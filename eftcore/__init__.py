"""Theory and simulation of finite-width pre-activation ResNets: the collective-kernel effective field theory.

Public names; see docs/ for the theory and the README for a first example. Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eftcore.errors import (
    EftError,
    EnvironmentProblem,
    InputError,
    LawWarning,
    NumericsWarning,
    StepWarning,
    TruncationWarning,
)

if TYPE_CHECKING:
    from eftcore.activations import activation_names, get_activation, register_activation
    from eftcore.ensemble import Sample, simulate
    from eftcore.ensemble.next_order import MeasuredNextOrder, measured_next_order
    from eftcore.inputs.kernel import InputKernel
    from eftcore.measure.check import check
    from eftcore.measure.checked import Check, CheckedBlock
    from eftcore.precision import Precision
    from eftcore.results import Theory
    from eftcore.specs import EnsembleSpec, MeasurementSpec, Numerics, PredictionSpec, ResNet
    from eftcore.theory.many import predict_many
    from eftcore.theory.mean_field import mean_field
    from eftcore.theory.next_order.law import KernelLaw, kernel_law
    from eftcore.theory.prediction import predict, predict_spec
    from eftcore.verdicts.checks import TheoremCheck, same_law, theorem_table
    from eftcore.verdicts.residuals import EquationResidual, equation_residual
    from eftcore.verdicts.sources import compare_sources, sources_on
    from eftcore.verdicts.theorems import (
        block_law,
        check_theorems,
        ghost_free,
        initialisation,
        marginal_consistency,
        stochastic_recursion,
    )
    from eftcore.verdicts.wick_orders import WickContributions, wick_contributions
    from eftcore.verdicts.widths import width_windows
    from eftcore.verdicts.windows import Comparison, compare

_MODULES = {
    "activations": ("activation_names", "get_activation", "register_activation"),
    "inputs.kernel": ("InputKernel",),
    "precision": ("Precision",),
    "results": ("Theory",),
    "specs": ("EnsembleSpec", "MeasurementSpec", "Numerics", "PredictionSpec", "ResNet"),
    "theory.many": ("predict_many",),
    "theory.mean_field": ("mean_field",),
    "theory.next_order.law": ("KernelLaw", "kernel_law"),
    "theory.prediction": ("predict", "predict_spec"),
    "verdicts.checks": ("TheoremCheck", "same_law", "theorem_table"),
    "ensemble": ("Sample", "simulate"),
    "ensemble.next_order": ("MeasuredNextOrder", "measured_next_order"),
    "measure.check": ("check",),
    "measure.checked": ("Check", "CheckedBlock"),
    "verdicts.residuals": ("EquationResidual", "equation_residual"),
    "verdicts.sources": ("compare_sources", "sources_on"),
    "verdicts.theorems": (
        "block_law",
        "check_theorems",
        "ghost_free",
        "initialisation",
        "marginal_consistency",
        "stochastic_recursion",
    ),
    "verdicts.wick_orders": ("WickContributions", "wick_contributions"),
    "verdicts.widths": ("width_windows",),
    "verdicts.windows": ("Comparison", "compare"),
}
_LAZY = {name: f"eftcore.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "Check",
    "CheckedBlock",
    "Comparison",
    "EftError",
    "EnsembleSpec",
    "EnvironmentProblem",
    "EquationResidual",
    "InputError",
    "InputKernel",
    "KernelLaw",
    "LawWarning",
    "MeasuredNextOrder",
    "MeasurementSpec",
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
    "check",
    "check_theorems",
    "compare",
    "compare_sources",
    "equation_residual",
    "get_activation",
    "ghost_free",
    "initialisation",
    "kernel_law",
    "marginal_consistency",
    "mean_field",
    "measured_next_order",
    "predict",
    "predict_many",
    "predict_spec",
    "register_activation",
    "same_law",
    "simulate",
    "sources_on",
    "stochastic_recursion",
    "theorem_table",
    "wick_contributions",
    "width_windows",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'eftcore' has no attribute {name!r}")
