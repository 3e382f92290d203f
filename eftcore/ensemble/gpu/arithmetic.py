"""Random normals and activations of the graphics kernel, in float32 and straight-line arithmetic.

No library calls: the same operations run on every device and under Triton's interpreter, up to the contraction of
a product and a sum into one rounding. The polynomials are those of eftcore.ensemble.cpu.vector_math.
"""

from __future__ import annotations

import triton
import triton.language as tl

KINDS = {"linear": 0, "tanh": 1, "erf": 2, "leaky_relu": 3, "gelu": 4, "silu": 5, "softplus": 6}
"""Activations that ``activate`` knows; its parameter is erf's scale, leaky_relu's slope or softplus' beta."""


@triton.jit
def normals(key, network, layer, neuron, group):
    """Four blocks of standard normals, inputs 4 group .. 4 group + 3 of these neurons.

    Philox4x32-10 (Salmon et al., 2011) of the counter (network, layer, neuron, group), then Box-Muller on 31 random
    bits for the radius (|z| < 6.6), one for the sign and 32 for an angle in a half circle. Absolute error below 4e-7.
    """
    a, b, c, d = tl.philox(key, network, layer, neuron, group)
    z0, z1 = _box_muller(a, b)
    z2, z3 = _box_muller(c, d)
    return z0, z1, z2, z3


@triton.jit
def _box_muller(first, second):
    uniform = (first >> 1).to(tl.int32).to(tl.float32) + 0.5
    radius = tl.sqrt(tl.abs(2.0 * (21.487562597358306 - log(uniform))))
    signed = (radius.to(tl.uint32, bitcast=True) | (first << 31)).to(tl.float32, bitcast=True)
    angle = second.to(tl.int32, bitcast=True).to(tl.float32) * 7.314590396335798e-10
    square = angle * angle
    sine = 2.60187239e-06
    sine = sine * square - 0.000198074051
    sine = sine * square + 0.00833302495
    sine = sine * square - 0.166666567
    sine = sine * square + 1.0
    cosine = -2.60512018e-07
    cosine = cosine * square + 2.47601451e-05
    cosine = cosine * square - 0.00138883611
    cosine = cosine * square + 0.0416666362
    cosine = cosine * square - 0.499999994
    cosine = cosine * square + 1.0
    return signed * cosine, signed * sine * angle


@triton.jit
def log(x):
    """log x for normal positive x; relative error below 2e-7."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    t = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    q = -0.0797421439
    q = q * t + 0.12655697
    q = q * t - 0.129892768
    q = q * t + 0.142099457
    q = q * t - 0.166415816
    q = q * t + 0.20001201
    q = q * t - 0.250003039
    q = q * t + 0.333333299
    square = t * t
    # an integer in the last bits of 1.5 * 2^23 is converted by subtracting that number
    whole = (exponent + 0x4B400000).to(tl.float32, bitcast=True) - 12582912.0
    return whole * 0.6931471805599453 + (t - 0.5 * square + square * t * q)


@triton.jit
def expm1(x):
    """exp(x) - 1 for x clamped to [-87, 87]; relative error below 2e-7."""
    x = tl.minimum(tl.maximum(x, -87.0), 87.0)
    shifted = x * 1.4426950408889634 + 12582912.0
    k = shifted - 12582912.0
    r = x - k * 0.693145751953125
    r = r - k * 1.42860682030941723e-6
    p = 0.00139013097
    p = p * r + 0.00836320006
    p = p * r + 0.0416668541
    p = p * r + 0.16666577
    p = p * r + 0.499999996
    scale = ((shifted.to(tl.int32, bitcast=True) + 127) << 23).to(tl.float32, bitcast=True)
    return scale * (r + r * r * p) + (scale - 1.0)


@triton.jit
def _tanh(x):
    e = expm1(x + x)
    return e / (e + 2.0)


@triton.jit
def _erf(x):
    size = tl.minimum(tl.abs(x), 3.95)
    square = x * x
    near = -0.000563142216
    near = near * square + 0.00491755141
    near = near * square - 0.0267113113
    near = near * square + 0.112801801
    near = near * square - 0.376123262
    near = near * square + 1.12837912
    far = -1.34090953e-05
    far = far * size + 0.000319348857
    far = far * size - 0.00345007305
    far = far * size + 0.0226749203
    far = far * size - 0.103442295
    far = far * size - 0.638926727
    far = far * size - 1.12604658
    far = far * size - 0.000720900024
    tail = expm1(far)
    return tl.where(size < 1.0, near * x, tl.where(x < 0.0, tail, -tail))


@triton.jit
def _softplus(x):
    y = expm1(-tl.abs(x)) + 1.0
    p = -0.00324402337
    p = p * y + 0.0198514542
    p = p * y - 0.056959519
    p = p * y + 0.106036533
    p = p * y - 0.153055917
    p = p * y + 0.196759389
    p = p * y - 0.249541336
    p = p * y + 0.333299624
    p = p * y - 0.499999024
    p = p * y + 0.999999995
    return tl.maximum(x, 0.0) + y * p


@triton.jit
def activate(x, parameter, KIND: tl.constexpr):
    """sigma(x) elementwise; relative error below 4e-7 for tanh and silu, absolute below 2e-7 (1 + |x|) for the rest."""
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
