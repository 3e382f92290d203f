"""The exact leading order: what sines and cosines give is what the Wick hierarchy converges to."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES


def network(activation: str, **other) -> eft.ResNet:
    return eft.ResNet(**{"activation": activation, "weight_variance": 2.0, "epsilon": 0.2, "depth": 25} | other)


pytestmark = pytest.mark.usefixtures("registered")

PAIR = [[1.0, 0.4], [0.4, 2.0]]

CASES = {
    "tanh": ({"activation": "tanh"}, [[2.0]]),
    "erf with biases": ({"activation": "erf", "bias_variance": 0.3}, PAIR),
    "sin, whose weight is at high orders": (
        {"activation": "sin", "weight_variance": 0.5},
        [[15.0, 10.0], [10.0, 12.0]],
    ),
    "cos": ({"activation": "cos"}, PAIR),
    "neither odd nor even": ({"activation": "logistic"}, PAIR),
    "two equal inputs, one opposite and one zero": (
        {"activation": "tanh", "bias_variance": 0.1},
        np.array([[1, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 0]]).tolist(),
    ),
}


@pytest.mark.parametrize(
    ("case", "continuous"),
    [
        pytest.param(case, continuous, marks=[pytest.mark.campaign] * (continuous != usual))
        for (case, (_, matrix)), usual in zip(CASES.items(), [True, False, False, True, False, False], strict=True)
        for continuous in ([False, True] if len(matrix) < 3 else [False])
    ],
)
def test_waves_and_wick_powers_agree_within_their_errors(case: str, continuous: bool) -> None:
    fields, matrix = CASES[case]
    model = network(**fields)
    kernel = eft.InputKernel.explicit(matrix)
    waves = eft.predict(model, kernel, "exact", continuous=continuous, truncation=1e-4)
    wick = eft.predict(model, kernel, "wick", order="auto", continuous=continuous, truncation=1e-4)
    assert waves.details["basis"] == "trigonometric"
    for quantity in (QUANTITIES[name] for name in ("V4", "K1")):
        one, two = quantity.of(waves), quantity.of(wick)
        assert one is not None
        assert two is not None
        allowed = sum(found.details["truncation_error"][quantity.name] for found in (waves, wick))
        scale = np.linalg.norm(two.reshape(len(two), -1), axis=1).max()
        assert np.abs(one - two).max() <= allowed * scale
        assert allowed <= 2e-4
    assert waves.source is not None
    assert wick.source is not None
    assert np.abs(waves.source - wick.source).max() <= 1e-3 * np.abs(wick.source).max()


def test_tanh_has_the_value_of_the_limit_of_many_functions() -> None:
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=200)
    found = eft.predict(model, eft.InputKernel.explicit([[2.0]]), "exact", continuous=True, depths=[0, 200])
    assert found.covariance is not None
    assert found.correction is not None
    assert abs(found.covariance[-1, 0, 0] - 48.4820) < 1e-4
    assert abs(found.correction[-1, 0, 0] + 0.4542) < 1e-4


def test_a_smaller_truncation_is_met_and_is_the_true_error() -> None:
    model, kernel = network("tanh"), eft.InputKernel.explicit([[2.0]])
    fine = eft.predict(model, kernel, "exact", truncation=1e-8)
    for truncation in (1e-2, 1e-4, 1e-6):
        found = eft.predict(model, kernel, "exact", truncation=truncation)
        assert found.correction is not None
        assert fine.correction is not None
        error = found.details["truncation_error"]["K1"]
        assert error <= truncation
        distance = np.abs(found.correction - fine.correction).max() / np.abs(fine.correction).max()
        assert distance <= error


@pytest.mark.parametrize("activation", ["relu", "gelu", "linear", "hard_tanh"])
def test_activations_that_grow_or_bend_have_wick_powers(activation: str) -> None:
    model, kernel = network(activation, weight_variance=1.0), eft.InputKernel.explicit(PAIR)
    found = eft.predict(model, kernel, "exact", truncation=0.01)
    wick = eft.predict(model, kernel, "wick", order="auto", truncation=0.01)
    assert found.details["basis"] == "wick"
    assert (found.order, wick.order) == (None, found.details["wick_order"])
    assert found.covariance is not None
    np.testing.assert_array_equal(found.covariance, wick.covariance)


def test_fast_waves_of_two_inputs_and_what_they_cannot_reach() -> None:
    """(k sigma)^2 exceeds 1000 at scale 2; at scale 30 exponentials would overflow, and the best found is returned."""
    kernel = eft.InputKernel.explicit(PAIR)
    found = eft.predict(network("erf(scale=2)", bias_variance=0.3), kernel, "exact", truncation=1e-4)
    assert found.details["basis"] == "trigonometric"
    path = eft.predict(network("erf(scale=2)", bias_variance=0.3), kernel, "particle")
    for one, two, error in (
        (found.covariance, path.covariance, path.covariance_se),
        (found.correction, path.correction, path.correction_se),
    ):
        assert one is not None
        assert two is not None
        assert error is not None
        assert (np.abs(one - two) <= 4.5 * error + 1e-4 * np.abs(one).max()).all()
    with pytest.warns(eft.TruncationWarning, match="closure = 'exact': truncation = 1e-06 was not met"):
        eft.predict(network("erf(scale=30)", depth=3), kernel, "exact", truncation=1e-6)


def test_what_it_cannot_do_is_refused() -> None:
    model, kernel = network("tanh"), eft.InputKernel.explicit([[2.0]])
    with pytest.raises(InputError, match="leaves out powers of epsilon"):
        eft.predict(model, kernel, "exact", step="euler")
    with pytest.raises(InputError, match="belongs to closure = 'wick'"):
        eft.predict(model, kernel, "exact", order=8)
    with pytest.raises(InputError, match="not exact with a fixed rule"):
        eft.predict(model, kernel, "exact", numerics=eft.Numerics(quadrature="gauss_hermite", nodes=32))
