"""Sums by group: parts of the whole, exact in merging, the same on any engine, and of the size that errors say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import eftcore as eft
from eftcore.ensemble import Sample
from eftcore.ensemble.cpu.moments import Moments
from eftcore.ensemble.groups import GroupSums, group_counts
from eftcore.ensemble.reference import Path
from eftcore.ensemble.sums import GROUPS, LANES, group_shapes
from eftcore.pairs import to_pairs

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.2, depth=12)
KERNEL = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 2.0]])
WHOLE = {"group_deviation": "deviation", "group_residual": "residual"}


def simulate(samples: int = 3000, **options) -> Sample:
    return eft.simulate(MODEL, KERNEL, width=12, samples=samples, device="cpu", **options)


@pytest.mark.parametrize("samples", [1, 40, 511, 512, 3000])
def test_every_network_belongs_to_one_group(samples):
    counts = group_counts([(0, samples), (1, 100)])
    assert counts.sum() == samples + 100
    expected = np.bincount(np.arange(samples) // LANES % GROUPS, minlength=GROUPS)
    assert (group_counts([(3, samples)]) == expected).all()


@pytest.mark.parametrize("estimator", ["plain", "paired"])
def test_groups_add_up_to_the_whole(estimator):
    sample = simulate(estimator=estimator)
    for part, whole in WHOLE.items():
        if part in sample.sums:
            scale = np.abs(sample.sums[part]).sum(0).max()
            np.testing.assert_allclose(sample.sums[part].sum(0), sample.sums[whole], atol=1e-6 * scale)
    diagonal = np.cumsum([0, 3, 2])  # of the packed upper triangle of 3 x 3
    np.testing.assert_allclose(sample.sums["group_square"].sum(0), sample.sums["deviation_2"][:, diagonal], rtol=1e-5)
    if estimator == "paired":
        change, size = sample.sums["group_change"].sum(0), np.abs(sample.sums["group_change"]).sum(0).max()
        np.testing.assert_allclose(change, sample.sums["change"][:, diagonal], atol=1e-5 * size)


@pytest.mark.parametrize("estimator", ["plain", "paired"])
def test_merging_is_exact_in_any_order(estimator):
    parts = [simulate(700, estimator=estimator, shard=shard) for shard in range(3)]
    one, other = parts[0] + parts[1] + parts[2], parts[2] + (parts[1] + parts[0])
    assert {name for name in one.sums if name.startswith("group_")} == set(
        group_shapes(1, 1, paired=estimator == "paired")
    )
    for name in one.sums:
        assert np.array_equal(one.sums[name], other.sums[name]), name
    np.testing.assert_array_equal(group_counts(one.shards), sum(group_counts(part.shards) for part in parts))


def test_sums_do_not_depend_on_how_many_come_at_once():
    rng = np.random.default_rng(0)
    observed = rng.standard_normal((70, 5, 4, 3, LANES))
    spec = eft.EnsembleSpec(model=MODEL, kernel=KERNEL, width=12, depths=(0, 3, 6, 9, 12))
    whole, pieces = (Moments(spec, Path(spec).reference) for _ in range(2))
    whole.add(observed)
    for begin in range(0, 70, 8):
        pieces.add(observed[begin : begin + 8])
    for name, total in whole.finished(70 * LANES).items():
        assert np.array_equal(total, pieces.finished(70 * LANES)[name]), name


@pytest.mark.parametrize("paired", [False, True])
def test_networks_side_by_side_give_the_same_sums(paired):
    """As the engines for graphics processors hand them over, in pieces of any size."""
    rng = np.random.default_rng(1)
    networks = rng.standard_normal((5, 4 if paired else 2, 3, 900))
    padded = np.zeros((*networks.shape[:-1], 57 * LANES))
    padded[..., :900] = networks
    bundles = np.moveaxis(padded.reshape(*networks.shape[:-1], 57, LANES), -2, 0)
    one, other = GroupSums(5, 2, paired=paired), GroupSums(5, 2, paired=paired)
    one.add(np.ascontiguousarray(bundles))
    for begin, end in ((0, 128), (128, 135), (135, 900)):
        other.add_networks(torch.tensor(networks[None, ..., begin:end]))
    for name, total in one.sums.items():
        np.testing.assert_allclose(other.sums[name], total, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("estimator", ["plain", "paired"])
@pytest.mark.parametrize(("quantity", "error"), [("K0", "mean_se"), ("K1", "correction_se"), ("V4", "covariance_se")])
def test_contributions_have_the_size_of_the_error(estimator, quantity, error):
    """Sum of squares over 32 groups against se^2: chi-squared with 31 degrees of freedom for each entry and depth.

    The mean over 20 ensembles of the ratio is 1 to 0.06 for each entry; false alarm below 1 in 1000 for all 6 cases.
    """
    ratios = []
    for seed in range(20):
        sample = simulate(4096, estimator=estimator, seed=seed)
        found = sample.group_fluctuations(quantity)
        assert found.shape == (GROUPS, 13, 3)
        assert np.abs(found.sum(0)).max() < 1e-9 * np.abs(found).max() * GROUPS
        se = getattr(sample, error)
        se = np.diagonal(se, axis1=1, axis2=2) if quantity == "V4" else to_pairs(se)
        se = se / sample.widening(quantity).factor[:, None]
        ratios.append(((found[:, 1:] ** 2).sum(0) / se[1:] ** 2) * GROUPS / (GROUPS - 1))
    ratio = np.mean(ratios, axis=0)
    assert np.abs(ratio.mean() - 1) < 0.12
    assert np.abs(ratio - 1).max() < 0.35


def test_few_networks_and_older_samples_have_no_groups():
    assert simulate(LANES * 7).group_fluctuations("V4") is None
    assert simulate(LANES * 8).group_fluctuations("V4") is not None
    assert simulate(600).group_fluctuations("U1") is None
    sample = simulate(600)
    older = {name: value for name, value in sample.arrays().items() if not name.startswith("group_")}
    restored = Sample.from_arrays(sample.spec, sample.shards, older, streams=sample.streams)
    assert restored.group_fluctuations("V4") is None
    np.testing.assert_array_equal(restored.covariance, sample.covariance)
    both = restored + simulate(600, shard=1)
    assert not any(name.startswith("group_") for name in both.sums)
    whole = Sample.from_arrays(sample.spec, sample.shards, sample.arrays(), streams=sample.streams)
    np.testing.assert_array_equal(whole.group_fluctuations("K1"), sample.group_fluctuations("K1"))


def test_a_fall_back_to_the_plain_covariance_has_its_groups():
    """Where the exact leading order is too uncertain, V4 is the plain estimate, and so are its contributions."""
    sample = simulate()
    vague = replace(sample.with_leading_order().leading, error=1e3 * np.abs(sample.covariance))
    fallen = replace(sample, leading=vague)
    plain = replace(sample, spec=sample.spec.model_copy(update={"estimator": "plain"}))
    np.testing.assert_array_equal(fallen.covariance, plain.covariance)
    np.testing.assert_allclose(fallen.group_fluctuations("V4"), plain.group_fluctuations("V4"))
