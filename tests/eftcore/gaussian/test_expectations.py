"""Gaussian pair expectations: closed forms, quadrature, arbitrary precision, activations that are hard on a rule."""

from __future__ import annotations

import warnings
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eftcore as eft
from eftcore.activations import get_activation, register_activation, unregister_activation
from eftcore.gaussian.closed_forms import closed_form
from eftcore.gaussian.closed_moments import ClosedFormExpectations
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.tensor import TensorGaussHermite
from eftcore.theory.closures import builder
from eftcore.theory.solving import at_resolution, relative_change
from eftcore.theory.together import alone

CLOSED = ["linear", "relu", "leaky_relu(slope=0.2)", "erf", "erf(scale=0.5)", "gelu", "sin", "cos"]
SERIES = ["tanh", "silu", "softplus(beta=3)"]
SIGMAS = {
    "tanh": mpmath.tanh,
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "softplus(beta=3)": lambda x: mpmath.log(1 + mpmath.exp(3 * x)) / 3,
    "softplus(beta=50)": lambda x: mpmath.log(1 + mpmath.exp(50 * x)) / 50,
    "relu": lambda x: max(x, mpmath.mpf(0)),
}


def pair(a: float, b: float, rho: float) -> np.ndarray:
    c = rho * np.sqrt(a * b)
    return np.array([[a, c], [c, b]])


@pytest.mark.parametrize("name", CLOSED)
@settings(max_examples=15, deadline=None)
@given(a=st.floats(0.05, 4.0), b=st.floats(0.05, 4.0), rho=st.floats(-0.8, 0.8))
def test_quadrature_agrees_with_closed_forms(name: str, a: float, b: float, rho: float) -> None:
    activation = get_activation(name)
    form = closed_form(activation)
    assert form is not None
    exact = ClosedFormExpectations(activation, form).moments(pair(a, b, rho), 2)
    found = MehlerExpectations(activation, level=6, terms=160).moments(pair(a, b, rho), 2)
    for one, two in (
        (found.value, exact.value),
        (found.gradient, exact.gradient),
        (found.hessian, exact.hessian),
    ):
        assert one is not None
        assert two is not None
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9 * np.abs(two).max() + 1e-12)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_closed_forms_and_quadrature_where_inputs_are_proportional(name: str, ratio: float) -> None:
    activation = get_activation(name)
    form = closed_form(activation)
    assert form is not None
    for sign in (1, -1):
        kernel = pair(1.3, 1.3 * ratio**2, sign)
        exact = ClosedFormExpectations(activation, form).moments(kernel, 0)
        found = MehlerExpectations(activation, level=6).moments(kernel, 0)
        np.testing.assert_allclose(found.value, exact.value, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", SIGMAS)
@pytest.mark.parametrize("variance", [0.3, 4.0])
def test_single_input_agrees_with_arbitrary_precision(name: str, variance: float) -> None:
    engine = MehlerExpectations(get_activation(name), level=12 if "50" in name else 6)
    found = engine.moments(np.array([[variance]]))
    root = mpmath.sqrt(variance)
    with mpmath.workdps(20):
        exact = mpmath.quad(
            lambda z: SIGMAS[name](root * z) ** 2 * mpmath.npdf(z), [-14, -2, -0.2, 0, 0.2, 2, 14], maxdegree=9
        )
    np.testing.assert_allclose(found.value[0], float(exact), rtol=1e-13)


@pytest.mark.parametrize("name", [*SERIES, "gelu"])
@pytest.mark.parametrize(("a", "b", "rho"), [(1.0, 1.0, 0.3), (2.0, 0.5, -0.7), (4.0, 3.0, 0.9)])
def test_series_agrees_with_a_double_integral(name: str, a: float, b: float, rho: float) -> None:
    """E2 and, by Price's theorem, d E2 / d K_ab = <sigma' sigma'>, by the trapezoidal rule in two variables."""
    activation = get_activation(name)
    assert activation.derivatives is not None
    found = MehlerExpectations(activation, level=6, terms=256).moments(pair(a, b, rho), 1)
    assert found.gradient is not None
    z = np.arange(-256, 257) / 24
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / 24
    left = activation.derivatives(np.sqrt(a) * z)[:2]
    right = activation.derivatives(np.sqrt(b) * (rho * z[:, None] + np.sqrt(1 - rho * rho) * z))[:2]
    exact = np.einsum("ki,kij,i,j->k", left, right, weight, weight)
    np.testing.assert_allclose([found.value[1], found.gradient[1, 1]], exact, rtol=1e-11)


@pytest.mark.parametrize("name", [*SERIES, "gelu", "sin"])
def test_hessian_is_the_derivative_of_the_gradient(name: str) -> None:
    engine = MehlerExpectations(get_activation(name), level=6, terms=128)
    kernel, step = pair(1.2, 0.7, 0.4), 1e-4
    moments = engine.moments(kernel, 2)
    assert moments.hessian is not None
    for r, (i, j) in enumerate([(0, 0), (0, 1), (1, 1)]):
        shift = np.zeros((2, 2))
        shift[i, j] = shift[j, i] = step
        up, down = (engine.moments(kernel + s * shift, 1).gradient for s in (1, -1))
        assert up is not None
        assert down is not None
        np.testing.assert_allclose((up - down)[1] / (2 * step), moments.hessian[1, :, r], rtol=1e-6, atol=1e-8)


def test_published_rule_converges_to_the_series() -> None:
    kernel = pair(0.8, 0.5, 0.4)
    found = TensorGaussHermite(get_activation("tanh"), 120).moments(kernel, 2)
    exact = MehlerExpectations(get_activation("tanh"), level=6, terms=128).moments(kernel, 2)
    np.testing.assert_allclose(found.value, exact.value, rtol=1e-9)
    np.testing.assert_allclose(found.gradient, exact.gradient, atol=1e-7)
    np.testing.assert_allclose(found.hessian, exact.hessian, atol=1e-5)


ROUGH = [("softplus(beta=50)", 1.0), ("tanh", 100.0), ("tanh", 1e-8), ("tanh", 2e4), ("silu", 2e4)]
HARD = [
    *[(*rough, "wick") for rough in ROUGH],
    ("tanh", 1e-8, "sigma"),
    ("tanh", 2e4, "sigma"),
    *[
        pytest.param(*case, marks=pytest.mark.campaign)
        for case in (
            ("softplus(beta=50)", 1.0, "sigma"),
            ("tanh", 100.0, "sigma"),
            ("silu", 2e4, "sigma"),
            ("gelu", 2e4, "sigma"),
            # the integrals of g_only are among those of sigma
            *((*rough, "g_only") for rough in ROUGH),
        )
    ],
    ("gelu", 1e-8, "sigma"),
    ("relu", 1e-8, "wick"),
    ("relu", 1.0, "sigma"),
    ("softplus(beta=50)", 100.0, "g_only"),
    ("erf(scale=20)", 4.0, "wick"),
    ("sin", 40.0, "sigma"),
]


@pytest.mark.parametrize(("name", "variance", "closure"), HARD)
def test_hard_cases_meet_the_tolerance_or_say_so(name: str, variance: float, closure: str) -> None:
    """Whatever the rule found, a far finer and different one must lie within the error that it reports."""
    spec = eft.PredictionSpec(
        model=eft.ResNet(activation=name, weight_variance=1.5, epsilon=0.2, depth=2),
        kernel=eft.InputKernel.equicorrelated(n_inputs=2, variance=variance, correlation=0.5),
        closure=closure,  # type: ignore[arg-type]
        order=4 if closure == "wick" else None,
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", eft.NumericsWarning)
        found = eft.predict_spec(spec)
    missed = {key: error for key, error in found.numerical_error.items() if error > spec.numerics.rtol}
    assert found.converged == (not missed)
    numerics = [warning for warning in said if not issubclass(warning.category, eft.TruncationWarning)]
    assert bool(numerics) == bool(missed)
    # Gauss-Legendre panels, which the trapezoidal rule of a smooth sigma never uses
    panels = MehlerExpectations(replace(get_activation(name), kinks=(0.0,)), level=16, terms=128)
    fine = alone(at_resolution(spec, panels, builder(spec), loosen=1e-2))
    for key, error in relative_change(found, fine).items():
        # an estimate above 1 says that no digit is right, and need not say by how much
        assert error <= found.numerical_error[key] or found.numerical_error[key] > 1, (key, error)


def test_relu_by_quadrature_alone_converges() -> None:
    """A kinked sigma without its closed form, as a user would register it: the same kernels within the error."""
    register_activation("my_relu", lambda x: np.maximum(x, 0.0), kinks=(0.0,))
    try:
        kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
        models = [
            eft.ResNet(activation=name, weight_variance=2.0, epsilon=0.2, depth=5) for name in ("relu", "my_relu")
        ]
        closed, own = (eft.predict(model, kernel, "g_only") for model in models)
        assert own.converged
        assert own.details["rule"] == "Mehler series, Gauss-Legendre panels"
        for name, key in (("mean", "K0"), ("covariance", "V4"), ("correction", "K1")):
            one, two = getattr(own, name), getattr(closed, name)
            assert np.linalg.norm(one[-1] - two[-1]) <= own.numerical_error[key] * np.linalg.norm(two[-1])
    finally:
        unregister_activation("my_relu")


def test_impossible_tolerance_is_admitted() -> None:
    model = eft.ResNet(activation="tanh", weight_variance=1.5, epsilon=0.2, depth=1)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1e5, correlation=0.9999)
    with pytest.warns(eft.NumericsWarning, match="rtol = 1e-09 was not met"):
        found = eft.predict(model, kernel, "g_only")
    assert not found.converged
    assert max(found.numerical_error.values()) > 1e-9
