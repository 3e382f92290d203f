"""Random normals and activations on float32 Lanes: straight-line arithmetic without branches, tables or library calls.

The polynomials and the rational function are minimax fits of this project; each function states its error, and the
tests measure it against float64.
"""

from __future__ import annotations

import math

import numpy as np

from eftcore.compiled import compiled
from eftcore.ensemble.cpu.lanes import Array, Code, Lanes
from eftcore.ensemble.sums import LANES

STRICT = {"contract", "nsz"}
"""Floating-point freedoms that keep the order of operations, on which the argument reductions below rely."""

_U = np.uint32
_U64 = np.uint64

_LOG_2_HIGH, _LOG_2_LOW = 0.693145751953125, 1.42860682030941723e-6
_MANTISSA_BITS, _MANTISSA, _ONE_EXPONENT = 23, 0x7FFFFF, 127
_SQRT_HALF_BITS = 0x3F3504F3
_SIGN = 1 << 31
_ROUND = 1.5 * 2**23
"""Added to a float32 below 2^22 it rounds it to a whole number, which is then in the lowest bits of the encoding."""


@compiled()
def seed_generators(key: np.uint64, first: int, state: np.ndarray) -> None:
    """Fill state (4, LANES) uint32 for the LANES networks from ``first`` on; ``key`` is a 64-bit stream key.

    xoshiro128++ (Blackman and Vigna, 2021), seeded as its authors advise by SplitMix64, here of (key, network), so that
    a network's normals depend on nothing else.
    """
    for lane in range(LANES):
        counter = _mix(_mix(_U64(key)) + _U64(first + lane))
        for word in range(2):
            counter += _U64(0x9E3779B97F4A7C15)
            mixed = _mix(counter)
            state[2 * word, lane] = _U(mixed & _U64(0xFFFFFFFF))
            state[2 * word + 1, lane] = _U(mixed >> _U64(32))


@compiled()
def _mix(x):
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def write_normals(code: Code, state: Array, out: Array) -> None:
    """Standard normals into out (an even number, LANES) float32 from generators ``state`` (4, LANES), which move on.

    Box-Muller on 30 random bits for the radius (|z| < 6.6), one for the sign and 32 for an angle in a half circle.
    Absolute error below 4e-7.
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
        sine = _polynomial(square, 2.60187239e-06, -0.000198074051, 0.00833302495, -0.166666567, 1)
        cosine = _polynomial(square, -2.60512018e-07, 2.47601451e-05, -0.00138883611, 0.0416666362, -0.499999994, 1)
        out[i] = radius * cosine
        out[code.add(i, 1)] = radius * angle * sine
    for place, variable in enumerate(generator):
        state[place] = variable.get()


def _draw(a: Lanes, b: Lanes, c: Lanes, d: Lanes) -> tuple[Lanes, tuple[Lanes, Lanes, Lanes, Lanes]]:
    """The next word of xoshiro128++ and the words of its state after it."""
    drawn = (a + d).rotate(7) + a
    t = b << 9
    c = c ^ a
    d = d ^ b
    return drawn, (a ^ d, b ^ c, c ^ t, d.rotate(11))


def _polynomial(x: Lanes, *coefficients: float) -> Lanes:
    """Horner's scheme, highest power first."""
    value = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def minus_two_log(x: Lanes) -> Lanes:
    """-2 log(x / 2^31) for x in [1, 2^31]; relative error below 4e-7."""
    shifted = x.bits() - (_SQRT_HALF_BITS + (31 << _MANTISSA_BITS))
    exponent = shifted.signed_shift(_MANTISSA_BITS).number()
    t = ((shifted & _MANTISSA) + _SQRT_HALF_BITS).decoded() - 1.0
    p = _polynomial(
        t,
        0.202139618,
        -0.324454627,
        0.345016924,
        -0.398002759,
        0.499398112,
        -0.666701212,
        1.00000731,
        -1.99999989,
    )
    return exponent * (-2 * math.log(2)) + t * p


def expm1(x: Lanes) -> Lanes:
    """exp(x) - 1 for x clamped to [-87, 87]; relative error below 2e-7."""
    x = x.clip(87)
    shifted = x * (1 / math.log(2)) + _ROUND
    k = shifted - _ROUND
    r = x - k * _LOG_2_HIGH
    r = r - k * _LOG_2_LOW
    p = _polynomial(r, 0.00139013097, 0.00836320006, 0.0416668541, 0.16666577, 0.499999996)
    scale = ((shifted.bits() << _MANTISSA_BITS) + (_ONE_EXPONENT << _MANTISSA_BITS)).decoded()
    return scale * (r + r * r * p) + (scale - 1.0)


def tanh(x: Lanes) -> Lanes:
    """Relative error below 4e-7."""
    x = x.clip(8.5)
    square = x * x
    above = _polynomial(square, 1.426956025e-08, 2.12513334e-05, 0.00353404705, 0.13413265, 0.9999999886)
    below = _polynomial(square, 8.14527328e-07, 0.000334889586, 0.0260228314, 0.467465879, 1)
    return above * x / below


def erf(x: Lanes) -> Lanes:
    """Absolute error below 2e-7, relative near 0."""
    size = abs(x)
    size = size.where("<", 3.95, size, 3.95)
    near = _polynomial(x * x, -0.000563142216, 0.00491755141, -0.0267113113, 0.112801801, -0.376123262, 1.12837912)
    far = _polynomial(
        size,
        -1.34090953e-05,
        0.000319348857,
        -0.00345007305,
        0.0226749203,
        -0.103442295,
        -0.638926727,
        -1.12604658,
        -0.000720900024,
    )
    tail = expm1(far)
    return size.where("<", 1, near * x, x.where("<", 0, tail, -tail))


def gelu(x: Lanes) -> Lanes:
    """x Phi(x); absolute error below 2e-7 (1 + |x|)."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


def silu(x: Lanes) -> Lanes:
    """x / (1 + exp(-x)); relative error below 4e-7."""
    return x / (expm1(-x) + 2.0)


def softplus(x: Lanes) -> Lanes:
    """log(1 + exp(x)); absolute error below 2e-7."""
    y = expm1(-abs(x)) + 1.0
    p = _polynomial(
        y,
        -0.00324402337,
        0.0198514542,
        -0.056959519,
        0.106036533,
        -0.153055917,
        0.196759389,
        -0.249541336,
        0.333299624,
        -0.499999024,
        0.999999995,
    )
    return x.where(">", 0, x, 0) + y * p


def relu(x: Lanes) -> Lanes:
    """max(x, 0), exact."""
    return x.where(">", 0, x, 0)
