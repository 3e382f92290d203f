"""Kinks found by themselves, integrals that end panels there, and activations that must be refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from scipy.special import expit
from scipy.stats import norm

import eftcore as eft
from eftcore.activations import register_activation, unregister_activation
from eftcore.kinks import find_kinks
from eftcore.theory.mean_field import choose_engine
from eftcore.theory.together import alone

NAME = "of_this_test"
CLOSURES = [
    ("mean", {}),
    ("source_only", {}),
    ("g_only", {}),
    ("sigma", {}),
    ("wick", {"order": 8}),
    ("wick", {"order": "auto", "truncation": 0.05}),
    ("particle", {}),
]


@pytest.fixture
def register() -> Iterator[Callable[..., eft.Activation]]:
    yield lambda function, **options: register_activation(NAME, function, **options)
    if NAME in eft.activation_names():
        unregister_activation(NAME)


def hardtanh(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -1, 1)


@pytest.mark.parametrize(
    ("function", "kinks"),
    [
        (np.abs, (0.0,)),
        (hardtanh, (-1.0, 1.0)),
        (lambda x: np.clip(x, 0, 6), (0.0, 6.0)),
        (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), (0.0,)),
        (lambda x: np.maximum(x - 0.25, 0) ** 2, (0.25,)),
        (lambda x: np.maximum(x, 0) ** 3, (0.0,)),
        (np.sign, (0.0,)),
        (lambda x: (x > 1 / 3) * 1.0, (0.3333333333,)),
        (lambda x: x / (1 + np.abs(x)), (0.0,)),
        (lambda x: np.abs(np.tanh(5 * x)), (0.0,)),
        (lambda x: x * np.clip(x + 3, 0, 6) / 6, (-3.0, 3.0)),
    ],
)
def test_kinks_are_found(function: Callable[[np.ndarray], np.ndarray], kinks: tuple[float, ...]) -> None:
    assert find_kinks(function) == pytest.approx(kinks, abs=1e-8)


@pytest.mark.parametrize(
    "function",
    [
        np.tanh,
        np.exp,
        np.sinc,
        lambda x: x**7,
        lambda x: np.sin(1000 * x),
        lambda x: np.tanh(1e5 * x),
        lambda x: np.exp(-50 * x * x),
        lambda x: np.logaddexp(0, 500 * x) / 500,
        lambda x: x * expit(x),
        lambda x: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))),
    ],
)
def test_smooth_functions_have_none(function: Callable[[np.ndarray], np.ndarray]) -> None:
    assert find_kinks(function) == ()


@pytest.mark.parametrize("variance", [1e-6, 0.01, 0.8, 30.0, 1e4])
@pytest.mark.parametrize("torch_function", [None, torch.nn.functional.hardtanh])
def test_hardtanh_has_its_elementary_integrals(register, variance: float, torch_function) -> None:
    register(hardtanh, torch_function=torch_function)
    kernel = np.array([[variance]])
    model = eft.ResNet(activation=NAME, weight_variance=1.0, epsilon=0.1, depth=1)
    engine = alone(choose_engine(model, kernel, eft.Numerics()))
    found = engine.refined(nodes=True, terms=True).moments(kernel, 2)
    c = 1 / np.sqrt(variance)
    inside, bell = 2 * norm.cdf(c) - 1, norm.pdf(c)
    np.testing.assert_allclose(found.value[0], variance * (inside - 2 * c * bell) + 2 * norm.sf(c), rtol=1e-11)
    natural = found.value[0] / variance
    np.testing.assert_allclose(found.gradient[0, 0], inside - 2 * c * bell, atol=1e-11 * natural)
    np.testing.assert_allclose(found.hessian[0, 0, 0], -(c**3) * bell / variance, atol=1e-11 * natural / variance)


def test_hardtanh_of_two_inputs(register) -> None:
    register(hardtanh)
    kernel = np.array([[0.8, 0.3], [0.3, 2.0]])
    model = eft.ResNet(activation=NAME, weight_variance=1.0, epsilon=0.1, depth=1)
    engine = alone(choose_engine(model, kernel, eft.Numerics()))
    found = engine.refined(nodes=True, terms=True).moments(kernel, 1)
    precision = np.linalg.inv(kernel)
    scale = 1 / (2 * np.pi * np.sqrt(np.linalg.det(kernel)))

    def density(y: float, x: float) -> float:
        return scale * np.exp(-0.5 * np.array([x, y]) @ precision @ np.array([x, y]))

    box = dblquad(density, -1, 1, -1, 1, epsabs=1e-12)[0]
    assert found.gradient[1, 1] == pytest.approx(box, rel=1e-9)


def test_absolute_value_with_torchs_derivatives_is_not_taken_for_smooth(register) -> None:
    """<|a| |b|> = (2 / pi) (sqrt(ab - c^2) + c asin(rho)); G-only K1 of a homogeneous sigma vanishes."""
    activation = register(np.abs, torch_function=torch.abs)
    assert activation.derivatives is None
    model = eft.ResNet(activation=NAME, weight_variance=1.5, epsilon=0.2, depth=1)
    found = eft.predict(model, eft.InputKernel.explicit([[1.0, 0.4], [0.4, 2.0]]), "g_only")
    a, b, c = 1.0, 2.0, 0.4
    mixed = 2 / np.pi * (np.sqrt(a * b - c * c) + c * np.arcsin(c / np.sqrt(a * b)))
    assert found.mean[1, 0, 1] == pytest.approx(c + 0.04 * 1.5 * mixed, rel=1e-10)
    assert found.correction[-1, 0, 0] == pytest.approx(0, abs=1e-9)
    assert found.converged


def test_sigma_without_formula_for_its_slope_is_as_good_as_with(register) -> None:
    register(lambda x: np.sin(3 * x))
    model = eft.ResNet(activation=NAME, weight_variance=1.5, epsilon=0.3, depth=4)
    kernel = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 0.7]])
    found = eft.predict(model, kernel, "sigma")
    unregister_activation(NAME)
    register(lambda x: np.sin(3 * x), torch_function=lambda x: (3 * x).sin())
    exact = eft.predict(model, kernel, "sigma")
    np.testing.assert_allclose(found.covariance, exact.covariance, rtol=1e-9)
    np.testing.assert_allclose(found.correction, exact.correction, rtol=1e-8, atol=1e-10)


BAD = [
    (lambda x: np.where(x > 6, np.nan, np.tanh(x)), "not finite at x = 6"),
    (lambda x: np.exp(x * x / 4), "grows so fast"),
    (lambda x: np.exp(8 * x), "grows so fast|not finite"),
]


@pytest.mark.parametrize(("function", "message"), BAD)
@pytest.mark.parametrize(("closure", "options"), CLOSURES)
def test_every_closure_refuses_by_name(register, function, message: str, closure: str, options: dict) -> None:
    register(function)
    model = eft.ResNet(activation=NAME, weight_variance=1.5, epsilon=0.2, depth=6)
    with pytest.raises(eft.InputError, match=f"activation = '{NAME}'.*({message})"):
        eft.predict(model, eft.InputKernel.explicit([[2.0, 0.4], [0.4, 2.0]]), closure, **options)


@pytest.mark.parametrize(("function", "message"), BAD)
def test_simulation_refuses_by_name(register, function, message: str) -> None:
    register(function)
    model = eft.ResNet(activation=NAME, weight_variance=1.5, epsilon=0.2, depth=6)
    with pytest.raises(eft.InputError, match=f"activation = '{NAME}'.*({message})"):
        eft.simulate(model, eft.InputKernel.explicit([[2.0]]), width=8, samples=16)


@pytest.mark.parametrize(("closure", "options"), CLOSURES)
def test_a_kernel_that_overflows_is_the_models_fault(register, closure: str, options: dict) -> None:
    register(lambda x: x**3, torch_function=lambda x: x**3)
    model = eft.ResNet(activation=NAME, weight_variance=2.0, epsilon=1.0, depth=30)
    with pytest.raises(eft.InputError, match="model: K0 leaves the range"):
        eft.predict(model, eft.InputKernel.explicit([[1.0]]), closure, **options)


def test_the_sigma_closure_refuses_a_sigma_that_jumps(register) -> None:
    register(lambda x: (x > 1) * 1.0)
    model = eft.ResNet(activation=NAME, weight_variance=1.5, epsilon=0.2, depth=6)
    with pytest.raises(eft.InputError, match=r"sigma jumps at x = 1.*take closure"):
        eft.predict(model, eft.InputKernel.explicit([[1.0]]), "sigma")


def test_single_precision_is_refused(register) -> None:
    with pytest.raises(eft.InputError, match="double precision"):
        register(lambda x: np.tanh(x.astype(np.float32)).astype(float))
