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
from eftcore.ensemble.minimax import WAVE_LIMIT
from eftcore.ensemble.piecewise import SHAPES, piecewise
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
"""Vector code of x and of an activation's parameter."""

_NAMES = {"float32": tuple(_BY_HAND), "float64": ("linear", "tanh", "leaky_relu", "silu", "sin", "cos")}
"""The activations that have vector code of each type."""

_ALIASES = {"relu": "leaky_relu", "swish": "silu"}
_WAVES = ("sin", "cos")


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
    """The code of every kind for the type of the table: made by hand, and tables of each shape."""

    def by_hand(name: str) -> Callable[[], Callable[[Lanes], Lanes]]:
        return lambda: lambda x: _BY_HAND[name](x, parameter)

    def of_shape(pieces: int, degree: int) -> Callable[[], Callable[[Lanes], Lanes]]:
        return lambda: Pieces(code, table, pieces, degree)

    dtype = "float64" if table.is_double else "float32"
    made = [Written(by_hand(name), limited=name in _WAVES) for name in _NAMES[dtype]]
    return made + [Written(of_shape(*shape), limited=True) for shape in SHAPES[dtype]]


_Beyond = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class Sigma:
    """An activation as the fused pass takes it, in "float32" or "float64".

    Attributes:
        arguments: its number in ``written_sigmas``, its parameter, the table of its polynomials, whose type is that of
            the pass, the largest |x| for which these hold, and the address of a function that the pass calls with the
            address of numbers x, how many times LANES they are, and the address where sigma(x) stands: where |x| is
            above the limit, or x is NaN, the function puts Activation.function(x) there.
    """

    def __init__(self, activation: Activation, dtype: str) -> None:
        self._function = activation.function
        self._dtype = np.dtype(dtype)
        self._failure: BaseException | None = None
        self._beyond = _Beyond(self._put_beyond)
        table, parameter, self._limit = np.zeros((0, LANES), dtype), 0.0, math.inf
        name = _by_hand(activation, dtype)
        if name is not None:
            kind = _NAMES[dtype].index(name)
            parameter = next(iter(activation.parameters.values()), 0.0)
            self._limit = WAVE_LIMIT if name in _WAVES else math.inf
        else:
            fit = piecewise(activation, dtype)
            assert fit is not None
            kind = len(_NAMES[dtype]) + SHAPES[dtype].index(fit.shape)
            table, self._limit = fit.table.reshape(-1, LANES), fit.limit
        self.arguments = (kind, parameter, table, self._limit, ctypes.cast(self._beyond, ctypes.c_void_p).value)

    def check(self) -> None:
        """Raises what Activation.function raised while the pass ran, which cannot raise it itself."""
        if self._failure is not None:
            raise self._failure

    def _put_beyond(self, source: int, count: int, target: int) -> None:
        numbers = ctypes.c_char * (count * LANES * self._dtype.itemsize)
        x, out = (np.frombuffer(numbers.from_address(place), self._dtype) for place in (source, target))  # type: ignore[call-overload]
        rare = ~(np.abs(x) <= self._limit)
        try:
            with np.errstate(all="ignore"):
                out[rare] = self._function(x[rare].astype(float))
        except BaseException as failure:  # ctypes would print it and go on
            self._failure = failure
            out[rare] = np.nan


def has_sigma(activation: Activation, dtype: str) -> bool:
    """Whether the fused pass has this activation: by hand, or by polynomials whose error is bounded."""
    return _by_hand(activation, dtype) is not None or piecewise(activation, dtype) is not None


def _by_hand(activation: Activation, dtype: str) -> str | None:
    """Its name in _BY_HAND, None if there is no vector code of this type."""
    name = _ALIASES.get(activation.family, activation.family)
    return name if activation.builtin and name in _NAMES[dtype] else None
