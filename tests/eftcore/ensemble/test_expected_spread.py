"""Spread that theory lets expect of a network's kernel, and a mark that no luck of the sample decides (eq. 7.18)."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft
from eftcore.ensemble import expected_spread, reliability, shards
from eftcore.ensemble.expected_spread import relative_variance
from eftcore.ensemble.reliability import LARGEST, credible_spread, widening
from eftcore.ensemble.shards import first_round, next_round

ONE = eft.InputKernel.explicit([[1.0]])


def spec(activation: str, width: int, epsilon: float, depth: int, kernel=ONE, weight_variance=2.0) -> eft.EnsembleSpec:
    model = eft.ResNet(activation=activation, weight_variance=weight_variance, epsilon=epsilon, depth=depth)
    return eft.EnsembleSpec(model=model, kernel=kernel, width=width, depths=(depth,))


@pytest.mark.parametrize("width", [4, 8, 64])
def test_linear_network_has_its_exact_spread(width):
    """E[G^2] grows by (1 + e)^2 + 2 (2 e + e^2) / n in a layer, from (1 + 2 / n); e = epsilon^2 C_W.

    Each of these factors is 1 + y, where (7.18) has exp(y): above it, in the logarithm by y^2 / 2 at most.
    """
    epsilon, depth, weight_variance = 0.05, 200, 2.0
    e = epsilon**2 * weight_variance
    steps = np.array([2 / width] + depth * [2 * (2 * e + e**2) / (width * (1 + e) ** 2)])
    exact, largest = np.prod(1 + steps) - 1, np.exp((steps**2).sum() / 2) * np.prod(1 + steps) - 1
    expected = relative_variance(spec("linear", width, epsilon, depth))[:, 0]
    found = credible_spread(np.zeros(1), expected, np.zeros(1))
    assert np.sqrt(exact) * (1 - 1e-6) <= found[0] <= np.sqrt(largest) * (1 + 1e-6)


@pytest.mark.parametrize(
    "network",
    [("relu", 4, 0.5, 6), ("gelu", 16, 0.2, 25), ("erf", 4, 0.5, 8), ("sin", 8, 0.2, 25), ("tanh", 16, 0.1, 20)],
)
def test_spread_is_foreseen_to_a_fifth_where_tails_are_heavy(network):
    """Against 100 000 networks; ReLU: 3.3, of which 2000 networks show anything from 2.1 to 3.5."""
    wanted = spec(*network)
    sample = eft.simulate(
        wanted.model, ONE, width=wanted.width, samples=100_000, depths=wanted.depths, estimator="plain", device="cpu"
    )
    spread, skewness = sample.spread_and_skewness
    power = reliability.power_of(spread[0], skewness[0], 10**9)
    found = credible_spread(np.zeros(1), relative_variance(wanted)[0], power)
    assert found[0] == pytest.approx(spread[0, 0], rel=0.2)


def test_each_input_counts_alone_and_width_divides():
    kernel = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 2.0]])
    both = relative_variance(spec("tanh", 12, 0.2, 10, kernel))
    for column, variance in enumerate((1.0, 2.0)):
        alone = spec("tanh", 24, 0.2, 10, eft.InputKernel.explicit([[variance]]))
        np.testing.assert_allclose(both[:, column], 2 * relative_variance(alone)[:, 0], rtol=1e-12)


def test_where_theory_says_nothing_the_sample_does(monkeypatch):
    zero = eft.InputKernel.explicit([[1.0, 0.0], [0.0, 0.0]])
    assert np.isnan(relative_variance(spec("tanh", 12, 0.2, 10, zero))).tolist() == [[False, True]]
    monkeypatch.setattr(expected_spread, "leading_order", lambda *_: None)
    unknown = relative_variance(spec("tanh", 12, 0.21, 10))  # of no other test, since it is kept
    assert np.isnan(unknown).all()
    spread, skewness = np.array([0.3]), np.array([0.8])
    bare, given = (widening("square", spread, skewness, 500, expected) for expected in (None, unknown[0]))
    assert bare.needed == given.needed


def test_a_sample_is_believed_where_it_is_far_wider():
    power, expected = np.zeros(2), np.array([0.04, 0.04])
    assert credible_spread(np.array([0.9, 0.01]), expected, power).tolist() == pytest.approx(
        [0.9, np.expm1(0.04) ** 0.5]
    )


@pytest.mark.parametrize(
    ("network", "networks", "quantity", "estimator"),
    [
        (("relu", 4, 0.5, 6), 2000, "K1", "plain"),
        (("relu", 4, 0.5, 6), 2000, "K1", "paired"),
        (("linear", 8, 0.2, 25), 16, "K1", "plain"),
        (("linear", 8, 0.2, 25), 64, "U1", "plain"),
        (("gelu", 16, 0.2, 25), 16, "U1", "plain"),
        (("gelu", 16, 0.2, 25), 2000, "Sigma", "plain"),
    ],
)
def test_luck_does_not_lift_the_mark(network, networks, quantity, estimator):
    """By the samples' own spread 9 to 61 % of them went unmarked here, the narrow ones, which held the truth in 23 to
    85 %. At most one in ten of 60 may now."""
    wanted = spec(*network)
    options = {"width": wanted.width, "samples": networks, "depths": wanted.depths, "estimator": estimator}
    samples = [eft.simulate(wanted.model, ONE, seed=seed, device="cpu", **options) for seed in range(60)]
    assert np.mean([sample.reliable(quantity)[0] for sample in samples]) <= 0.1


def test_gaussian_contributions_have_as_many_degrees_as_networks():
    found = widening("kernel", np.array([1e-3]), np.array([0.0]), 40)
    assert found.degrees_of_freedom[0] == pytest.approx(40, rel=1e-3)


def test_untrusted_errors_ask_for_as_many_networks_as_make_them_trusted(monkeypatch):
    """Not for the most that a round allows: the widening falls like 1 / networks."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.3, depth=6)
    target = eft.Precision(quantity="V4", relative=0.1)
    sample = eft.simulate(model, ONE, width=12, samples=700, device="cpu")
    needed = sample.widening("V4").needed.max()
    assert LARGEST < needed < 1 + 3 * (LARGEST - 1)
    wanted = (needed - 1) / (LARGEST - 1)
    monkeypatch.setattr(shards, "SHARD_WORK", 1)
    asked = sum(networks for _, networks in next_round(sample, target))
    enough = shards.MARGIN * wanted * 700
    assert enough <= asked < enough + shards.shard_size(sample.spec)
    more = eft.simulate(model, ONE, width=12, samples=int(1.3 * wanted * 700), device="cpu")
    assert more.reliable("V4").all()
    assert first_round(sample.spec, target)
