"""The fused pass's float32 functions against float64, its normals against N(0, 1), its roots against an eigensolver."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy import special, stats

from eftcore.ensemble import vector_math
from eftcore.ensemble.lane_root import symmetric_roots
from eftcore.ensemble.reference import symmetric_root
from eftcore.ensemble.sums import LANES

X = np.concatenate([np.linspace(-15, 15, 200_001), np.logspace(-10, 0, 2000), -np.logspace(-10, 0, 2000), [0.0, 3e4]])
X = X.astype(np.float32).astype(float)

FUNCTIONS = {
    "tanh": (np.tanh, "relative", 4e-7),
    "erf": (special.erf, "relative", 4e-7),
    "gelu": (lambda x: x * special.ndtr(x), "absolute", 2e-7),
    "silu": (lambda x: x * special.expit(x), "relative", 4e-7),
    "softplus": (lambda x: np.logaddexp(0, x), "absolute", 2e-7),
}


def each(function):
    @njit
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    def apply(x):
        out = np.empty(x.size, np.float32)
        loop(x.astype(np.float32), out)
        return out.astype(float)

    return apply


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_are_accurate_to_float32_rounding(name):
    exact, kind, bound = FUNCTIONS[name]
    value = each(getattr(vector_math, name))(X)
    size = np.abs(exact(X)) if kind == "relative" else 1 + np.abs(X)
    assert (np.abs(value - exact(X)) <= bound * size + 1e-38).all()


def test_logarithm_is_accurate_to_float32_rounding():
    x = np.exp(np.linspace(-30, 30, 100_001)).astype(np.float32).astype(float)
    assert (np.abs(each(vector_math.log)(x) - np.log(x)) <= 2e-7 * np.abs(np.log(x))).all()


@pytest.fixture(scope="module")
def normals():
    """(LANES, 2^17) of one bundle."""
    blocks = 2**13 * LANES // 2 // vector_math.GENERATORS * 16
    state = np.empty((4, vector_math.GENERATORS), np.uint32)
    out = np.empty((2, blocks * vector_math.GENERATORS), np.float32)
    vector_math.seed_generators(np.uint64(2**64 - 17), np.arange(LANES), state)
    vector_math.fill_normals(state, out, blocks)
    return out.astype(float).reshape(2, -1, LANES).transpose(2, 0, 1).reshape(LANES, -1)


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
def test_roots_of_any_rank(n_inputs, rank):
    rng = np.random.default_rng(n_inputs)
    factor = rng.normal(size=(LANES, n_inputs, min(rank, n_inputs)))
    factor[0] = 0.0
    matrix = factor @ factor.swapaxes(1, 2)
    work = [np.empty((n_inputs, n_inputs, LANES)) for _ in range(2)]
    vectors = np.ascontiguousarray(np.repeat(np.eye(n_inputs)[:, :, None], LANES, 2))
    out = np.empty((n_inputs, n_inputs, LANES), np.float32)
    for scale in (0.5, 1.0):  # the second start is what the first left
        symmetric_roots(np.ascontiguousarray(np.moveaxis(matrix, 0, -1)), vectors, *work, scale, out)
        root = np.moveaxis(out, -1, 0).astype(float) / scale
        size = np.trace(matrix, axis1=1, axis2=2)[:, None, None] + 1e-300
        assert (np.abs(root @ root - matrix) <= 1e-6 * size).all()
        assert (np.abs(root - symmetric_root(matrix)) <= 2e-4 * size**0.5).all()
        assert (out[..., 0] == 0).all()
