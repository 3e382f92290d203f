"""What a truncated Wick hierarchy leaves out: never a false zero, and a bound that holds without being idle."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import eftcore as eft
from eftcore.gaussian.hermite import high_coefficients, panel_rule, trapezoidal_rule
from eftcore.pairs import to_matrix
from eftcore.specs import PredictionSpec
from eftcore.theory.solving import solve
from eftcore.theory.together import alone, alone_each
from eftcore.theory.truncation import ORDERS, raised_orders, truncated


def network(activation: str, weight_variance: float = 2.0, epsilon: float = 0.1, depth: int = 20) -> eft.ResNet:
    return eft.ResNet(activation=activation, weight_variance=weight_variance, epsilon=epsilon, depth=depth)


def inputs(variance: float, correlation: float | None = None, scale: float = 1.0) -> eft.InputKernel:
    if correlation is None:
        return eft.InputKernel.explicit([[variance]])
    cross = correlation * variance * scale
    return eft.InputKernel.explicit([[variance, cross], [cross, variance * scale**2]])


def spec_of(model: eft.ResNet, kernel: eft.InputKernel, order: int, **options: object) -> PredictionSpec:
    return PredictionSpec(model=model, kernel=kernel, closure="wick", order=order, **options)


@pytest.mark.parametrize(
    ("model", "kernel", "expected"),
    [
        (network("sin", 5.0, 0.7), inputs(20.0), -2.67937493447),
        (network("tanh"), inputs(1000.0), -4.3193e-4),
    ],
    ids=["orders 8 and 12 are empty", "weight at orders of thousands"],
)
def test_empty_orders_stop_nothing(model: eft.ResNet, kernel: eft.InputKernel, expected: float) -> None:
    found = eft.predict(model, kernel, "wick", order="auto", depths=(0, 20))
    assert found.correction is not None
    assert found.correction[-1, 0, 0] == pytest.approx(expected, rel=1e-3)


def test_converged_order_of_the_paper_network() -> None:
    """Orders 24 and 120 give -0.4440 and -0.4530."""
    model = network("tanh", 2.0, 0.05, 800)
    found = eft.predict(model, inputs(2.0, 0.3), "wick", order="auto", depths=(0, 800))
    fixed = eft.predict(model, inputs(2.0, 0.3), "wick", depths=(0, 800))
    for theory, largest in ((found, 1e-3), (fixed, 0.05)):
        assert theory.correction is not None
        left = theory.details["truncation_error"]
        assert isinstance(left, dict)
        assert abs(theory.correction[-1, 0, 0] / -0.45296256 - 1) < left["K1"] < largest


@pytest.mark.filterwarnings("ignore:numerics")  # K1 is far below its natural size there, and so all rounding
def test_an_order_far_too_low_says_so() -> None:
    with pytest.warns(eft.TruncationWarning, match=r"order = 24: .* K1 "):
        found = eft.predict(network("sin", 5.0, 0.7), inputs(20.0), "wick", depths=(0, 20))
    left = found.details["truncation_error"]
    assert isinstance(left, dict)
    assert left["K1"] > 100
    assert left["V4"] > 4e-3


def test_what_cannot_be_afforded_is_reported() -> None:
    with pytest.warns(eft.TruncationWarning, match="was not met by order"):
        found = eft.predict(network("sin"), inputs(2000.0, 0.3), "wick", order="auto", depths=(0, 20))
    left = found.details["truncation_error"]
    assert isinstance(left, dict)
    assert left["K1"] > 1e-3


@pytest.mark.parametrize(
    ("activation", "kernel", "options"),
    [
        ("tanh", inputs(2.0, 0.3), {}),
        ("tanh", inputs(2.0, 0.3), {"continuous": True}),
        ("tanh", inputs(1.0, -1.0), {}),
        ("erf(scale=5)", inputs(1.0), {}),
        ("erf", inputs(2.0, 0.99), {}),
        ("cos", inputs(4.0, 0.3), {}),
        ("sin", inputs(9.0), {}),
        ("gelu", inputs(1.0, 1.0, 2.0), {}),
        ("softplus", inputs(1.0, 0.3), {}),
        ("relu", inputs(1.0), {}),
        ("relu", inputs(1.0, 0.3), {}),
        ("relu", inputs(1.0, 1.0), {}),
        ("leaky_relu(slope=0.2)", inputs(1.0, 0.9), {}),
    ],
)
def test_bound_holds_at_every_depth_and_is_no_idle_one(
    activation: str, kernel: eft.InputKernel, options: dict[str, object]
) -> None:
    def spec(order: int) -> PredictionSpec:
        return spec_of(network(activation, depth=40), kernel, order, depths=(0, 3, 15, 40), **options)

    high = alone(solve(spec(100)))
    assert high.covariance is not None
    assert high.correction is not None
    rounding = 1e-13 * np.abs(high.covariance).max()
    for order in (2, 8, 24):
        low = alone(solve(spec(order)))
        above = truncated(spec(order), low, order).beyond
        assert low.covariance is not None
        assert low.correction is not None
        missed = np.abs(high.covariance - low.covariance)
        allowed = np.sqrt(above.variance[:, :, None] * above.variance[:, None, :])
        assert (missed <= allowed + rounding).all(), order
        held = above.share < 0.1 and order > 2
        if held:
            assert above.variance[-1].sum() <= 4 * np.linalg.norm(missed[-1]) + rounding, order
        missed, allowed = np.abs(high.correction - low.correction), to_matrix(above.correction)
        assert (missed <= allowed + rounding).all(), order
        if held:
            limit = 30 if above.coarse else 3
            assert np.linalg.norm(allowed[-1]) <= limit * np.linalg.norm(missed[-1]) + rounding, order


def test_raising_the_order_ends_as_soon_as_everything_is_there() -> None:
    spec = spec_of(network("linear"), inputs(1.0, 0.3), 24)
    first = next(alone_each(raised_orders(spec)))
    assert first.order == ORDERS[0]
    assert max(first.rest.values()) < 1e-9
    assert max(first.strict.values()) < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert eft.predict(spec.model, spec.kernel, "wick", order="auto").details["wick_order"] == ORDERS[0]


@pytest.mark.parametrize("rule", [trapezoidal_rule(0.1, 40), panel_rule(24, 40)])
def test_coefficients_without_a_table(rule) -> None:
    values = np.stack([np.tanh(rule.nodes) ** 2, np.maximum(rule.nodes, 0.0)])
    expected = rule.coefficients(values)
    np.testing.assert_allclose(high_coefficients(rule, values, expected.shape[1]), expected, atol=1e-14)
    np.testing.assert_allclose(high_coefficients(rule, values, 30, 11), expected[:, 11:30], atol=1e-14)
