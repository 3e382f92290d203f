"""The activations of the fused pass: vector code made by hand, piecewise polynomials, and sigma itself beyond both."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eftcore.activations import Activation
from eftcore.ensemble.cpu import vector_math
from eftcore.ensemble.cpu.lanes import Array, Code, Lanes
from eftcore.ensemble.cpu.pieces import Pieces
from eftcore.ensemble.kinds import activation_kind
from eftcore.ensemble.minimax import WAVE_LIMIT
from eftcore.ensemble.piecewise import DEGREES, piecewise
from eftcore.ensemble.sums import LANES

_BY_HAND: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "linear": lambda x, _: x,
    "tanh": lambda x, _: vector_math.tanh(x),
    "erf": lambda x, scale: vector_math.erf(scale * x),
    "leaky_relu": lambda x, slope: x.where(">", 0, x, slope * x),
    "gelu": lambda x, _: vector_math.gelu(x),
    "silu": lambda x, _: vector_math.silu(x),
    "softplus": lambda x, beta: vector_math.softplus(beta * x) / beta,
    "sin": lambda x, _: vector_math.sine(x),
    "cos": lambda x, _: vector_math.cosine(x),
}
"""Vector code of x and of an activation's parameter. Those of eftcore.ensemble.kinds come first, in the same order."""

_WAVES = ("sin", "cos")
_NAMES = tuple(_BY_HAND)


@dataclass(frozen=True)
class Written:
    """The code of one kind of activation.

    Attributes:
        begin: writes what comes before the loop over x, and returns what writes sigma(x) in it.
        limited: whether it holds up to a limit only.
    """

    begin: Callable[[], Callable[[Lanes], Lanes]]
    limited: bool


def written_sigmas(code: Code, parameter: Lanes, table: Array) -> list[Written]:
    """The code of every kind: those made by hand, and piecewise polynomials of each degree."""

    def by_hand(name: str) -> Callable[[], Callable[[Lanes], Lanes]]:
        return lambda: lambda x: _BY_HAND[name](x, parameter)

    def of_degree(degree: int) -> Callable[[], Callable[[Lanes], Lanes]]:
        return lambda: Pieces(code, table, degree)

    made = [Written(by_hand(name), limited=name in _WAVES) for name in _NAMES]
    return made + [Written(of_degree(degree), limited=True) for degree in DEGREES["float32"]]


_Beyond = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class Sigma:
    """An activation as the fused pass takes it.

    Attributes:
        arguments: its number in ``written_sigmas``, its parameter, the table of its polynomials, the largest |x| for
            which these hold, and the address of a function that the pass calls with the address of numbers x, how many
            times LANES they are, and the address where sigma(x) stands: where |x| is above the limit, or x is NaN, the
            function puts Activation.function(x) there.
    """

    def __init__(self, activation: Activation) -> None:
        self._function = activation.function
        self._failure: BaseException | None = None
        self._beyond = _Beyond(self._put_beyond)
        table, self._limit = np.zeros((0, LANES), np.float32), math.inf
        by_hand = _by_hand(activation)
        if by_hand is not None:
            kind, parameter = by_hand
            self._limit = WAVE_LIMIT if _NAMES[kind] in _WAVES else math.inf
        else:
            fit = piecewise(activation, "float32")
            assert fit is not None
            kind, parameter = len(_NAMES) + DEGREES["float32"].index(fit.degree), 0.0
            table, self._limit = np.ascontiguousarray(fit.table).reshape(-1, LANES), fit.limit
        self.arguments = (kind, parameter, table, self._limit, ctypes.cast(self._beyond, ctypes.c_void_p).value)

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
    """Whether the fused pass has this activation: by hand, or by polynomials whose error is bounded."""
    return _by_hand(activation) is not None or piecewise(activation, "float32") is not None


def _by_hand(activation: Activation) -> tuple[int, float] | None:
    if not activation.builtin:
        return None
    if activation.family in _WAVES:
        return _NAMES.index(activation.family), 0.0
    return activation_kind(activation.name)
