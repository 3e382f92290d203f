"""Random normals and activations of LANES numbers at a time, float32 or, where it is said, float64.

Each function is a fixed sequence of additions, multiplications and selections, without branches, tables or calls to a
library, so that all lanes of a vector register go through it together. The polynomials come from
eftcore.ensemble.minimax. Each function states its largest error; tests/eftcore/ensemble/test_vector_math.py measures it
against float64.
"""

from __future__ import annotations

import math

import numpy as np

from eftcore.compiled import compiled
from eftcore.ensemble.cpu.lanes import Array, Code, Lanes, Variable
from eftcore.ensemble.minimax import (
    COSINE,
    COSINE_DOUBLE,
    ERF,
    ERF_LIMIT,
    ERF_SPLIT,
    EXP,
    EXP_DOUBLE,
    EXP_LIMIT,
    EXP_LIMIT_DOUBLE,
    LOG_2_HIGH,
    LOG_2_LOW,
    LOG_2_PARTS,
    LOG_DOUBLE,
    LOG_ERFC,
    MANTISSA_BITS,
    MANTISSA_BITS_DOUBLE,
    MINUS_TWO_LOG,
    PI_HIGH,
    PI_LOW,
    PI_MIDDLE,
    PI_PARTS,
    ROUND,
    ROUND_DOUBLE,
    SINE,
    SINE_DOUBLE,
    SOFTPLUS,
    SQRT_HALF_BITS,
    SQRT_HALF_BITS_DOUBLE,
    TANH,
    TANH_LIMIT,
    TANH_LIMIT_DOUBLE,
    Fit,
)
from eftcore.ensemble.sums import LANES

STRICT = {"contract", "nsz"}
"""What LLVM may change in floating-point arithmetic: fuse a product and a sum, and ignore the sign of zero.

It may not reorder sums, because the reductions of arguments below rely on their order."""

_U = np.uint32
_U64 = np.uint64

_MANTISSA = (1 << MANTISSA_BITS) - 1
_ONE_EXPONENT, _ONE_EXPONENT_DOUBLE = 127, 1023
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
        state: (4, LANES) or (8, LANES) uint32, written: one generator or two for each network.
    """
    for lane in range(LANES):
        counter = _mix(_mix(_U64(key)) + _U64(first + lane))
        for word in range(state.shape[0] // 2):
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
    """Write the instructions that fill ``out`` (an even number, LANES) with standard normals.

    The generators ``state`` (4, LANES) uint32 move on by one word for each normal. The method is that of Box and
    Muller: two words give two normals, radius times cosine and radius times sine of an angle. 30 bits of the first word
    make the radius r = sqrt(-2 log u), which is below 6.6, and one bit its sign; the 32 bits of the second word make an
    angle in a half circle.

    The absolute error of a normal is below 4e-7 max(1, r) for r > 0.2. Nearer to r = 0 it is larger, because u is
    rounded to float32 close to 1, and may reach 3e-4; one normal in 50 has r < 0.2.

    For float64 a second generator of each network, in further four rows of ``state``, adds 32 bits to either word. The
    normals are then those of float32 with more digits; r is below 9.4, and the error below 2e-15 max(r, 1 / r).
    """
    generator = [code.variable(state[word]) for word in range(4)]
    finer = [code.variable(state[word]) for word in range(4, 8)] if out.is_double else []
    for i in code.loop(0, out.shape[0], 2):
        words = _next_two(generator)
        first, second = words
        sign = first & _SIGN
        first = first & (_SIGN - 1)
        if out.is_double:
            low_first, low_second = _next_two(finer)
            first = (first >> 1).before(low_first) << 1 | 1  # odd numbers below 2^63
            second, sign = second.before(low_second), sign.before(sign & 0)
            bits = 64
        else:
            first = first | 1  # odd numbers below 2^31: midpoints of 2^30 intervals
            bits = 32
        radius = minus_two_log(first.number()).sqrt()
        radius = (radius.bits() ^ sign).decoded()
        angle = second.number() * (math.pi / 2 / 2 ** (bits - 1))
        square = angle * angle
        sine = _polynomial(square, _fit(angle, SINE, SINE_DOUBLE))
        cosine = _polynomial(square, _fit(angle, COSINE, COSINE_DOUBLE))
        out[i] = radius * cosine
        out[code.add(i, 1)] = radius * angle * sine
    for place, variable in enumerate(generator + finer):
        state[place] = variable.get()


def _next_two(generator: list[Variable]) -> tuple[Lanes, Lanes]:
    """The next two random words of a generator."""
    words = tuple(variable.get() for variable in generator)
    first, words = _draw(*words)
    second, words = _draw(*words)
    for variable, word in zip(generator, words, strict=True):
        variable.set(word)
    return first, second


def _fit(x: Lanes, single: Fit, double: Fit) -> tuple[float, ...]:
    """The coefficients for the type of x."""
    return (double if x.is_double else single).numerator


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
    """-2 log(x / 2^31) for float32 x in [1, 2^31], -2 log(x / 2^63) for float64 x in [1, 2^63].

    The relative error is below 4e-7, in float64 below 1e-15. The bits of x give k and t with x = 2^k (1 + t) and 1 + t
    between sqrt(1/2) and sqrt(2), and log x = k log 2 + log(1 + t).
    """
    if x.is_double:
        shifted = x.bits() - (SQRT_HALF_BITS_DOUBLE + (63 << MANTISSA_BITS_DOUBLE))
        exponent = shifted.signed_shift(MANTISSA_BITS_DOUBLE).number()
        mantissa = shifted & ((1 << MANTISSA_BITS_DOUBLE) - 1)
        t = (mantissa + SQRT_HALF_BITS_DOUBLE).decoded() - 1.0
        s = t / (t + 2.0)
        return exponent * (-2 * math.log(2)) - 2.0 * (s * _polynomial(s * s, LOG_DOUBLE.numerator))
    shifted = x.bits() - (SQRT_HALF_BITS + (31 << MANTISSA_BITS))
    exponent = shifted.signed_shift(MANTISSA_BITS).number()
    t = ((shifted & _MANTISSA) + SQRT_HALF_BITS).decoded() - 1.0
    p = _polynomial(t, MINUS_TWO_LOG.numerator)
    return exponent * (-2 * math.log(2)) + t * p


def expm1(x: Lanes) -> Lanes:
    """exp(x) - 1 for x clamped to [-87, 87], relative error below 2e-7; in float64 to [-708, 708], below 1e-15.

    x = k log 2 + r with whole k and |r| <= log(2) / 2, so that exp(x) - 1 = 2^k (exp(r) - 1) + (2^k - 1).
    """
    bits, one = (MANTISSA_BITS_DOUBLE, _ONE_EXPONENT_DOUBLE) if x.is_double else (MANTISSA_BITS, _ONE_EXPONENT)
    round_off = ROUND_DOUBLE if x.is_double else ROUND
    high, low = LOG_2_PARTS if x.is_double else (LOG_2_HIGH, LOG_2_LOW)
    x = x.clip(EXP_LIMIT_DOUBLE if x.is_double else EXP_LIMIT)
    shifted = x * (1 / math.log(2)) + round_off
    k = shifted - round_off
    r = x - k * high
    r = r - k * low
    p = _polynomial(r, _fit(r, EXP, EXP_DOUBLE))
    scale = ((shifted.bits() << bits) + (one << bits)).decoded()
    return scale * (r + r * r * p) + (scale - 1.0)


def tanh(x: Lanes) -> Lanes:
    """tanh(x) as a quotient of two polynomials, relative error below 4e-7; in float64 by expm1, below 1e-15."""
    if x.is_double:
        e = expm1(x.clip(TANH_LIMIT_DOUBLE) * 2.0)
        return e / (e + 2.0)
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
    """x / (1 + exp(-x)); relative error below 4e-7 for x > -87, where the value is -1e-36.

    In float64 below 1e-15 for x > -708, where the value is -2e-305.
    """
    return x / (expm1(-x) + 2.0)


def softplus(x: Lanes) -> Lanes:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)); absolute error below 2e-7 (1 + |x|)."""
    y = expm1(-abs(x)) + 1.0
    p = _polynomial(y, SOFTPLUS.numerator)
    return x.where(">", 0, x, 0) + y * p


def sine(x: Lanes) -> Lanes:
    """sin(x) for |x| <= WAVE_LIMIT; error below 2e-7, in float64 1e-15, also relative to |x| for |x| < 1."""
    rest, sign = _half_turns(x)
    p = _polynomial(rest * rest, _fit(rest, SINE, SINE_DOUBLE))
    return ((rest * p).bits() ^ sign).decoded()


def cosine(x: Lanes) -> Lanes:
    """cos(x) for |x| <= WAVE_LIMIT; absolute error below 2e-7, in float64 1e-15."""
    rest, sign = _half_turns(x)
    p = _polynomial(rest * rest, _fit(rest, COSINE, COSINE_DOUBLE))
    return (p.bits() ^ sign).decoded()


def _half_turns(x: Lanes) -> tuple[Lanes, Lanes]:
    """r and the sign bit of (-1)^k, for x = k pi + r with whole k and |r| <= pi / 2.

    pi is subtracted in parts. k has at most 13 bits and each part but the last so few that all but the last subtraction
    is exact; the error of r is below 1e-9, in float64 1e-16, and half a unit of its last bit.
    """
    round_off = ROUND_DOUBLE if x.is_double else ROUND
    shifted = x * (1 / math.pi) + round_off
    k = shifted - round_off
    rest = x
    for part in PI_PARTS if x.is_double else (PI_HIGH, PI_MIDDLE, PI_LOW):
        rest = rest - k * part
    return rest, shifted.bits() << (63 if x.is_double else 31)


def relu(x: Lanes) -> Lanes:
    """max(x, 0), exact."""
    return x.where(">", 0, x, 0)
