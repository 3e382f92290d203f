"""Histograms of G_aa: they count every network once, add up exactly, and give quantiles with their bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

import eftcore as eft
from eftcore.ensemble import Sample
from eftcore.ensemble.histogram import BINS, HISTOGRAM, Histogram, quantiles
from eftcore.ensemble.reference import Path, Reference
from eftcore.ensemble.sums import LANES
from eftcore.errors import InputError
from eftcore.specs import EnsembleSpec

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.2, depth=12)
KERNEL = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 2.0]])
WIDTH = 12
PROBABILITIES = np.array([0.005, 0.025, 0.1, 0.5, 0.9, 0.975, 0.995])


def simulate(samples: int = 3000, **options) -> Sample:
    return eft.simulate(MODEL, KERNEL, width=WIDTH, samples=samples, device="cpu", **options)


def counted(kernel: np.ndarray) -> np.ndarray:
    """(1, 1, BINS) counts of networks whose G, at one layer with K0 = 1, is ``kernel`` (networks,)."""
    spec = EnsembleSpec(model=MODEL, kernel=eft.InputKernel.explicit([[1.0]]), width=WIDTH, depths=(0,))
    histogram = Histogram(spec, Reference(np.ones((1, 1)), np.ones((1, 1))))
    lanes = np.zeros(-(-len(kernel) // LANES) * LANES)
    lanes[: len(kernel)] = kernel - 1
    observed = np.zeros((len(lanes) // LANES, 1, 2, 1, LANES))
    observed[:, 0, 0, 0] = lanes.reshape(-1, LANES)
    histogram.add(observed)
    return histogram.finished(len(kernel))


@pytest.mark.parametrize("estimator", ["plain", "paired"])
@pytest.mark.parametrize("samples", [1, 40, 513])
def test_every_network_is_counted_once(samples, estimator):
    counts = simulate(samples, estimator=estimator).sums[HISTOGRAM]
    assert counts.shape == (13, 2, BINS)
    assert (counts.sum(-1) == samples).all()


def test_merging_is_exact_in_any_order():
    parts = [simulate(700, shard=shard) for shard in range(3)]
    one, other = parts[0] + parts[1] + parts[2], parts[2] + (parts[1] + parts[0])
    np.testing.assert_array_equal(one.sums[HISTOGRAM], other.sums[HISTOGRAM])
    assert (one.sums[HISTOGRAM].sum(-1) == 2100).all()


def test_bins_are_narrow_enough_for_quantiles():
    """Of a million networks at the quantiles of chi^2: what is left is the width of the bins."""
    middle = (np.arange(1_000_000) + 0.5) / 1_000_000
    for width in (WIDTH, 4 * WIDTH):
        found = quantiles(counted(chi2.ppf(middle, width) / width), np.ones((1, 1)), WIDTH, PROBABILITIES).value[0, 0]
        exact, deviation = chi2.ppf(PROBABILITIES, width) / width, np.sqrt(2 / width)
        assert np.abs(found - exact).max() < 0.01 * deviation


def test_quantiles_of_the_first_layer_are_those_of_chi_squared():
    found = simulate(100_000).quantiles(PROBABILITIES)
    exact = chi2.ppf(PROBABILITIES, WIDTH) / WIDTH
    for column, variance in enumerate((1.0, 2.0)):
        spread = found.high[0, column] - found.low[0, column]
        assert (np.abs(found.value[0, column] / variance - exact) < spread / variance).all()
        assert (spread < 0.05 * variance).all()


def test_bounds_hold_the_quantile_in_19_of_20_samples():
    rng = np.random.default_rng(7)
    held = []
    for _ in range(400):
        found = quantiles(counted(rng.chisquare(WIDTH, 300) / WIDTH), np.ones((1, 1)), WIDTH, [0.05, 0.5, 0.9])
        exact = chi2.ppf(found.probability, WIDTH) / WIDTH
        held.append((found.low[0, 0] <= exact) & (exact <= found.high[0, 0]))
    # 19 of 20, with three standard errors of 0.011; exact ranks hold a little more than asked
    assert (np.mean(held, axis=0) > 0.95 - 0.033).all()
    assert (np.mean(held, axis=0) < 0.99).all()


def test_bounds_that_few_networks_cannot_give_are_unknown():
    found = quantiles(counted(np.linspace(0.5, 2, 30)), np.ones((1, 1)), WIDTH, [0.01, 0.5, 0.99])
    np.testing.assert_array_equal(np.isnan(found.low[0, 0]), [True, False, False])
    np.testing.assert_array_equal(np.isnan(found.high[0, 0]), [False, False, True])


def test_networks_beyond_the_last_bin_are_in_it():
    counts = counted(np.array([0.0, 0.0, 1.0, 1e300]))
    assert counts[0, 0, [0, BINS // 2, BINS - 1]].tolist() == [2, 1, 1]


def test_torch_counts_the_same():
    spec = EnsembleSpec(model=MODEL, kernel=KERNEL, width=WIDTH, depths=(0, 6, 12))
    reference = Path(spec).reference
    one, other = Histogram(spec, reference), Histogram(spec, reference)
    ratio = np.random.default_rng(3).chisquare(WIDTH, (20, 3, 3, LANES)) / WIDTH - 1
    observed = np.zeros((20, 3, 4, 3, LANES))
    observed[:, :, 0] = ratio * reference.kernel[..., None]
    one.add(observed)
    other.add_networks(torch.tensor(np.moveaxis(observed, 0, 3).reshape(1, 3, 4, 3, -1)))
    np.testing.assert_array_equal(one.finished(300), other.finished(300))


def test_an_input_that_is_zero_has_no_quantiles():
    kernel = eft.InputKernel.explicit([[0.0, 0.0], [0.0, 1.0]])
    sample = eft.simulate(MODEL, kernel, width=WIDTH, samples=500, device="cpu")
    found = sample.quantiles([0.1, 0.5])
    assert np.isnan(found.value[:, 0]).all()
    assert np.isfinite(found.value[:, 1]).all()


@pytest.mark.parametrize("probability", [0.0, [0.5, 1.0], float("nan"), [[0.5]]])
def test_a_probability_lies_between_0_and_1(probability):
    with pytest.raises(InputError, match=r"probability = .*must lie between 0 and 1"):
        simulate(100).quantiles(probability)


def test_a_sample_of_an_older_version_says_what_to_do():
    sample = simulate(100)
    older = replace(sample, sums={name: total for name, total in sample.sums.items() if name != HISTOGRAM})
    with pytest.raises(InputError, match="simulate it again"):
        older.quantiles([0.5])
    merged = older + simulate(100, shard=1)
    assert HISTOGRAM not in merged.sums
    arrays = older.arrays()
    assert HISTOGRAM not in Sample.from_arrays(sample.spec, sample.shards, arrays).sums
    assert HISTOGRAM in Sample.from_arrays(sample.spec, sample.shards, sample.arrays()).sums
