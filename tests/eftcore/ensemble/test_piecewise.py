"""Piecewise polynomials have the bound that is stated, in vector code too, and kinks, tails and refusals are right."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import eftcore as eft
from eftcore.activations import Activation, get_activation, register_activation, unregister_activation
from eftcore.ensemble.cpu.sigma import Sigma
from eftcore.ensemble.engines import engine_name
from eftcore.ensemble.piecewise import FAR, NEAR, Piecewise, piecewise, tolerance
from eftcore.kinks import find_kinks
from tests.eftcore.ensemble.test_sigma import applied

FUNCTIONS = {
    "mish": (lambda x: x * np.tanh(np.logaddexp(0, x)), FAR),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), FAR),
    "hardswish": (lambda x: x * np.clip(x + 3, 0, 6) / 6, FAR),
    "clip at 100": (lambda x: np.clip(x, -100, 100), FAR),
    "sign": (np.sign, FAR),
    "steps": (lambda x: np.where(x > 1 / 3, 1.0, np.where(x >= -0.7, 0.25, -2.0)), FAR),
    "bell": (lambda x: np.exp(-x * x), FAR),
    "cubic": (lambda x: x**3 - x, 30),
    "softsign": (lambda x: x / (1 + np.abs(x)), 200),
    "snake": (lambda x: x + np.sin(x) ** 2, 30),
    "exp": (np.exp, 30),
    "sin 5x": (lambda x: np.sin(5 * x), 5),
    "constant": (lambda x: 0 * x + 2.5, FAR),
    "small": (lambda x: 1e-3 * np.tanh(x), FAR),
    "steep": (lambda x: np.tanh(3e3 * x), FAR),
    "in place": (lambda x: np.maximum(x, 0.0, out=x), FAR),
}
"""Functions, and how far their polynomials reach at least; FAR: up to the last number below it."""


def made(name: str) -> Activation:
    function = FUNCTIONS[name][0]
    return Activation(name=name, family=name, function=function, kinks=find_kinks(function), builtin=False)


def numbers(fit: Piecewise, kinks: tuple[float, ...], dtype: str) -> np.ndarray:
    """Arguments of all sizes within the limit, with the ends of pieces, kinks and their neighbours."""
    rng = np.random.default_rng(0)
    near = min(fit.limit, 30.0)
    special = np.array([0.0, fit.limit, *kinks, *fit.table[0]], dtype)
    special = np.concatenate([np.nextafter(special, side, dtype=dtype) for side in (-np.inf, np.inf)] + [special])
    large = np.geomspace(1e-20, fit.limit, 3000)
    x = np.concatenate([rng.uniform(-near, near, 40_000), large, -large, special, -special]).astype(dtype)
    return x[np.abs(x) <= fit.limit].astype(float)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_polynomials_have_the_bound_that_is_stated(name, dtype):
    """In vector code, at numbers that the fit did not see; the bound is not too large by more than a factor of 10.

    In float64 the ends of pieces at 1 / 3 are left out: that kink is known to 1e-10.
    """
    activation = made(name)
    fit = piecewise(activation, dtype)
    assert fit.limit > (0.999 if dtype == "float32" else 0.25) * FUNCTIONS[name][1]
    assert fit.error <= 1
    x = numbers(fit, activation.kinks, dtype)
    x = x[(np.abs(x - 1 / 3) > 1e-9) | (dtype == "float32")]
    exact = activation.function(x.copy())
    error = np.abs(applied(Sigma(activation, dtype), x) - exact)
    bound = fit.error * tolerance(activation.function, x, dtype)
    assert (error <= bound + 1e-37).all()
    if name not in ("clip at 100", "sign", "steps", "constant", "in place"):  # exact but for rounding
        assert (error > 0.1 * bound).any()
    zero = np.zeros(1)
    assert applied(Sigma(activation, dtype), zero) == activation.function(zero).astype(dtype)


@pytest.mark.parametrize("name", ["mish", "sign", "exp", "sin 5x"])
def test_beyond_the_polynomials_sigma_itself_is_called(name):
    activation = made(name)
    limit = np.float32(piecewise(activation, "float32").limit)
    x = np.float32([0.5, np.nan, np.inf, -np.inf, -1e30, np.nextafter(limit, np.float32(np.inf))]).astype(float)
    with np.errstate(all="ignore"):
        exact = np.float32(activation.function(x))
    np.testing.assert_allclose(applied(Sigma(activation, "float32"), x), exact, rtol=1e-6)
    assert np.array_equal(applied(Sigma(activation, "float32"), x)[1:], exact[1:], equal_nan=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.sin(30 * x),
        lambda x: np.sqrt(np.abs(x)),
        lambda x: np.tanh(x) + 1e-5 * np.sin(1e6 * x),
        lambda x: np.where(np.abs(x) < 3, x, np.inf),
        lambda x: 1e-20 * np.tanh(x),
    ],
    ids=["too fast", "infinite slope", "noise", "infinite", "squares vanish in float32"],
)
def test_what_cannot_be_bounded_is_refused(function):
    assert piecewise(Activation(name="odd", family="odd", function=function, builtin=False), "float32") is None


@pytest.fixture
def register():
    names = []

    def one(name, function, **options):
        register_activation(name, function, **options)
        names.append(name)

    yield one
    for name in names:
        unregister_activation(name)


def ensemble(activation: str, *, estimator: str = "paired", dtype: str = "float32", **block) -> eft.EnsembleSpec:
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.3, depth=6, **block)
    kernel = eft.InputKernel.explicit([[1.0, 0.3], [0.3, 3.0]])
    return eft.EnsembleSpec(model=model, kernel=kernel, width=12, estimator=estimator, dtype=dtype)


@pytest.mark.parametrize("estimator", ["plain", "paired"])
@pytest.mark.parametrize("builtin", ["tanh", "relu", "sin"])
def test_networks_of_a_registered_activation_are_those_of_the_built_in_one(
    builtin, estimator, register, observe, monkeypatch
):
    """With the same random numbers. sin, whose range differs, meets numbers beyond it."""
    monkeypatch.setattr("eftcore.ensemble.cpu.engine.stream_key", lambda spec, shard: 5)
    known = get_activation(builtin)
    register(f"my_{builtin}", known.function, parity=known.parity)
    one, other = (observe(ensemble(name, estimator=estimator), 50) for name in (builtin, f"my_{builtin}"))
    assert one.std() > 0.1
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("activation", "estimator", "block"),
    [
        ("tanh", "paired", {}),
        ("gelu", "plain", {"normalisation": "layer"}),
        ("sin", "paired", {"block": "two_matrix", "normalisation": "rms"}),
        ("relu", "paired", {"normalisation": "rms"}),
    ],
)
def test_networks_of_float64_follow_those_of_float32(activation, estimator, block, observe, monkeypatch):
    """With the same random numbers, whose float64 normals have more digits, up to the rounding of float32."""
    monkeypatch.setattr("eftcore.ensemble.cpu.engine.stream_key", lambda spec, shard: 5)
    single, double = (
        observe(ensemble(activation, estimator=estimator, dtype=dtype, **block), 50) for dtype in ("float32", "float64")
    )
    assert single.std() > 0.1
    np.testing.assert_allclose(single, double, atol=1e-5)
    assert not np.array_equal(single, double)


def test_an_activation_without_polynomials_is_simulated_by_torch_which_is_said(register):
    register("fast", lambda x: np.sin(30 * x))
    spec = ensemble("fast")
    assert engine_name(spec, "cpu") == "torch"
    said = f"activation fast: .* up to [|]x[|] = {NEAR:g}.*"
    with pytest.warns(eft.NumericsWarning, match=said):
        sample = eft.simulate(spec.model, spec.kernel, width=4, samples=16, device="cpu")
    assert sample.streams[0].startswith("torch")


def test_a_failure_of_the_users_function_is_the_users(register):
    """It is raised, though it happens inside compiled code, and only where numbers come that far."""

    def careful(x):
        if np.abs(x).max(initial=0.0) > 100:
            raise ValueError("far away")
        return np.tanh(x)

    register("careful", careful)
    fit = piecewise(get_activation("careful"), "float32")
    assert 4 < fit.limit < 100
    with pytest.raises(ValueError, match="far away"):
        applied(Sigma(get_activation("careful"), "float32"), np.array([0.0, 200.0]))
    near = np.linspace(-3, 3, 100).astype(np.float32).astype(float)
    np.testing.assert_allclose(applied(Sigma(get_activation("careful"), "float32"), near), np.tanh(near), atol=1e-6)


def test_a_name_that_is_registered_anew_has_its_new_theory(register, observe):
    """The networks' S is measured from E2(K0) of their own activation."""
    register("again", lambda x: np.tanh(x))
    observe(ensemble("again"), 16)
    unregister_activation("again")
    register_activation("again", lambda x: 3 * np.tanh(x))
    first = observe(ensemble("again"), 1000)[:, 0, 1, 0]
    assert abs(first.mean()) < 6 * first.std() / 1000**0.5


ELSEWHERE = """
import numpy as np
from tests.eftcore.ensemble.test_piecewise import applied, made, numbers
from eftcore.ensemble.cpu.sigma import Sigma
from eftcore.ensemble.piecewise import piecewise
activation = made("snake")
for dtype in ("float32", "float64"):
    fit = piecewise(activation, dtype)
    x = numbers(fit, activation.kinks, dtype)
    print(np.abs(applied(Sigma(activation, dtype), x) - fit(x)).max())
"""


@pytest.mark.parametrize("processor", ["x86-64", "haswell"])
def test_older_processors_pick_the_same_entries(processor, tmp_path):
    """Without AVX2, and without AVX-512; the first has no fused products, and so the digits of numpy."""
    features = "+avx,+avx2,+fma" if processor == "haswell" else ""
    environment = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    single, double = map(float, done.stdout.split())
    assert single <= (0.0 if processor == "x86-64" else 1e-5)
    assert double <= (0.0 if processor == "x86-64" else 1e-14)
