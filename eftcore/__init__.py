"""Theory and simulation of finite-width pre-activation ResNets: the collective-kernel effective field theory.

Public names; see docs/ for the theory and the README for a first example. Heavy imports wait until used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eftcore.activations import activation_names, get_activation, register_activation
from eftcore.errors import EftError, EnvironmentProblem, InputError, NumericsWarning
from eftcore.mean_field import mean_field
from eftcore.prediction import predict, predict_spec
from eftcore.results import Theory
from eftcore.specs import EnsembleSpec, InputKernel, Numerics, PredictionSpec, ResNet

if TYPE_CHECKING:
    from eftcore.ensemble import Sample, simulate
    from eftcore.windows import Comparison, compare

_LAZY = {
    "Sample": "eftcore.ensemble",
    "simulate": "eftcore.ensemble",
    "Comparison": "eftcore.windows",
    "compare": "eftcore.windows",
}

__all__ = [
    "Comparison",
    "EftError",
    "EnsembleSpec",
    "EnvironmentProblem",
    "InputError",
    "InputKernel",
    "Numerics",
    "NumericsWarning",
    "PredictionSpec",
    "ResNet",
    "Sample",
    "Theory",
    "activation_names",
    "compare",
    "get_activation",
    "mean_field",
    "predict",
    "predict_spec",
    "register_activation",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'eftcore' has no attribute {name!r}")
