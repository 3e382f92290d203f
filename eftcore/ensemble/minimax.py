"""The polynomials, and one quotient of two, that the compiled engines use in place of elementary functions.

The engines of eftcore.ensemble.cpu and eftcore.ensemble.gpu compute logarithms, sines, cosines, exponentials, tanh, erf
and softplus in float32, the former some of them in float64 too, without a mathematical library. The argument is first
reduced to a short interval. There a polynomial P(x), or a quotient P(x) / Q(x), approximates what is left. Its
coefficients are chosen so that the largest error on the interval is small (a minimax fit), and are numbers of the type
in which the engine computes.

`python -m benchmarks.minimax` fits every entry anew and prints its error beside that of the entry. The digits differ:
the coefficients below come from an earlier fit that was rounded to float32 in one step, while the script rounds one
coefficient at a time and adjusts the others. The coefficients below stay, because different ones would change the last
digits of every simulated network, and the functions made from them are as accurate as float32 arithmetic allows
(docs/design/processors.md lists the errors of both).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LOG_2_HIGH, LOG_2_LOW = 0.693145751953125, 1.42860682030941723e-6
"""log 2 as a sum. The first part has 16 bits, so that its product with a whole number below 2^8 is exact in float32."""

LOG_2_PARTS = 0.6931471803691238, 1.9082149292705877e-10
"""The same for float64: the first part has 32 bits, for whole numbers below 2^11."""

PI_HIGH, PI_MIDDLE, PI_LOW = 3.140625, 0.0009675025939941406, 1.5099580252808664e-07
"""pi as a sum. The first two parts have 8 and 11 bits, so that their products with a whole number below 2^13 are exact
in float32. The sum differs from pi by 3e-15."""

PI_PARTS = 3.1415926535846666, 5.126688303189038e-12
"""The same for float64: the first part has 39 bits."""

WAVE_LIMIT = 25_000.0
"""Sines and cosines are made for arguments up to this size, which are below 2^13 half turns."""

ROUND = 1.5 * 2**23
"""Added to a float32 number below 2^22 it rounds that to a whole number, which is then in the last bits of the sum."""

ROUND_DOUBLE = 1.5 * 2**52
"""The same for float64."""

SQRT_HALF_BITS = 0x3F3504F3
"""The bits of sqrt(1/2) in float32. Logarithms scale their argument by a power of two to between it and sqrt(2)."""

SQRT_HALF_BITS_DOUBLE = 0x3FE6A09E667F3BCD
"""The same in float64."""

MANTISSA_BITS, MANTISSA_BITS_DOUBLE = 23, 52
"""Bits of a float32 and a float64 number below its exponent."""

EXP_LIMIT, EXP_LIMIT_DOUBLE = 87.0, 708.0
"""Arguments of the exponential are clamped to this size: exp(-87) and exp(87) are normal float32 numbers."""

TANH_LIMIT, TANH_LIMIT_DOUBLE = 8.5, 19.5
"""Arguments of tanh are clamped to this size, where 1 - tanh is 8e-8, in float64 2e-17."""

ERF_SPLIT, ERF_LIMIT = 1.0, 3.95
"""erf is ERF below the first and 1 - exp(LOG_ERFC) above it; arguments are clamped to the second, where 1 - erf is
2e-8."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fit.

    Attributes:
        formula: what is approximated, a function of x.
        interval: smallest and largest x.
        numerator: coefficients of P, the highest power first; where they are float32, rounded when the fit is made.
        denominator: coefficients of Q in the same order; Q = 1 for a polynomial.
        error: largest error on the interval with these coefficients and exact arithmetic, rounded up to two digits.
        relative: whether the error is relative to the function approximated; otherwise it is absolute.
        single: whether the coefficients are float32 numbers; otherwise they are float64, for the engine for processors.
    """

    formula: str
    interval: tuple[float, float]
    numerator: tuple[float, ...]
    denominator: tuple[float, ...] = (1.0,)
    error: float
    relative: bool = True
    single: bool = True

    def __post_init__(self) -> None:
        if not self.single:
            return
        for name in ("numerator", "denominator"):
            single = tuple(float(np.float32(coefficient)) for coefficient in getattr(self, name))
            object.__setattr__(self, name, single)

    @property
    def degree(self) -> tuple[int, int]:
        """Degrees of P and Q."""
        return len(self.numerator) - 1, len(self.denominator) - 1

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """P(x) / Q(x) in float64.

        >>> bool(abs(SINE(np.array([0.25])) - np.sin(0.5) / 0.5) < SINE.error)
        True
        """
        return np.polyval(self.numerator, x) / np.polyval(self.denominator, x)


SINE = Fit(
    formula="sin(√x) / √x",
    interval=(0.0, (math.pi / 2) ** 2),
    numerator=(2.6018724e-06, -0.00019807405, 0.008333025, -0.16666657, 1.0),
    error=1.1e-8,
)
COSINE = Fit(
    formula="cos √x",
    interval=(0.0, (math.pi / 2) ** 2),
    numerator=(-2.6051202e-07, 2.4760146e-05, -0.0013888361, 0.041666634, -0.5, 1.0),
    error=2.7e-8,
    relative=False,
)
MINUS_TWO_LOG = Fit(
    formula="-2 log(1 + x) / x",
    interval=(math.sqrt(0.5) - 1, math.sqrt(2) - 1),
    numerator=(
        *(0.20213962, -0.32445464, 0.34501693, -0.39800277),
        *(0.4993981, -0.6667012, 1.0000073, -1.9999999),
    ),
    error=1.8e-7,
)
LOG = Fit(
    formula="(log(1 + x) - x + x² / 2) / x³",
    interval=(math.sqrt(0.5) - 1, math.sqrt(2) - 1),
    numerator=(
        *(-0.07974214, 0.12655696, -0.12989277, 0.14209945),
        *(-0.16641581, 0.20001201, -0.25000304, 0.3333333),
    ),
    error=4.7e-7,
)
EXP = Fit(
    formula="(exp(x) - 1 - x) / x²",
    interval=(-math.log(2) / 2, math.log(2) / 2),
    numerator=(0.001390131, 0.0083632, 0.041666854, 0.16666576, 0.5),
    error=1.4e-7,
)
TANH = Fit(
    formula="tanh(√x) / √x",
    interval=(0.0, TANH_LIMIT**2),
    numerator=(1.4269561e-08, 2.1251333e-05, 0.0035340472, 0.13413265, 1.0),
    denominator=(8.145273e-07, 0.0003348896, 0.026022831, 0.46746588, 1.0),
    error=3.9e-8,
)
ERF = Fit(
    formula="erf(√x) / √x",
    interval=(0.0, ERF_SPLIT**2),
    numerator=(-0.00056314224, 0.0049175513, -0.026711311, 0.1128018, -0.37612325, 1.1283791),
    error=5.4e-8,
)
LOG_ERFC = Fit(
    formula="log(1 - erf(x))",
    interval=(ERF_SPLIT, ERF_LIMIT),
    numerator=(
        *(-1.3409095e-05, 0.00031934885, -0.003450073, 0.02267492),
        *(-0.1034423, -0.63892674, -1.1260465, -0.0007209),
    ),
    error=5.3e-7,
    relative=False,
)
SOFTPLUS = Fit(
    formula="log(1 + x) / x",
    interval=(0.0, 1.0),
    numerator=(
        *(-0.0032440233, 0.019851454, -0.056959517, 0.10603654, -0.15305592),
        *(0.19675939, -0.24954134, 0.33329964, -0.49999902, 1.0),
    ),
    error=2.9e-8,
)

SINE_DOUBLE = Fit(
    formula="sin(√x) / √x",
    interval=(0.0, (math.pi / 2) ** 2),
    numerator=(
        *(-7.363682728623866e-13, 1.6047238480015778e-10, -2.5051850077326875e-08, 2.755731606315881e-06),
        *(-0.00019841269819989303, 0.008333333333261413, -0.16666666666665697, 0.9999999999999997),
    ),
    error=5e-16,
    single=False,
)
COSINE_DOUBLE = Fit(
    formula="cos √x",
    interval=(0.0, (math.pi / 2) ** 2),
    numerator=(
        *(4.360935905322216e-14, -1.1437882704591683e-11, 2.0875532456761463e-09, -2.755729421109075e-07),
        *(2.4801587010266233e-05, -0.0013888888886997568, 0.04166666666660414, -0.4999999999999916),
        0.9999999999999998,
    ),
    error=5e-16,
    relative=False,
    single=False,
)
LOG_DOUBLE = Fit(
    formula="2 artanh(√x) / √x",
    interval=(0.0, (math.sqrt(2) - 1) ** 4),
    numerator=(
        *(0.1680357858970933, 0.18124758723433987, 0.2222334880773871, 0.28571417180706354),
        *(0.4000000005507242, 0.6666666666656419, 2.0000000000000004),
    ),
    error=6e-16,
    single=False,
)
EXP_DOUBLE = Fit(
    formula="(exp(x) - 1 - x) / x²",
    interval=(-math.log(2) / 2, math.log(2) / 2),
    numerator=(
        *(2.503767095553735e-08, 2.7620466989775433e-07, 2.755744005551934e-06, 2.4801520123042392e-05),
        *(0.00019841269707807354, 0.0013888888918444139, 0.008333333333381938, 0.04166666666661923),
        *(0.16666666666666613, 0.5000000000000001),
    ),
    error=6e-16,
    single=False,
)

FITS = {
    "SINE": SINE,
    "COSINE": COSINE,
    "MINUS_TWO_LOG": MINUS_TWO_LOG,
    "LOG": LOG,
    "EXP": EXP,
    "TANH": TANH,
    "ERF": ERF,
    "LOG_ERFC": LOG_ERFC,
    "SOFTPLUS": SOFTPLUS,
    "SINE_DOUBLE": SINE_DOUBLE,
    "COSINE_DOUBLE": COSINE_DOUBLE,
    "LOG_DOUBLE": LOG_DOUBLE,
    "EXP_DOUBLE": EXP_DOUBLE,
}
"""Every fit by its name in this module."""
