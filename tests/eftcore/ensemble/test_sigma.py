"""The fused pass's activations against float64: where vector code holds, beyond that, at infinity and NaN."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from eftcore.activations import Activation, get_activation
from eftcore.ensemble.cpu.sigma import Sigma
from eftcore.ensemble.cpu.tile_pass import activate
from eftcore.ensemble.cpu.vector_math import STRICT
from eftcore.ensemble.minimax import WAVE_LIMIT
from eftcore.ensemble.sums import LANES


@njit(fastmath=STRICT, error_model="numpy")
def run(sigma, x, out):
    activate(*sigma, x, 1, x.shape[0] - 1, out)


def applied(sigma: Sigma, x: np.ndarray) -> np.ndarray:
    """sigma as the pass computes it, in its type; as float64."""
    rows, dtype = -(-x.size // LANES), sigma.arguments[2].dtype
    padded = np.zeros((1 + rows, LANES), dtype)
    padded[1:].ravel()[: x.size] = x
    out = np.full((rows, LANES), np.nan, dtype)
    run(sigma.arguments, padded, out)
    sigma.check()
    return out.ravel()[: x.size].astype(float)


def arguments(limit: float) -> np.ndarray:
    """Numbers of all sizes up to the limit, close to zeros of sine and cosine too."""
    zeros = np.arange(1, int(limit * 2 / np.pi)) * (np.pi / 2)
    size = np.concatenate([np.linspace(0, 40, 100_001), np.geomspace(1e-30, limit, 50_000), zeros])
    return np.float32(np.concatenate([size, -size])).astype(float)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sines_and_cosines_are_accurate_to_float32_rounding(name):
    function = getattr(np, name)
    x = arguments(WAVE_LIMIT)
    error = np.abs(applied(Sigma(get_activation(name), "float32"), x) - function(x))
    assert error.max() < 2e-7
    if name == "sin":
        assert (error <= 2e-7 * np.abs(x)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_beyond_vector_code_the_function_itself_is_called(name, dtype):
    sigma = Sigma(get_activation(name), dtype)
    x = np.array([1.0, 3e4, np.nan, -np.inf, -2e9, WAVE_LIMIT, np.nextafter(np.float32(WAVE_LIMIT), np.float32(1e9))])
    with np.errstate(invalid="ignore"):
        exact = getattr(np, name)(x)
    np.testing.assert_allclose(applied(sigma, x), exact, atol=2e-7)
    assert np.array_equal(applied(sigma, x)[[1, 4]], exact[[1, 4]].astype(dtype))


def test_a_function_that_fails_beyond_vector_code_is_not_silent():
    def fails(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("too large")

    sigma = Sigma(Activation(name="sin", family="sin", function=fails), "float32")
    assert applied(sigma, np.zeros(3)).tolist() == [0.0] * 3
    with pytest.raises(RuntimeError, match="too large"):
        applied(sigma, np.array([3e4]))


@pytest.mark.parametrize(
    "name", ["linear", "tanh", "erf(scale=0.7)", "relu", "leaky_relu(slope=0.2)", "gelu", "silu", "softplus(beta=2)"]
)
def test_float64_has_every_activation(name):
    """By vector code or polynomials; the size of their errors is tested where they are made."""
    activation = get_activation(name)
    x = np.random.default_rng(0).normal(size=20_000) * 4
    exact = activation.function(x)
    np.testing.assert_allclose(applied(Sigma(activation, "float64"), x), exact, rtol=4e-13, atol=4e-13)
