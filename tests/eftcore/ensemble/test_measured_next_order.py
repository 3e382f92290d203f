"""The next order measured from simulated networks: its fit, and that theory agrees with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

import eftcore as eft
from eftcore.ensemble.next_order import MeasuredNextOrder
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory
from eftcore.specs import MeasurementSpec

ONE = eft.InputKernel.explicit([[1.0]])
WIDTHS = (32, 64, 128)
ACTIVATIONS = ("tanh", "relu", "sin", "gelu", "erf", "cos", "linear", "leaky_relu", "silu", "softplus")


def network(activation: str) -> eft.ResNet:
    return eft.ResNet(activation=activation, weight_variance=1.5, epsilon=0.25, depth=10)


def predicted(activation: str, kernel: eft.InputKernel, **options) -> Theory:
    options = {"next_order": True, "truncation": 1e-3, "depths": [0, 10]} | options
    return eft.predict(network(activation), kernel, "exact", **options)


def measured(exact: Theory, samples: int, seed: int) -> MeasuredNextOrder:
    model, kernel = exact.spec.model, exact.spec.kernel
    return eft.measured_next_order(
        [eft.simulate(model, kernel, width=n, samples=samples, seed=seed + n, depths=exact.depth) for n in WIDTHS],
        exact,
    )


@pytest.mark.parametrize(
    ("activations", "samples"),
    [(ACTIVATIONS[:4], 40_000), pytest.param(ACTIVATIONS, 400_000, marks=pytest.mark.campaign)],
)
def test_theory_agrees_with_simulated_networks(activations: tuple[str, ...], samples: int) -> None:
    """All D together, at a level of 1 %, by Holm's method."""
    p_values = {}
    for activation in activations:
        exact = predicted(activation, ONE)
        found = measured(exact, samples, seed=3)
        assert exact.covariance_next is not None
        assert found.covariance_next is not None
        assert found.covariance_next_se is not None
        value, error = found.covariance_next[-1, 0, 0], found.covariance_next_se[-1, 0, 0]
        own = exact.details["truncation_error"]["D"] * abs(exact.covariance_next[-1, 0, 0])
        z = max(abs(value - exact.covariance_next[-1, 0, 0]) - own, 0.0) / error
        p_values[activation] = 2 * norm.sf(z)
        if activation != "sin":  # whose D nearly vanishes here
            assert error < 0.35 * abs(value), activation
    ordered = sorted(p_values.values())
    assert all(p >= 0.01 / (len(ordered) - rank) for rank, p in enumerate(ordered)), p_values


@pytest.mark.parametrize("activation", ["relu", "tanh", pytest.param("sin", marks=pytest.mark.campaign)])
def test_two_inputs(activation: str) -> None:
    exact = predicted(activation, eft.InputKernel.explicit([[1.0, 0.3], [0.3, 1.5]]), truncation=0.01)
    found = measured(exact, 40_000, seed=11)
    assert found.covariance_next.shape == (2, 3, 3)
    assert found.correction_next.shape == (2, 2, 2)
    z = (found.covariance_next - exact.covariance_next)[-1] / found.covariance_next_se[-1]
    assert np.abs(z).max() < 4
    np.testing.assert_allclose(found.covariance_next[-1], found.covariance_next[-1].T)
    # at layer 0 neurons are independent: there is no correction
    assert np.abs(found.covariance_next[0] / found.covariance_next_se[0]).max() < 4
    np.testing.assert_array_equal(found.correction_next[0], 0.0)
    np.testing.assert_array_equal(found.correction_next_se[0], 0.0)


def test_the_fit_is_a_line_through_numbers_that_lie_on_one() -> None:
    exact = predicted("tanh", ONE)
    samples = [eft.simulate(exact.spec.model, ONE, width=n, samples=400, seed=n, depths=[0, 10]) for n in WIDTHS]

    class Exactly:
        """A sample whose V4 and K1 lie on a line over 1/n."""

        def __init__(self, sample: eft.Sample) -> None:
            self.spec, self.digest, n = sample.spec, sample.digest, sample.spec.width
            self.samples = sample.samples
            self.degrees_of_freedom, self.reliable = sample.degrees_of_freedom, sample.reliable
            self.covariance, self.covariance_se = exact.covariance + 3.0 / n + 50.0 / n**2, sample.covariance_se
            self.correction, self.correction_se = exact.correction - 2.0 / n + 7.0 / n**2, sample.covariance_se

    found = eft.measured_next_order([Exactly(sample) for sample in samples], exact)  # type: ignore[misc]
    np.testing.assert_allclose(found.covariance_next, 3.0, rtol=1e-9)
    np.testing.assert_allclose(found.correction_next, -2.0, rtol=1e-9)


def test_standard_errors_hold_as_often_as_they_say() -> None:
    """Of 60 measurements at few networks, those of two widths that lie more than two standard errors off."""
    exact = predicted("tanh", ONE)
    low, high = 64, 128
    outside = 0
    for seed in range(60):
        samples = [
            eft.simulate(exact.spec.model, ONE, width=n, samples=400, seed=seed, depths=[0, 10]) for n in (low, high)
        ]
        found = eft.measured_next_order(samples, exact)
        outside += abs(found.covariance_next - exact.covariance_next)[-1, 0, 0] > 2 * found.covariance_next_se[-1, 0, 0]
    assert outside <= 9  # 3 expected; 10 or more has probability 0.001


def test_bad_arguments() -> None:
    exact = predicted("tanh", ONE)
    one, two = (eft.simulate(exact.spec.model, ONE, width=n, samples=4, depths=[0, 10]) for n in (8, 16))
    with pytest.raises(InputError, match="two different widths"):
        eft.measured_next_order([one, one], exact)
    with pytest.raises(InputError, match="other layers than exact"):
        eft.measured_next_order([one, two], predicted("tanh", ONE, depths=[0, 5, 10]))
    with pytest.raises(InputError, match="another network"):
        eft.measured_next_order([one, two], predicted("erf", ONE))
    with pytest.raises(InputError, match="has no V4"):
        eft.measured_next_order([one, two], replace(exact, covariance=None))


def test_a_measurement_is_identified_by_its_parts_and_as_sure_as_the_least_sure() -> None:
    exact = predicted("tanh", ONE)
    samples = [
        eft.simulate(exact.spec.model, ONE, width=n, samples=m, depths=[0, 10]) for n, m in ((64, 400), (8, 4000))
    ]
    found = eft.measured_next_order(samples, exact)
    assert found.spec.widths == [8, 64]
    assert found.spec.samples == tuple((s.spec.width, s.samples, s.digest) for s in reversed(samples))
    assert found.spec.networks == 4400
    assert found.spec.digest == eft.measured_next_order(samples[::-1], exact).spec.digest
    assert found.depth.tolist() == [0, 10]
    for name, source in (("D", "V4"), ("K2", "K1")):
        np.testing.assert_array_equal(
            found.degrees_of_freedom(name), np.minimum(*(sample.degrees_of_freedom(source) for sample in samples))
        )
        np.testing.assert_array_equal(
            found.reliable(name), np.logical_and(*(sample.reliable(source) for sample in samples))
        )
    again = MeasuredNextOrder.from_arrays(MeasurementSpec(**found.spec.model_dump(mode="json")), found.arrays())
    assert again.spec == found.spec
    np.testing.assert_array_equal(again.covariance_next_se, found.covariance_next_se)


def test_a_prediction_is_judged_by_what_is_measured() -> None:
    """D and K2 with all that either side does not know: noise, numerics, and entries that are not there."""
    exact = predicted("tanh", eft.InputKernel.explicit([[1.0, 0.3], [0.3, 1.5]]))
    found = measured(exact, 2000, seed=5)
    plain = eft.compare(exact, found, tolerances=[0.5])
    assert plain.windows.quantity.tolist() == ["D", "K2"]
    assert plain.windows.numerical_error.tolist() == [exact.relative_error("D"), exact.relative_error("K2")]
    at_end = plain.errors[plain.errors.depth == 10].set_index("quantity")
    d = QUANTITIES["D"]
    difference = d.norms(exact.covariance_next - found.covariance_next)[-1]
    assert at_end.absolute_error["D"] == pytest.approx(difference, rel=1e-12)
    assert at_end.absolute_error_se["D"] == pytest.approx(d.norms(found.covariance_next_se)[-1], rel=1e-12)

    # one pair is not known: neither its values nor its noise count
    unknown = exact.covariance_next.copy()
    unknown[:, 1], unknown[:, :, 1] = np.nan, np.nan
    known = np.isfinite(unknown)
    part = eft.compare(replace(exact, covariance_next=unknown), found, tolerances=[0.5])
    left = part.errors[(part.errors.quantity == "D") & (part.errors.depth == 10)].iloc[0]
    difference = np.linalg.norm((exact.covariance_next - found.covariance_next)[-1][known[-1]])
    assert left.absolute_error == pytest.approx(difference, rel=1e-12)
    assert left.absolute_error_se == pytest.approx(np.linalg.norm(found.covariance_next_se[-1][known[-1]]), rel=1e-12)

    # the theory's own error widens the bounds: by its share of the largest D
    sure = replace(found, covariance_next_se=np.full_like(found.covariance_next_se, 1e-9))
    vague = replace(exact, details={"truncation_error": {"D": 0.3, "K2": 0.0}})
    exactly = replace(exact, details={"truncation_error": {"D": 0.0, "K2": 0.0}})
    low, wide = (
        eft.compare(theory, sure, tolerances=[0.5]).errors.query("quantity == 'D' and depth == 10").iloc[0]
        for theory in (exactly, vague)
    )
    margin = 0.3 * d.norms(exact.covariance_next).max()
    assert wide.error_high - low.error_high == pytest.approx(margin / d.norms(found.covariance_next)[-1], rel=1e-6)
    assert wide.error_low == pytest.approx(
        max(low.error_low - margin / d.norms(found.covariance_next)[-1], 0), abs=1e-6
    )


def test_a_prediction_that_lacks_a_quantity_is_not_judged_by_it() -> None:
    """K2 of GELU is not known: what there is of it in a measurement says nothing about that theory."""
    with pytest.warns(eft.TruncationWarning, match="K2 of some inputs"):
        exact = predicted("gelu", ONE)
    found = measured(exact, 400, seed=1)
    assert set(eft.compare(exact, found, [0.05]).windows["quantity"]) == {"D"}
