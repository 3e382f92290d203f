"""The kernels of a checked module as trajectories: they are those of theory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import eftcore as eft
from eftcore.measure.kernels import CheckedKernels, measured_kernels
from tests.eftcore.measure.corpus import CORRECT, DEPTH, FEATURES
from ui.figures.coordinate_check import LEVEL, theory_band

NETWORKS = 600


@pytest.fixture(scope="module", params=["pre-norm GELU", "one matrix, tanh"])
def checked(request: pytest.FixtureRequest) -> eft.Check:
    """A module whose embedding is drawn anew in each network, so that its kernel before the first block is random."""
    case = CORRECT[request.param]
    inputs = np.random.default_rng(1).normal(size=(2, FEATURES))
    return eft.check(case.make, inputs, case.spec, networks=NETWORKS, seed=7)


@pytest.fixture(scope="module")
def measured(checked: eft.Check) -> CheckedKernels:
    return measured_kernels(checked)


def test_they_begin_at_the_mean_kernel(checked: eft.Check, measured: CheckedKernels) -> None:
    assert measured.depth.tolist() == list(range(DEPTH + 1))
    np.testing.assert_array_equal(measured.mean[0], np.array(checked.recorded_as.kernel.matrix))
    spread = checked.kernel[:, -1, 0, 1].std(ddof=1)
    assert measured.mean_se is not None
    assert measured.mean_se[-1, 0, 1] == pytest.approx(spread / np.sqrt(NETWORKS))
    assert measured.covariance is not None
    assert measured.covariance[-1, 1, 1] == pytest.approx(measured.spec.width * spread**2)


def test_they_are_those_of_theory(measured: CheckedKernels) -> None:
    """No error of K0 or V4 above 30 % at any depth, with 95 % each, and K0 is known so well; the next order is about
    1/n = 3 % of either. Six
    z-scores of V4 at the last layer, the next order taken into account, below 4: a false alarm in 3000."""
    theory = eft.predict(measured.spec.model, measured.spec.kernel, "exact", next_order=True, truncation=0.01)
    result = eft.compare(theory, measured, tolerances=[0.3])
    assert set(result.windows.quantity) == {"K0", "V4"}
    assert result.windows.refuted_from.isna().all()
    assert result.windows.certified_until[0] == measured.time[-1]
    assert theory.covariance is not None
    assert theory.covariance_next is not None
    assert measured.covariance is not None
    assert measured.covariance_se is not None
    expected = (theory.covariance + theory.covariance_next / measured.spec.width)[-1]
    z = (measured.covariance[-1] - expected) / measured.covariance_se[-1]
    assert np.abs(z).max() < 4


def test_the_error_of_the_covariance_is_that_over_networks(measured: CheckedKernels) -> None:
    """Beside the bootstrap of 400 resamplings, which know it to 3.5 %."""
    rng = np.random.default_rng(0)
    values = measured.kernel[:, -1, 0, 0]
    again = [measured.spec.width * values[rng.integers(0, NETWORKS, NETWORKS)].var() for _ in range(400)]
    assert measured.covariance_se is not None
    assert measured.covariance_se[-1, 0, 0] == pytest.approx(np.std(again), rel=0.15)


def test_the_band_holds_the_networks_that_it_says(checked: eft.Check, measured: CheckedKernels) -> None:
    """Of 600 networks 95 % within 3.5 standard deviations (and 1 %-point for what the law leaves out)."""
    inside = []
    for a in range(2):
        band = theory_band(checked.spec, checked.mean[0, a, a], checked.width, measured.depth.tolist())
        assert band is not None
        _, low, high = band
        values = measured.kernel[:, -1, a, a]
        inside.append(((values > low[-1]) & (values < high[-1])).mean())
    spread = np.sqrt(LEVEL * (1 - LEVEL) / NETWORKS)
    assert np.abs(np.array(inside) - LEVEL).max() < 3.5 * spread + 0.01


def test_quantiles_have_bounds_where_networks_suffice(measured: CheckedKernels) -> None:
    found = measured.quantiles([0.0005, 0.5, 0.975])
    value, low, high = found.value, found.low, found.high
    assert value.shape == (DEPTH + 1, 2, 3)
    assert np.isnan(low[..., 0]).all(), "no network is surely below it"
    assert (low[..., 1:] <= value[..., 1:]).all()
    assert (value[..., 1:] <= high[..., 1:]).all()
    inside = (measured.kernel[:, -1, 0, 0] < high[-1, 0, 1]).sum()
    assert inside == stats.binom.ppf(0.975, NETWORKS, 0.5)


def test_averages_over_positions_have_no_covariance() -> None:
    tokens = np.random.default_rng(2).normal(size=(1, 2, FEATURES))
    case = CORRECT["pre-norm GELU"]
    found = measured_kernels(eft.check(case.make, tokens, case.spec, networks=30, positions="average"))
    assert found.covariance is None
    assert found.covariance_se is None
    assert found.mean_se is not None


def test_a_check_is_known_by_what_was_found(checked: eft.Check) -> None:
    """The same module with the same seeds has the same digest; code that it imports may have changed otherwise."""
    one = checked.recorded_as
    assert (one.module, one.factory) == ("Network", "corpus.py:<lambda>")
    assert (one.networks, one.width, one.seed, one.guessed) == (NETWORKS, 32, 7, False)
    again = type(one)(**one.model_dump())
    assert again.digest == one.digest
    other = one.model_copy(update={"kernels_digest": "0" * 64})
    assert type(one)(**other.model_dump()).digest != one.digest
