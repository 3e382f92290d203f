"""Random normals and activations for the kernel on graphics processors, in float32.

Each function is a fixed sequence of additions, multiplications and selections without calls to a library. So every
device and Triton's interpreter do the same operations; results differ only where a compiler fuses a product and a sum,
which rounds once instead of twice. The polynomials come from eftcore.ensemble.minimax, as those of the engine for
processors do; the logarithm and tanh are computed another way here.
"""

from __future__ import annotations

import triton
import triton.language as tl

from eftcore.ensemble import minimax

MANTISSA_BITS = tl.constexpr(minimax.MANTISSA_BITS)
SQRT_HALF_BITS = tl.constexpr(minimax.SQRT_HALF_BITS)
ROUND = tl.constexpr(minimax.ROUND)
LOG_2_HIGH = tl.constexpr(minimax.LOG_2_HIGH)
LOG_2_LOW = tl.constexpr(minimax.LOG_2_LOW)
EXP_LIMIT = tl.constexpr(minimax.EXP_LIMIT)
ERF_SPLIT = tl.constexpr(minimax.ERF_SPLIT)
ERF_LIMIT = tl.constexpr(minimax.ERF_LIMIT)
SINE = tl.constexpr(minimax.SINE.numerator)
COSINE = tl.constexpr(minimax.COSINE.numerator)
LOG = tl.constexpr(minimax.LOG.numerator)
EXP = tl.constexpr(minimax.EXP.numerator)
ERF = tl.constexpr(minimax.ERF.numerator)
LOG_ERFC = tl.constexpr(minimax.LOG_ERFC.numerator)
SOFTPLUS = tl.constexpr(minimax.SOFTPLUS.numerator)


@triton.constexpr_function
def _length(numbers):
    """How many coefficients there are; a constant of the compiled kernel, where len knows no tl.constexpr."""
    return len(numbers)


@triton.jit
def _polynomial(x, COEFFICIENTS: tl.constexpr):
    """The polynomial with these coefficients, highest power first, by Horner's scheme."""
    value = COEFFICIENTS[0]
    for k in tl.static_range(1, _length(COEFFICIENTS)):
        value = value * x + COEFFICIENTS[k]
    return value


@triton.jit
def normals(key, network, layer, neuron, group):
    """Four blocks of standard normals, for the inputs 4 group, ..., 4 group + 3 of these neurons.

    Philox4x32-10 (Salmon et al., 2011) turns the key and the counter (network, layer, neuron, group) into four random
    words; there is no state that moves on. Two words give two normals by the method of Box and Muller: 31 bits of the
    first make the radius r, which is below 6.7, one bit its sign, and the 32 bits of the second an angle in a half
    circle.

    r^2 is a difference of logarithms, with an absolute error below 1e-5. So the error of a normal is below
    4e-7 max(1, r) + 1e-5 / r, and at most 3.2e-3; its root mean square is 1.2e-6.
    """
    a, b, c, d = tl.philox(key, network, layer, neuron, group)
    z0, z1 = _box_muller(a, b)
    z2, z3 = _box_muller(c, d)
    return z0, z1, z2, z3


@triton.jit
def _box_muller(first, second):
    """Two blocks of standard normals from two blocks of random words."""
    uniform = (first >> 1).to(tl.int32).to(tl.float32) + 0.5
    radius = tl.sqrt(tl.abs(2.0 * (21.487562597358306 - log(uniform))))
    signed = (radius.to(tl.uint32, bitcast=True) | (first << 31)).to(tl.float32, bitcast=True)
    angle = second.to(tl.int32, bitcast=True).to(tl.float32) * 7.314590396335798e-10
    square = angle * angle
    sine = _polynomial(square, SINE)
    cosine = _polynomial(square, COSINE)
    return signed * cosine, signed * sine * angle


@triton.jit
def log(x):
    """log x for positive x that are normal float32 numbers; relative error below 2e-7.

    The bits of x give k and t with x = 2^k (1 + t) and 1 + t between sqrt(1/2) and sqrt(2), and
    log x = k log 2 + log(1 + t), with log(1 + t) = t - t^2 / 2 + t^3 LOG(t).
    """
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    t = (bits - (exponent << MANTISSA_BITS)).to(tl.float32, bitcast=True) - 1.0
    q = _polynomial(t, LOG)
    square = t * t
    # a whole number added to the bits of ROUND is converted to float32 by subtracting ROUND
    whole = (exponent + 0x4B400000).to(tl.float32, bitcast=True) - ROUND
    return whole * 0.6931471805599453 + (t - 0.5 * square + square * t * q)


@triton.jit
def expm1(x):
    """exp(x) - 1 for x clamped to [-87, 87]; relative error below 2e-7.

    x = k log 2 + r with whole k and |r| <= log(2) / 2, so that exp(x) - 1 = 2^k (exp(r) - 1) + (2^k - 1).
    """
    x = tl.minimum(tl.maximum(x, -EXP_LIMIT), EXP_LIMIT)
    shifted = x * 1.4426950408889634 + ROUND
    k = shifted - ROUND
    r = x - k * LOG_2_HIGH
    r = r - k * LOG_2_LOW
    p = _polynomial(r, EXP)
    scale = ((shifted.to(tl.int32, bitcast=True) + 127) << MANTISSA_BITS).to(tl.float32, bitcast=True)
    return scale * (r + r * r * p) + (scale - 1.0)


@triton.jit
def _tanh(x):
    """(exp(2x) - 1) / (exp(2x) + 1)."""
    e = expm1(x + x)
    return e / (e + 2.0)


@triton.jit
def _erf(x):
    """A polynomial for |x| < 1, from there on 1 - exp of one."""
    size = tl.minimum(tl.abs(x), ERF_LIMIT)
    square = x * x
    near = _polynomial(square, ERF)
    far = _polynomial(size, LOG_ERFC)
    tail = expm1(far)
    return tl.where(size < ERF_SPLIT, near * x, tl.where(x < 0.0, tail, -tail))


@triton.jit
def _softplus(x):
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))."""
    y = expm1(-tl.abs(x)) + 1.0
    p = _polynomial(y, SOFTPLUS)
    return tl.maximum(x, 0.0) + y * p


@triton.jit
def activate(x, parameter, KIND: tl.constexpr):
    """sigma(x) for every entry of a block; KIND is the activation's number in eftcore.ensemble.kinds.

    The relative error of tanh, erf and silu is below 4e-7 for x > -87, the absolute error of gelu and softplus below
    2e-7 (1 + |x|).
    """
    if KIND == 0:
        return x
    elif KIND == 1:
        return _tanh(x)
    elif KIND == 2:
        return _erf(parameter * x)
    elif KIND == 3:
        return tl.where(x > 0.0, x, parameter * x)
    elif KIND == 4:
        return 0.5 * x * (1.0 + _erf(x * 0.7071067811865476))
    elif KIND == 5:
        return x / (expm1(-x) + 2.0)
    else:
        return _softplus(parameter * x) / parameter
