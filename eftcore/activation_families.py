"""The activations that come with the program: sigma, its derivatives, its kinks and its parity, family by family.

The functions here take the parameters of an activation and return the fields of eftcore.activations.Activation that
depend on them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import erf, expit, ndtr

from eftcore.errors import InputError

if TYPE_CHECKING:
    import torch

DERIVATIVES = 4
"""Highest derivative that the theory asks for (the Hessian of E2)."""

Parity = Literal["odd", "even"]


@dataclass(frozen=True)
class Family:
    """What makes an activation of its parameters, and the default of each parameter."""

    build: Callable[..., dict[str, Any]]
    defaults: dict[str, float]


FAMILIES: dict[str, Family] = {}


def family(name: str) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """Enter the decorated function into FAMILIES under this name; its arguments are the parameters."""

    def register(build: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        defaults = {key: parameter.default for key, parameter in inspect.signature(build).parameters.items()}
        FAMILIES[name] = Family(build, defaults)
        return build

    return register


@family("linear")
def _linear() -> dict[str, Any]:
    def derivatives(x: np.ndarray) -> np.ndarray:
        zero = np.zeros_like(x)
        return np.stack([x, zero + 1.0, zero, zero, zero])

    return {"function": lambda x: x, "derivatives": derivatives, "torch_function": lambda x: x, "parity": "odd"}


@family("tanh")
def _tanh() -> dict[str, Any]:
    def derivatives(x: np.ndarray) -> np.ndarray:
        t = np.tanh(x)
        slope = 1 / np.cosh(np.minimum(np.abs(x), 350.0)) ** 2
        square = t * t
        return np.stack([t, slope, -2 * t * slope, slope * (6 * square - 2), slope * t * (16 - 24 * square)])

    return {"function": np.tanh, "derivatives": derivatives, "torch_function": lambda x: x.tanh(), "parity": "odd"}


@family("erf")
def _erf(scale: float = 1.0) -> dict[str, Any]:
    if scale <= 0:
        raise InputError("its scale must be positive")

    def derivatives(x: np.ndarray) -> np.ndarray:
        y = scale * x
        bell = 2 / math.sqrt(math.pi) * scale * np.exp(-y * y)
        return np.stack(
            [
                erf(y),
                bell,
                -scale * 2 * y * bell,
                scale**2 * (4 * y * y - 2) * bell,
                -(scale**3) * (8 * y**3 - 12 * y) * bell,
            ]
        )

    return {
        "function": lambda x: erf(scale * x),
        "derivatives": derivatives,
        "torch_function": lambda x: (scale * x).erf(),
        "parity": "odd",
    }


@family("relu")
def _relu() -> dict[str, Any]:
    return _leaky_relu(slope=0.0)


@family("leaky_relu")
def _leaky_relu(slope: float = 0.01) -> dict[str, Any]:
    def torch_function(x: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.leaky_relu(x, slope)

    return {
        "function": lambda x: np.where(x > 0, x, slope * x),
        "torch_function": torch_function,
        "slope": lambda x: np.where(x > 0, 1.0, slope),
        "kinks": (0.0,),
    }


@family("gelu")
def _gelu() -> dict[str, Any]:
    def derivatives(x: np.ndarray) -> np.ndarray:
        bell = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        square = x * x
        return np.stack(
            [
                x * ndtr(x),
                ndtr(x) + x * bell,
                (2 - square) * bell,
                x * (square - 4) * bell,
                (-4 + 7 * square - square * square) * bell,
            ]
        )

    def torch_function(x: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.gelu(x)

    return {"function": lambda x: x * ndtr(x), "derivatives": derivatives, "torch_function": torch_function}


def _logistic_derivatives(x: np.ndarray) -> np.ndarray:
    s = expit(x)
    slope = s * expit(-x)
    odd = 1 - 2 * s
    return np.stack([s, slope, slope * odd, slope * (1 - 6 * slope), slope * odd * (1 - 12 * slope)])


def _silu() -> dict[str, Any]:
    def derivatives(x: np.ndarray) -> np.ndarray:
        s = _logistic_derivatives(x)
        return np.stack([x * s[0]] + [x * s[k] + k * s[k - 1] for k in range(1, DERIVATIVES + 1)])

    def torch_function(x: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.silu(x)

    return {"function": lambda x: x * expit(x), "derivatives": derivatives, "torch_function": torch_function}


family("silu")(_silu)
family("swish")(_silu)


@family("softplus")
def _softplus(beta: float = 1.0) -> dict[str, Any]:
    if beta <= 0:
        raise InputError("its beta must be positive")

    def function(x: np.ndarray) -> np.ndarray:
        # equals ReLU to the last bit far from 0: the integrals over saturated inputs need their difference alone
        softplus: np.ndarray = np.maximum(x, 0.0) + np.log1p(np.exp(-beta * np.abs(x))) / beta
        return softplus

    def derivatives(x: np.ndarray) -> np.ndarray:
        s = _logistic_derivatives(beta * x)
        return np.stack([function(x)] + [beta**k * s[k] for k in range(DERIVATIVES)])

    def torch_function(x: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.logaddexp(torch.zeros_like(x), beta * x) / beta

    return {"function": function, "derivatives": derivatives, "torch_function": torch_function}


@family("sin")
def _sin() -> dict[str, Any]:
    def derivatives(x: np.ndarray) -> np.ndarray:
        s, c = np.sin(x), np.cos(x)
        return np.stack([s, c, -s, -c, s])

    return {"function": np.sin, "derivatives": derivatives, "torch_function": lambda x: x.sin(), "parity": "odd"}


@family("cos")
def _cos() -> dict[str, Any]:
    def derivatives(x: np.ndarray) -> np.ndarray:
        s, c = np.sin(x), np.cos(x)
        return np.stack([c, -s, -c, s, c])

    return {"function": np.cos, "derivatives": derivatives, "torch_function": lambda x: x.cos(), "parity": "even"}
