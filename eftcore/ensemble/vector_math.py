"""Random normals and activations in float32, written so that a compiler turns each loop into vector instructions.

Every function is straight-line arithmetic without branches or library calls. The polynomials are minimax fits of this
project; each function states its error, and the tests measure it against float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from eftcore.ensemble.sums import LANES

GENERATORS = 4 * LANES
"""Generators of a bundle, four for each network: enough independent work to fill a processor's pipelines."""

STRICT = {"contract", "nsz"}
"""Floating-point freedoms that keep the order of operations, on which the argument reductions below rely."""

_inlined = njit(fastmath=STRICT, error_model="numpy", forceinline=True)  # a call would keep a loop scalar

_F = np.float32
_I = np.int32
_U = np.uint32
_U64 = np.uint64

_LOG_2_HIGH, _LOG_2_LOW = _F(0.693145751953125), _F(1.42860682030941723e-6)
_LOG_2, _INVERSE_LOG_2 = _F(math.log(2)), _F(1 / math.log(2))
_ONE_EXPONENT, _MANTISSA = _I(127), _I(23)
_SQRT_HALF_BITS = _I(0x3F3504F3)
_MINUS_LOG_UNIT = _F(31 * math.log(2))
_QUARTER = _F(math.pi / 2 / 2**31)
_SQRT_HALF = _F(math.sqrt(0.5))
_ZERO, _HALF, _ONE, _TWO = _F(0), _F(0.5), _F(1), _F(2)
_EXP_BOUND, _ERF_BOUND = _F(87), _F(3.95)
_NEAREST, _NEAREST_INTEGER = _F(128.5), _I(128)


@njit(cache=True)
def seed_generators(key: int, networks: np.ndarray, state: np.ndarray) -> None:
    """Fill state (4, GENERATORS) uint32 for the LANES networks with these indices; ``key`` is a 64-bit stream key.

    xoshiro128++ (Blackman and Vigna, 2021), seeded as its authors advise by SplitMix64, here of (key, network,
    generator), so that a network's normals depend on nothing else.
    """
    for g in range(GENERATORS):
        counter = _mix(_mix(_U64(key)) + _U64(4) * _U64(networks[g % LANES]) + _U64(g // LANES))
        for word in range(2):
            counter += _U64(0x9E3779B97F4A7C15)
            mixed = _mix(counter)
            state[2 * word, g] = _U(mixed & _U64(0xFFFFFFFF))
            state[2 * word + 1, g] = _U(mixed >> _U64(32))


@njit(cache=True)
def _mix(x):
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


@njit(fastmath=STRICT, error_model="numpy")
def fill_normals(state: np.ndarray, out: np.ndarray, blocks: int) -> None:
    """Standard normals into out (2, at least blocks * GENERATORS) float32; column k belongs to lane k mod LANES.

    Box-Muller on 31 random bits for the radius (|z| < 6.6), one for the sign and 32 for an angle in a half circle.
    Absolute error below 4e-7.
    """
    for block in range(blocks):
        base = block * GENERATORS
        for g in range(GENERATORS):
            a, b, c, d = state[0, g], state[1, g], state[2, g], state[3, g]
            first = _U(_rotate(_U(a + d), _U(7), _U(25)) + a)
            a, b, c, d = _step(a, b, c, d)
            second = _U(_rotate(_U(a + d), _U(7), _U(25)) + a)
            a, b, c, d = _step(a, b, c, d)
            state[0, g], state[1, g], state[2, g], state[3, g] = a, b, c, d

            uniform = _F(_I(first >> _U(1))) + _HALF
            radius = np.sqrt(np.abs(_TWO * (_MINUS_LOG_UNIT - log(uniform))))
            sign = _F(_I(first & _U(1))) - _HALF
            radius *= sign + sign
            angle = _F(_I(second)) * _QUARTER
            square = angle * angle
            sine = _F(2.60187239e-06)
            sine = sine * square + _F(-0.000198074051)
            sine = sine * square + _F(0.00833302495)
            sine = sine * square + _F(-0.166666567)
            sine = sine * square + _ONE
            cosine = _F(-2.60512018e-07)
            cosine = cosine * square + _F(2.47601451e-05)
            cosine = cosine * square + _F(-0.00138883611)
            cosine = cosine * square + _F(0.0416666362)
            cosine = cosine * square + _F(-0.499999994)
            cosine = cosine * square + _ONE
            out[0, base + g] = radius * cosine
            out[1, base + g] = radius * sine * angle


@_inlined
def _rotate(x, left, right):
    return _U(_U(x << left) | _U(x >> right))


@_inlined
def _step(a, b, c, d):
    t = _U(b << _U(9))
    c = _U(c ^ a)
    d = _U(d ^ b)
    b = _U(b ^ c)
    a = _U(a ^ d)
    return a, b, _U(c ^ t), _rotate(d, _U(11), _U(21))


@_inlined
def log(x):
    """log x for normal positive x; relative error below 2e-7."""
    bits = _F(x).view(_I)
    exponent = _I(_I(bits - _SQRT_HALF_BITS) >> _MANTISSA)
    t = _I(bits - _I(exponent << _MANTISSA)).view(_F) - _ONE
    q = _F(-0.0797421439)
    q = q * t + _F(0.12655697)
    q = q * t + _F(-0.129892768)
    q = q * t + _F(0.142099457)
    q = q * t + _F(-0.166415816)
    q = q * t + _F(0.20001201)
    q = q * t + _F(-0.250003039)
    q = q * t + _F(0.333333299)
    square = t * t
    return _F(exponent) * _LOG_2 + (t - _HALF * square + square * t * q)


@_inlined
def expm1(x):
    """exp(x) - 1 for x clamped to [-87, 87]; relative error below 2e-7."""
    x = x if x < _EXP_BOUND else _EXP_BOUND
    x = x if x > -_EXP_BOUND else -_EXP_BOUND
    k = _I(_I(x * _INVERSE_LOG_2 + _NEAREST) - _NEAREST_INTEGER)
    r = x - _F(k) * _LOG_2_HIGH
    r = r - _F(k) * _LOG_2_LOW
    p = _F(0.00139013097)
    p = p * r + _F(0.00836320006)
    p = p * r + _F(0.0416668541)
    p = p * r + _F(0.16666577)
    p = p * r + _F(0.499999996)
    scale = _I(_I(k + _ONE_EXPONENT) << _MANTISSA).view(_F)
    return scale * (r + r * r * p) + (scale - _ONE)


@_inlined
def tanh(x):
    """Relative error below 4e-7."""
    e = expm1(x + x)
    return e / (e + _TWO)


@_inlined
def erf(x):
    """Absolute error below 2e-7, relative near 0."""
    size = np.abs(x)
    size = size if size < _ERF_BOUND else _ERF_BOUND
    square = x * x
    near = _F(-0.000563142216)
    near = near * square + _F(0.00491755141)
    near = near * square + _F(-0.0267113113)
    near = near * square + _F(0.112801801)
    near = near * square + _F(-0.376123262)
    near = near * square + _F(1.12837912)
    far = _F(-1.34090953e-05)
    far = far * size + _F(0.000319348857)
    far = far * size + _F(-0.00345007305)
    far = far * size + _F(0.0226749203)
    far = far * size + _F(-0.103442295)
    far = far * size + _F(-0.638926727)
    far = far * size + _F(-1.12604658)
    far = far * size + _F(-0.000720900024)
    tail = expm1(far)
    return near * x if size < _ONE else (tail if x < _ZERO else -tail)


@_inlined
def gelu(x):
    """x Phi(x); absolute error below 2e-7 (1 + |x|)."""
    return _HALF * x * (_ONE + erf(x * _SQRT_HALF))


@_inlined
def silu(x):
    """x / (1 + exp(-x)); relative error below 4e-7."""
    return x / (expm1(-x) + _TWO)


@_inlined
def softplus(x):
    """log(1 + exp(x)); absolute error below 2e-7."""
    y = expm1(-np.abs(x)) + _ONE
    p = _F(-0.00324402337)
    p = p * y + _F(0.0198514542)
    p = p * y + _F(-0.056959519)
    p = p * y + _F(0.106036533)
    p = p * y + _F(-0.153055917)
    p = p * y + _F(0.196759389)
    p = p * y + _F(-0.249541336)
    p = p * y + _F(0.333299624)
    p = p * y + _F(-0.499999024)
    p = p * y + _F(0.999999995)
    return (x if x > _ZERO else _ZERO) + y * p
