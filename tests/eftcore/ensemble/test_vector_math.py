"""The fused pass's float32 functions against float64, its normals against N(0, 1), its roots against an eigensolver."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from numba import njit
from scipy import special, stats

from eftcore.ensemble.cpu import vector_math
from eftcore.ensemble.cpu.factor import ROUNDING, cholesky, symmetrise
from eftcore.ensemble.cpu.lanes import vector_code
from eftcore.ensemble.cpu.tile_pass import fill_normals
from eftcore.ensemble.minimax import WAVE_LIMIT
from eftcore.ensemble.sums import LANES
from eftcore.gaussian.roots import symmetric_root

X = np.concatenate([np.linspace(-15, 15, 200_001), np.logspace(-10, 0, 2000), -np.logspace(-10, 0, 2000), [0.0, 3e4]])
X = X.astype(np.float32).astype(float)

FUNCTIONS_OF_DOUBLE = {
    "expm1": (mpmath.expm1, "relative"),
    "tanh": (mpmath.tanh, "relative"),
    "silu": (lambda x: x / (1 + mpmath.exp(-x)), "relative"),
    "sine": (mpmath.sin, "absolute"),
    "cosine": (mpmath.cos, "absolute"),
    "minus_two_log": (lambda x: -2 * mpmath.log(x / 2**63), "relative"),
}

FUNCTIONS = {
    "expm1": (lambda x: np.expm1(np.clip(x, -87, 87)), "relative", 2e-7),
    "tanh": (np.tanh, "relative", 4e-7),
    "erf": (special.erf, "relative", 4e-7),
    "gelu": (lambda x: x * special.ndtr(x), "absolute", 2e-7),
    "silu": (lambda x: x * special.expit(x), "relative", 4e-7),
    "softplus": (lambda x: np.logaddexp(0, x), "absolute", 2e-7),
}


compiled = njit(fastmath=vector_math.STRICT, error_model="numpy")


@compiled
def draw(state, out):
    fill_normals(state, out)


@compiled
def factorise(matrix, factor):
    cholesky(matrix, factor, ROUNDING)


@compiled
def turn(factor, rotation, root):
    symmetrise(factor, rotation, root)
    return root


def each(function, dtype=np.float32):
    @vector_code
    def elementwise(code, x, out):
        for i in code.loop(0, x.shape[0]):
            out[i] = function(x[i])

    @compiled
    def loop(x, out):
        elementwise(x, out)

    def apply(x):
        padded = np.resize(x.astype(dtype), (-(-x.size // LANES), LANES))
        out = np.empty_like(padded)
        loop(padded, out)
        return out.ravel()[: x.size].astype(float)

    return apply


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_accurate_to_float32_rounding(name):
    exact, kind, bound = FUNCTIONS[name]
    value = each(getattr(vector_math, name))(X)
    size = np.abs(exact(X)) if kind == "relative" else 1 + np.abs(X)
    assert (np.abs(value - exact(X)) <= bound * size + 1e-38).all()


@pytest.mark.parametrize("name", FUNCTIONS_OF_DOUBLE)
def test_functions_are_accurate_to_float64_rounding(name):
    """Against 40 digits; waves up to their limit, the logarithm over all that the generator gives."""
    exact, kind = FUNCTIONS_OF_DOUBLE[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-20, 20, 400), np.geomspace(1e-12, 700, 200), -np.geomspace(1e-12, 700, 200)])
    if kind == "absolute":
        x = np.append(x, rng.uniform(-WAVE_LIMIT, WAVE_LIMIT, 400))
    if name == "minus_two_log":
        x = np.concatenate([np.exp(rng.uniform(0, 63 * np.log(2), 400)), 2.0**63 - 2.0**10 * rng.integers(1, 1e6, 400)])
    value = each(getattr(vector_math, name), np.float64)(x)
    with mpmath.workdps(40):
        for one, point in zip(value, x, strict=True):
            true = exact(mpmath.mpf(float(point)))
            assert abs(mpmath.mpf(float(one)) - true) <= 1e-15 * (1 if kind == "absolute" else abs(true)), point


def test_logarithm_is_accurate_to_float32_rounding():
    x = np.concatenate([np.exp(np.linspace(0, 31 * np.log(2), 100_001)), 2.0**31 - 2.0**7 * np.arange(1000)])
    x = x.astype(np.float32).astype(float)
    exact = -2 * np.log(x / 2**31)
    assert (np.abs(each(vector_math.minus_two_log)(x) - exact) <= 4e-7 * exact).all()


@pytest.fixture(scope="module")
def normals():
    """(LANES, 2^17) of one bundle."""
    state = np.empty((4, LANES), np.uint32)
    out = np.empty((2**17, LANES), np.float32)
    vector_math.seed_generators(np.uint64(2**64 - 17), 0, state)
    draw(state, out)
    return out.T.astype(float)


def xoshiro(state, count):
    """(count, LANES) words of xoshiro128++ after Blackman and Vigna (2021), from its state (4, LANES)."""
    low = np.uint64(0xFFFFFFFF)

    def rotated(x, bits):
        return (x << np.uint64(bits) | x >> np.uint64(32 - bits)) & low

    a, b, c, d = state.astype(np.uint64)
    words = []
    for _ in range(count):
        words.append((rotated((a + d) & low, 7) + a) & low)
        shifted = b << np.uint64(9) & low
        c, d = c ^ a, d ^ b
        b, a = b ^ c, a ^ d
        c, d = c ^ shifted, rotated(d, 11)
    return np.array(words)


def test_normals_have_the_stated_error():
    """Of the same words of the generator in float64: rounding, and near radius 0 that of the uniform number."""
    count = 2**14
    state, out = np.empty((4, LANES), np.uint32), np.empty((count, LANES), np.float32)
    vector_math.seed_generators(np.uint64(3), 0, state)
    first, second = np.moveaxis(xoshiro(state, count).reshape(-1, 2, LANES), 1, 0)
    draw(state, out)
    radius = np.sqrt(-2 * np.log((first & np.uint64(2**31 - 1) | np.uint64(1)) / 2.0**31))
    signed = np.where(first >> np.uint64(31), -radius, radius)
    angle = second.astype(np.uint32).view(np.int32) * (np.pi / 2 / 2**31)
    expected = np.stack([signed * np.cos(angle), signed * np.sin(angle)], axis=1)
    error = np.abs(out.reshape(expected.shape) - expected).max(1)
    assert (error <= 4e-7 * np.maximum(1, radius) + np.minimum(7e-8 / radius, 3e-4)).all()
    assert (error <= 4e-7 * np.maximum(1, radius))[radius > 0.2].all()
    assert radius.max() > 4


def test_normals_of_float64_are_those_of_float32_with_more_digits():
    """To 2e-15 of the same words in extended precision."""
    count = 2**12
    state, single, double = np.empty((8, LANES), np.uint32), np.empty((count, LANES), np.float32), None
    vector_math.seed_generators(np.uint64(3), 0, state)
    double = np.empty((count, LANES))
    words = [np.moveaxis(xoshiro(part, count).reshape(-1, 2, LANES), 1, 0) for part in (state[:4], state[4:])]
    (first, second), (low_first, low_second) = words
    before = state[:4].copy()
    draw(state, double)
    draw(before, single)
    assert np.array_equal(before, state[:4])
    assert np.abs(single - double).max() < 1e-3
    assert np.median(np.abs(single - double)) < 1e-7
    number = ((first & np.uint64(2**31 - 1)) >> np.uint64(1) << np.uint64(32) | low_first).astype(np.longdouble)
    radius = np.sqrt(-2 * np.log((number + 0.5) / np.longdouble(2) ** 62))
    signed = np.where(first >> np.uint64(31), -radius, radius)
    turn = second.astype(np.uint32).view(np.int32).astype(np.longdouble) + low_second / np.longdouble(2) ** 32
    angle = turn * (np.longdouble(math.pi) + np.longdouble(1.2246467991473532e-16)) / 2**32
    expected = np.stack([signed * np.cos(angle), signed * np.sin(angle)], axis=1)
    error = np.abs(double.reshape(expected.shape) - expected).max(1)
    assert (error <= 2e-15 * np.maximum(radius, 1 / radius)).all()


def test_normals_are_normal(normals):
    """Five tests, each fails for a fresh key with probability 1e-3."""
    z = normals.ravel()
    count = z.size
    assert stats.kstest(z, "norm").pvalue > 1e-3
    limit = stats.norm.isf(5e-4)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < limit * (variance / count) ** 0.5
    tail = stats.binomtest(int((np.abs(z) > 4).sum()), count, 2 * stats.norm.sf(4)).pvalue
    assert tail > 1e-3


def test_normals_of_lanes_and_neighbours_are_uncorrelated(normals):
    """A network's own sequence, and sequences of two networks; also of squares, which Box-Muller pairs share."""
    for z in (normals, (normals**2 - 1) / 2**0.5):
        count = z.shape[1]
        correlation = (z @ z.T / count)[np.triu_indices(LANES, 1)] * count**0.5
        half = count // 2
        lagged = [(z[:, lag:] * z[:, :-lag]).mean(1) * count**0.5 for lag in (1, 2, 3, 4, 5, 8, half)]
        for scores in (correlation, np.concatenate(lagged[:-1]), lagged[-1] / 2**0.5):
            assert 2 * stats.norm.sf(np.abs(scores)).min() * scores.size > 1e-3


@pytest.mark.parametrize("n_inputs", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("rank", [1, 2, 7])
def test_factors_of_any_rank(n_inputs, rank):
    """R R^T = Q for the triangular factor and for every round towards the symmetric one, which the rounds reach."""
    rng = np.random.default_rng(n_inputs)
    half = rng.normal(size=(LANES, n_inputs, min(rank, n_inputs)))
    half[0] = 0.0
    matrix = half @ half.swapaxes(1, 2)
    lanes = np.ascontiguousarray(np.moveaxis(matrix, 0, -1))
    factor, root = np.empty_like(lanes), np.empty_like(lanes)
    rotation = np.ascontiguousarray(np.repeat(np.eye(n_inputs)[:, :, None], LANES, 2))
    size = np.trace(matrix, axis1=1, axis2=2)[:, None, None] + 1e-300
    factorise(lanes, factor)
    for found in (factor, *(turn(factor, rotation, root) for _ in range(100))):
        r = np.moveaxis(found, -1, 0)
        assert (np.abs(r @ r.swapaxes(1, 2) - matrix) <= 1e-6 * size).all()
        assert (found[..., 0] == 0).all()
    assert (np.triu(np.moveaxis(factor, -1, 0), 1) == 0).all()
    assert (np.abs(np.moveaxis(root, -1, 0) - symmetric_root(matrix)) <= 2e-3 * size**0.5).all()


@pytest.mark.parametrize("n_inputs", [2, 4, 5])
def test_equal_rows_have_equal_factors(n_inputs):
    rng = np.random.default_rng(n_inputs)
    half = rng.normal(size=(n_inputs - 1, 3, LANES))
    half = np.concatenate([half, half[:1]])
    lanes = np.ascontiguousarray(np.einsum("akl,bkl->abl", half, half))
    factor, root = np.empty_like(lanes), np.empty_like(lanes)
    rotation = np.ascontiguousarray(np.repeat(np.eye(n_inputs)[:, :, None], LANES, 2))
    factorise(lanes, factor)
    turn(factor, rotation, root)
    for found in (factor, root):
        assert np.abs(found[0] - found[-1]).max() < 1e-13
