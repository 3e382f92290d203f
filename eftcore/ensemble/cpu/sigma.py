"""The activations of the fused pass: in vector code, and what is called for arguments beyond its range."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from eftcore.activations import Activation
from eftcore.ensemble.cpu import vector_math
from eftcore.ensemble.cpu.lanes import Lanes
from eftcore.ensemble.kinds import activation_kind
from eftcore.ensemble.minimax import WAVE_LIMIT
from eftcore.ensemble.sums import LANES

SIGMAS: dict[str, tuple[Callable[[Lanes, Lanes], Lanes], float | None]] = {
    "linear": (lambda x, _: x, None),
    "tanh": (lambda x, _: vector_math.tanh(x), None),
    "erf": (lambda x, scale: vector_math.erf(scale * x), None),
    "leaky_relu": (lambda x, slope: x.where(">", 0, x, slope * x), None),
    "gelu": (lambda x, _: vector_math.gelu(x), None),
    "silu": (lambda x, _: vector_math.silu(x), None),
    "softplus": (lambda x, beta: vector_math.softplus(beta * x) / beta, None),
    "sin": (lambda x, _: vector_math.sine(x), WAVE_LIMIT),
    "cos": (lambda x, _: vector_math.cosine(x), WAVE_LIMIT),
}
"""Vector code of x and the parameter of an activation, and the largest |x| for which it holds, None for any.

Those of eftcore.ensemble.kinds come first and in the same order."""

_Beyond = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class Sigma:
    """An activation as the fused pass takes it.

    Attributes:
        arguments: number in SIGMAS, parameter, and the address of a function that the pass calls with the address of
            numbers x, how many times LANES they are, and the address where sigma(x) stands: where |x| is larger than
            what vector code can do, or x is NaN, it puts Activation.function(x) there.
    """

    def __init__(self, activation: Activation) -> None:
        self._function = activation.function
        self._failure: BaseException | None = None
        self._beyond = _Beyond(self._put_beyond)
        kind = activation_kind(activation.name) or (list(SIGMAS).index(activation.family), 0.0)
        self._limit = SIGMAS[list(SIGMAS)[kind[0]]][1]
        address = ctypes.cast(self._beyond, ctypes.c_void_p).value
        self.arguments = (*kind, address)

    def check(self) -> None:
        """Raises what Activation.function raised while the pass ran, which cannot raise it itself."""
        if self._failure is not None:
            raise self._failure

    def _put_beyond(self, source: int, count: int, target: int) -> None:
        numbers = ctypes.c_float * (count * LANES)
        x, out = (np.frombuffer(numbers.from_address(place), np.float32) for place in (source, target))  # type: ignore[call-overload]
        rare = ~(np.abs(x) <= self._limit)
        try:
            with np.errstate(all="ignore"):
                out[rare] = self._function(x[rare].astype(float))
        except BaseException as failure:  # ctypes would print it and go on
            self._failure = failure
            out[rare] = np.nan


def has_sigma(activation: Activation) -> bool:
    """Whether the fused pass has this activation."""
    return activation.builtin and (activation_kind(activation.name) is not None or activation.family in SIGMAS)
