"""The law of one network's kernel: exact at layer 0, and right as often as it says deeper."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import chi2, lognorm

import eftcore as eft
from benchmarks.kernel_law import LEVELS, outcomes
from eftcore.errors import InputError
from eftcore.results import Theory
from eftcore.theory.next_order.law import PowerLaw

PAIR = [[1.0, 0.4], [0.4, 2.0]]


def predicted(kernel: list[list[float]], activation: str = "gelu", **options) -> Theory:
    model = eft.ResNet(activation=activation, weight_variance=1.5, epsilon=0.2, depth=20)
    options = {"next_order": True, "truncation": 0.05, "depths": [0, 10, 20]} | options
    return eft.predict(model, eft.InputKernel.explicit(kernel), "exact", **options)


@pytest.fixture(scope="module")
def pair() -> Theory:
    return predicted(PAIR)


@pytest.mark.parametrize("width", [8, 32, 200])
def test_at_layer_0_a_diagonal_entry_is_nearly_chi_squared(pair: Theory, width: int) -> None:
    """Wilson and Hilferty's cube root is known to be that good."""
    law = eft.kernel_law(pair, width).entry(1, layer=0)
    p = np.array([0.005, 0.025, 0.25, 0.5, 0.75, 0.975, 0.995])
    np.testing.assert_allclose(chi2(width).cdf(width * law.quantile(p) / 2.0), p, atol=0.004)


def test_at_layer_0_other_entries_are_those_of_gaussian_neurons(pair: Theory) -> None:
    width, networks = 12, 40_000
    rng = np.random.default_rng(3)
    phi = rng.standard_normal((networks, width, 2)) @ np.linalg.cholesky(PAIR).T
    g = np.swapaxes(phi, 1, 2) @ phi / width
    rank = (np.arange(networks) + 0.5) / networks
    law = eft.kernel_law(pair, width)
    correlation = g[:, 0, 1] / np.sqrt(g[:, 0, 0] * g[:, 1, 1])
    for own, values in ((law.entry(0, 1, layer=0), g[:, 0, 1]), (law.correlation(0, 1, layer=0), correlation)):
        assert np.abs(np.sort(own.cdf(values)) - rank).max() < 0.012


def test_quantiles_are_the_inverse_of_the_distribution_function(pair: Theory) -> None:
    law = eft.kernel_law(pair, 32)
    p = np.linspace(0.001, 0.999, 41)
    for own in (law.entry(0), law.entry(0, 1), law.correlation(0, 1), law.entry(1, 0, layer=10)):
        x = own.quantile(p)
        assert (np.diff(x) > 0).all()
        np.testing.assert_allclose(own.cdf(x), p, atol=2e-4)
        assert own.interval(0.9) == tuple(own.quantile(np.array([0.05, 0.95])))
        np.testing.assert_allclose(
            np.sort(own.sample(4000))[[400, 2000, 3600]], own.quantile([0.1, 0.5, 0.9]), rtol=0.2
        )


def test_the_order_of_two_inputs_does_not_matter(pair: Theory) -> None:
    law = eft.kernel_law(pair, 32)
    for one, two in ((law.entry(0, 1), law.entry(1, 0)), (law.correlation(0, 1), law.correlation(1, 0))):
        np.testing.assert_allclose(one.interval(), two.interval(), rtol=1e-6)


def test_mean_and_variance_are_those_of_theory(pair: Theory) -> None:
    width = 40
    x = eft.kernel_law(pair, width).entry(0).quantile((np.arange(20_000) + 0.5) / 20_000)
    mean = pair.mean[-1, 0, 0] + pair.correction[-1, 0, 0] / width
    variance = (pair.covariance[-1, 0, 0] + pair.covariance_next[-1, 0, 0] / width) / width
    np.testing.assert_allclose([x.mean(), x.var()], [mean, variance], rtol=5e-3)


@pytest.mark.parametrize("power", [-0.3, 0.0, 1 / 3, 1.0])
@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_a_power_law_has_the_moments_that_it_is_made_of(power: float, spread: float) -> None:
    law = PowerLaw.of_moments(2.0, (2.0 * spread) ** 2, power, in_range=True)
    x = law.quantile((np.arange(100_000) + 0.5) / 100_000)
    np.testing.assert_allclose([x.mean(), x.std()], [2.0, 2.0 * spread], rtol=1e-3)
    # not at 0, where a Gaussian that can be negative is cut off
    np.testing.assert_allclose(
        law.cdf(x[5_000::10_000]), (np.arange(5_000, 100_000, 10_000) + 0.5) / 100_000, atol=1e-9
    )
    assert law.in_range
    if power == 0:
        logarithm = np.log1p(spread**2) ** 0.5
        exact = lognorm(logarithm, scale=2.0 / np.sqrt(1 + spread**2))
        np.testing.assert_allclose(x[::10_000], exact.ppf(law.cdf(x[::10_000])), rtol=1e-6)


def test_a_power_that_no_such_law_has_is_replaced_and_told() -> None:
    law = PowerLaw.of_moments(1.0, 0.64, -2.0, in_range=True)
    assert law.power == pytest.approx(-0.1 / 0.8)
    assert not law.in_range


@pytest.mark.parametrize("configurations", [6, pytest.param(14, marks=pytest.mark.campaign)])
def test_intervals_hold_as_often_as_they_say(configurations: int) -> None:
    """At random configurations; benchmarks/KERNEL_LAW.md has 300 of them."""
    networks = 3000
    found = outcomes(configurations, networks, seed=1)
    assert {outcome.name for outcome in found} == {"one input", "two inputs", "correlation"}
    for level, covered in zip(LEVELS, np.transpose([outcome.covered for outcome in found]), strict=True):
        noise = np.sqrt(level * (1 - level) / networks)
        # the law itself is an approximation, by up to about 1 % and 0.6 % of probability
        assert (np.abs(covered - level) < 4 * noise + (0.01 if level == 0.95 else 0.006)).all()
        if configurations >= 14:  # the noise of a mean of fewer is larger
            assert abs(covered.mean() - level) < (0.01 if level == 0.95 else 0.004)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_quantiles_of_simulations_are_those_of_the_law(activation: str) -> None:
    theory = predicted([[1.5]], activation)
    sample = eft.simulate(
        theory.spec.model, theory.spec.kernel, width=48, samples=40_000, depths=[0, 10, 20], device="cpu"
    )
    found = sample.quantiles([0.005, 0.025, 0.25, 0.5, 0.75, 0.975, 0.995])
    p = found.probability
    for row, layer in enumerate(sample.depth):
        law = eft.kernel_law(theory, 48).entry(0, layer=int(layer))
        noise = np.sqrt(p * (1 - p) / sample.samples)
        # the law itself is an approximation: up to 0.6 % of probability, less in the tails
        assert (np.abs(law.cdf(found.value[row, 0]) - p) < 4 * noise + 0.03 * np.sqrt(p * (1 - p)) / 2).all()


def test_where_it_was_not_measured_it_says_so() -> None:
    theory = predicted([[1.0]], "relu", depths=[0, 20])
    with pytest.warns(eft.LawWarning, match="intervals may be wrong here"):
        assert not eft.kernel_law(theory, 6).entry(0).in_range
    with warnings.catch_warnings():
        warnings.simplefilter("error", eft.LawWarning)
        assert eft.kernel_law(theory, 64).entry(0).in_range


def test_bad_arguments(pair: Theory) -> None:
    with pytest.raises(InputError, match="needs the next order"):
        eft.kernel_law(predicted(PAIR, next_order=False), 64)
    for width in (0, -3, 2.5, True):
        with pytest.raises(InputError, match="width"):
            eft.kernel_law(pair, width)  # type: ignore[arg-type]
    law = eft.kernel_law(pair, 64)
    with pytest.raises(InputError, match="must be an input from 0 to 1"):
        law.entry(2)
    with pytest.raises(InputError, match="is not a recorded layer"):
        law.entry(0, layer=7)
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        law.entry(0).interval(1.0)
    with pytest.raises(InputError, match="proportional"):
        law.correlation(0, 0)
