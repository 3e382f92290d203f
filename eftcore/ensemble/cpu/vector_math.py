"""Random normals and activations of LANES float32 numbers at a time.

Each function is a fixed sequence of additions, multiplications and selections, without branches, tables or calls to a
library, so that all lanes of a vector register go through it together. The polynomials come from
eftcore.ensemble.minimax. Each function states its largest error; tests/eftcore/ensemble/test_vector_math.py measures it
against float64.
"""

from __future__ import annotations

import math

import numpy as np

from eftcore.compiled import compiled
from eftcore.ensemble.cpu.lanes import Array, Code, Lanes
from eftcore.ensemble.minimax import (
    COSINE,
    ERF,
    ERF_LIMIT,
    ERF_SPLIT,
    EXP,
    EXP_LIMIT,
    LOG_2_HIGH,
    LOG_2_LOW,
    LOG_ERFC,
    MANTISSA_BITS,
    MINUS_TWO_LOG,
    PI_HIGH,
    PI_LOW,
    PI_MIDDLE,
    ROUND,
    SINE,
    SOFTPLUS,
    SQRT_HALF_BITS,
    TANH,
    TANH_LIMIT,
)
from eftcore.ensemble.sums import LANES

STRICT = {"contract", "nsz"}
"""What LLVM may change in floating-point arithmetic: fuse a product and a sum, and ignore the sign of zero.

It may not reorder sums, because the reductions of arguments below rely on their order."""

_U = np.uint32
_U64 = np.uint64

_MANTISSA = (1 << MANTISSA_BITS) - 1
_ONE_EXPONENT = 127
_SIGN = 1 << 31


@compiled()
def seed_generators(key: np.uint64, first: int, state: np.ndarray) -> None:
    """Set up the random generators of the networks ``first``, ..., ``first`` + LANES - 1.

    The generator is xoshiro128++ (Blackman and Vigna, 2021), 128 bits of state for each network. As its authors advise,
    the state is seeded by SplitMix64, which here starts from (key, network), so that the normals of a network depend on
    nothing else.

    Args:
        key: stream key of the shard, 64 bits.
        first: index of the first network in the shard.
        state: (4, LANES) uint32, written.
    """
    for lane in range(LANES):
        counter = _mix(_mix(_U64(key)) + _U64(first + lane))
        for word in range(2):
            counter += _U64(0x9E3779B97F4A7C15)
            mixed = _mix(counter)
            state[2 * word, lane] = _U(mixed & _U64(0xFFFFFFFF))
            state[2 * word + 1, lane] = _U(mixed >> _U64(32))


@compiled()
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def write_normals(code: Code, state: Array, out: Array) -> None:
    """Write the instructions that fill ``out`` (an even number, LANES) float32 with standard normals.

    The generators ``state`` (4, LANES) uint32 move on by one word for each normal. The method is that of Box and
    Muller: two words give two normals, radius times cosine and radius times sine of an angle. 30 bits of the first word
    make the radius r = sqrt(-2 log u), which is below 6.6, and one bit its sign; the 32 bits of the second word make an
    angle in a half circle.

    The absolute error of a normal is below 4e-7 max(1, r) for r > 0.2. Nearer to r = 0 it is larger, because u is
    rounded to float32 close to 1, and may reach 3e-4; one normal in 50 has r < 0.2.
    """
    generator = [code.variable(state[word]) for word in range(4)]
    for i in code.loop(0, out.shape[0], 2):
        words = tuple(variable.get() for variable in generator)
        first, words = _draw(*words)
        second, words = _draw(*words)
        for variable, word in zip(generator, words, strict=True):
            variable.set(word)
        odd = (first & (_SIGN - 1)) | 1  # odd numbers below 2^31: midpoints of 2^30 intervals
        radius = minus_two_log(odd.number()).sqrt()
        radius = (radius.bits() ^ (first & _SIGN)).decoded()
        angle = second.number() * (math.pi / 2 / 2**31)
        square = angle * angle
        sine = _polynomial(square, SINE.numerator)
        cosine = _polynomial(square, COSINE.numerator)
        out[i] = radius * cosine
        out[code.add(i, 1)] = radius * angle * sine
    for place, variable in enumerate(generator):
        state[place] = variable.get()


def _draw(a: Lanes, b: Lanes, c: Lanes, d: Lanes) -> tuple[Lanes, tuple[Lanes, Lanes, Lanes, Lanes]]:
    """The next random word of xoshiro128++, and the four words of its state after that."""
    drawn = (a + d).rotate(7) + a
    t = b << 9
    c = c ^ a
    d = d ^ b
    return drawn, (a ^ d, b ^ c, c ^ t, d.rotate(11))


def _polynomial(x: Lanes, coefficients: tuple[float, ...]) -> Lanes:
    """The polynomial with these coefficients, highest power first, by Horner's scheme."""
    value = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def minus_two_log(x: Lanes) -> Lanes:
    """-2 log(x / 2^31) for x in [1, 2^31]; relative error below 4e-7.

    The bits of x give k and t with x = 2^k (1 + t) and 1 + t between sqrt(1/2) and sqrt(2), and
    log x = k log 2 + log(1 + t).
    """
    shifted = x.bits() - (SQRT_HALF_BITS + (31 << MANTISSA_BITS))
    exponent = shifted.signed_shift(MANTISSA_BITS).number()
    t = ((shifted & _MANTISSA) + SQRT_HALF_BITS).decoded() - 1.0
    p = _polynomial(t, MINUS_TWO_LOG.numerator)
    return exponent * (-2 * math.log(2)) + t * p


def expm1(x: Lanes) -> Lanes:
    """exp(x) - 1 for x clamped to [-87, 87]; relative error below 2e-7.

    x = k log 2 + r with whole k and |r| <= log(2) / 2, so that exp(x) - 1 = 2^k (exp(r) - 1) + (2^k - 1).
    """
    x = x.clip(EXP_LIMIT)
    shifted = x * (1 / math.log(2)) + ROUND
    k = shifted - ROUND
    r = x - k * LOG_2_HIGH
    r = r - k * LOG_2_LOW
    p = _polynomial(r, EXP.numerator)
    scale = ((shifted.bits() << MANTISSA_BITS) + (_ONE_EXPONENT << MANTISSA_BITS)).decoded()
    return scale * (r + r * r * p) + (scale - 1.0)


def tanh(x: Lanes) -> Lanes:
    """tanh(x) as a quotient of two polynomials; relative error below 4e-7."""
    x = x.clip(TANH_LIMIT)
    square = x * x
    above = _polynomial(square, TANH.numerator)
    below = _polynomial(square, TANH.denominator)
    return above * x / below


def erf(x: Lanes) -> Lanes:
    """erf(x): a polynomial for |x| < 1, from there on 1 - exp of one; relative error below 4e-7."""
    size = abs(x)
    size = size.where("<", ERF_LIMIT, size, ERF_LIMIT)
    near = _polynomial(x * x, ERF.numerator)
    far = _polynomial(size, LOG_ERFC.numerator)
    tail = expm1(far)
    return size.where("<", ERF_SPLIT, near * x, x.where("<", 0, tail, -tail))


def gelu(x: Lanes) -> Lanes:
    """x Phi(x), with Phi the normal distribution function; absolute error below 2e-7 (1 + |x|)."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


def silu(x: Lanes) -> Lanes:
    """x / (1 + exp(-x)); relative error below 4e-7 for x > -87, where the value is -1e-36."""
    return x / (expm1(-x) + 2.0)


def softplus(x: Lanes) -> Lanes:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)); absolute error below 2e-7 (1 + |x|)."""
    y = expm1(-abs(x)) + 1.0
    p = _polynomial(y, SOFTPLUS.numerator)
    return x.where(">", 0, x, 0) + y * p


def sine(x: Lanes) -> Lanes:
    """sin(x) for |x| <= WAVE_LIMIT; absolute error below 2e-7, relative to |x| for |x| < 1."""
    rest, sign = _half_turns(x)
    p = _polynomial(rest * rest, SINE.numerator)
    return ((rest * p).bits() ^ sign).decoded()


def cosine(x: Lanes) -> Lanes:
    """cos(x) for |x| <= WAVE_LIMIT; absolute error below 2e-7."""
    rest, sign = _half_turns(x)
    p = _polynomial(rest * rest, COSINE.numerator)
    return (p.bits() ^ sign).decoded()


def _half_turns(x: Lanes) -> tuple[Lanes, Lanes]:
    """r and the sign bit of (-1)^k, for x = k pi + r with whole k and |r| <= pi / 2.

    pi is subtracted in three parts. k has at most 13 bits and each of the first two parts at most 11, so that all but
    the last subtraction is exact; the error of r is below 1e-9 and half a unit of its last bit.
    """
    shifted = x * (1 / math.pi) + ROUND
    k = shifted - ROUND
    rest = ((x - k * PI_HIGH) - k * PI_MIDDLE) - k * PI_LOW
    return rest, shifted.bits() << 31


def relu(x: Lanes) -> Lanes:
    """max(x, 0), exact."""
    return x.where(">", 0, x, 0)
