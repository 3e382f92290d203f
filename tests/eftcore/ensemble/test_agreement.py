"""The exact leading order that the paired V4 adds: its error counts, and networks that contradict it are believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import eftcore as eft
from eftcore.ensemble import leading_order
from eftcore.ensemble.leading_order import LeadingOrder

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.2, depth=10)
PAIR = eft.InputKernel.explicit([[1.0, 0.3], [0.3, 1.0]])


def test_leading_order_of_a_series_that_begins_late() -> None:
    """Orders 8 and 12 of sin at K = 10 are almost empty: the paired V4 was 2379.9 +- 2.6."""
    model = eft.ResNet(activation="sin", weight_variance=10.0, epsilon=0.7, depth=10)
    kernel = eft.InputKernel.explicit([[10.0]])
    sample = eft.simulate(model, kernel, width=32, samples=10_000, depths=[10])
    exact = eft.predict(model, kernel, "wick", order="auto", depths=[10]).covariance
    assert exact is not None
    leading = sample.with_leading_order().leading
    assert leading is not None
    assert abs(leading.covariance - exact).max() < leading.error.max() + 1e-6 * exact.max()
    assert not sample.leading_order_disagrees
    assert abs(sample.covariance[0, 0, 0] - 2411.0) < 3 * sample.covariance_se[0, 0, 0] < 25.0


def test_error_of_the_leading_order_is_part_of_the_standard_error() -> None:
    sample = eft.simulate(MODEL, PAIR, width=16, samples=500, depths=[10]).with_leading_order()
    assert sample.leading is not None
    unsure = replace(sample, leading=replace(sample.leading, error=np.full((1, 3, 3), 0.05)))
    assert (unsure.covariance_se**2 >= sample.covariance_se**2 + 0.05**2 * 0.99).all()


def test_networks_that_contradict_the_leading_order_are_believed() -> None:
    sample = eft.simulate(MODEL, PAIR, width=16, samples=4_000, depths=[0, 5, 10]).with_leading_order()
    assert not sample.leading_order_disagrees
    assert sample.leading is not None
    wrong = sample.leading.covariance.copy()
    wrong[-1, 1, 1] *= 1.3
    broken = replace(sample, leading=LeadingOrder(wrong, sample.leading.error))
    assert broken.leading_order_disagrees
    plain = eft.simulate(MODEL, PAIR, width=16, samples=4_000, depths=[0, 5, 10], estimator="plain").covariance
    with pytest.warns(eft.NumericsWarning, match="disagrees with the same networks"):
        found = broken.covariance
    assert np.linalg.norm(found[-1] - wrong[-1]) > np.linalg.norm(found[-1] - plain[-1])
    allowed = replace(sample, leading=LeadingOrder(wrong, np.abs(wrong - sample.leading.covariance) + 1e-12))
    assert not allowed.leading_order_disagrees


def test_sixteen_inputs_have_a_control_and_too_many_say_that_they_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.2, depth=4)
    kernel = eft.InputKernel.equicorrelated(n_inputs=16, variance=1.0, correlation=0.3)
    sample = eft.simulate(model, kernel, width=32, samples=1_000, depths=[4])
    plain = eft.simulate(model, kernel, width=32, samples=1_000, depths=[4], estimator="plain")
    assert np.linalg.norm(sample.covariance_se) < 0.5 * np.linalg.norm(plain.covariance_se)
    monkeypatch.setattr(leading_order, "MOST_ENTRIES", 2**10)
    monkeypatch.setattr(leading_order, "_series", leading_order._Series)  # which keeps what was found before
    without = eft.simulate(model, kernel, width=32, samples=1_000, depths=[4])
    with pytest.warns(eft.NumericsWarning, match="V4: the exact leading order of 16 inputs.* is too large"):
        assert np.linalg.norm(without.covariance_se) > 0.8 * np.linalg.norm(plain.covariance_se)


@pytest.mark.parametrize(("activation", "epsilon", "depth"), [("tanh", 0.1, 20), ("relu", 0.5, 6)])
def test_a_right_leading_order_is_not_refused(activation: str, epsilon: float, depth: int) -> None:
    """At a level of 1e-4 no alarm in 40 ensembles of few networks, light and heavy tails."""
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=epsilon, depth=depth)
    for seed in range(40):
        sample = eft.simulate(model, PAIR, width=4, samples=64, seed=seed)
        judged = sample.with_leading_order()
        assert judged.leading is not None
        assert not judged.leading_order_disagrees
