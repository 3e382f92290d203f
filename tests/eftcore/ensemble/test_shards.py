"""Shards add up to the same digits in any order, and depend on the seed and their index alone."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch

import eftcore as eft
from eftcore.ensemble import threads
from eftcore.ensemble.cpu import engine as cpu_engine
from eftcore.errors import InputError

MODEL = eft.ResNet(activation="tanh", weight_variance=1.5, bias_variance=0.1, epsilon=0.3, depth=6)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=3, variance=1.0, correlation=0.3)

ENSEMBLES = [
    ("paired", "float32", "fused"),
    ("plain", "float32", "fused"),
    ("paired", "float64", "fused"),
    ("paired", "float64", "torch"),
]


@pytest.fixture(autouse=True)
def _by_the_engine(request):
    """The general engine, where a test asks for it by a parameter."""
    if "torch" in getattr(getattr(request.node, "callspec", None), "params", {}).values():
        request.getfixturevalue("by_torch")


def simulate(estimator, dtype, **options):
    options = {"samples": 40, "width": 12, "depths": (0, 2, 6), "device": "cpu"} | options
    return eft.simulate(MODEL, KERNEL, estimator=estimator, dtype=dtype, **options)


def same(one, other):
    return one.sums.keys() == other.sums.keys() and all(np.array_equal(one.sums[k], other.sums[k]) for k in one.sums)


@pytest.mark.parametrize(("estimator", "dtype", "engine"), ENSEMBLES)
def test_shards_merge_to_the_same_digits_in_any_order_and_grouping(estimator, dtype, engine):
    shards = [simulate(estimator, dtype, shard=k, samples=count) for k, count in enumerate((40, 16, 7, 133, 1))]
    left = reduce(lambda a, b: a + b, shards)
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b, c, d, e = (shards[k] for k in rng.permutation(5))
        other = (a + (b + c)) + (d + e)
        assert same(left, other)
        assert other.digest == left.digest
        assert other.shards == ((0, 40), (1, 16), (2, 7), (3, 133), (4, 1))
        assert np.array_equal(left.covariance_se, other.covariance_se)
    assert left.samples == 197


def test_an_ensemble_is_topped_up_and_no_shard_counts_twice():
    first, more = simulate("paired", "float32"), simulate("paired", "float32", shard=1, samples=4000)
    both = first + more
    assert np.median(first.correction_se[1:] / both.correction_se[1:]) > 5
    with pytest.raises(InputError, match=r"shards \[1\]"):
        both + more
    with pytest.raises(InputError, match="different ensembles"):
        both + simulate("paired", "float32", shard=2, width=13)


@pytest.mark.parametrize(("estimator", "dtype", "engine"), ENSEMBLES)
def test_results_do_not_depend_on_threads(estimator, dtype, engine, monkeypatch):
    torch_threads = torch.get_num_threads()
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    many = simulate(estimator, dtype, samples=1000)
    monkeypatch.setattr(threads, "thread_count", lambda: 1)
    try:
        torch.set_num_threads(1)
        one = simulate(estimator, dtype, samples=1000)
    finally:
        torch.set_num_threads(torch_threads)
    assert same(one, many)


def test_results_do_not_depend_on_how_many_bundles_come_at_once(monkeypatch):
    many = simulate("paired", "float32", samples=1000)
    monkeypatch.setattr(cpu_engine, "_CHUNK_UNITS", 2)
    assert same(simulate("paired", "float32", samples=1000), many)


@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_a_smaller_shard_is_the_start_of_a_larger_one(observe, engine):
    spec = eft.EnsembleSpec(model=MODEL, kernel=KERNEL, width=12)
    large = observe(spec, 75, engine)
    assert np.array_equal(observe(spec, 21, engine), large[:21])
    assert np.unique(large[:, -1, 0, 0]).size == 75


def test_seeds_and_shards_give_different_networks(observe):
    spec = eft.EnsembleSpec(model=MODEL, kernel=KERNEL, width=12)
    other = eft.EnsembleSpec(model=MODEL, kernel=KERNEL, width=12, seed=1)
    values = [observe(spec, 64), observe(spec, 64, shard=1), observe(other, 64)]
    assert np.unique([v[:, -1, 0, 0] for v in values]).size == 3 * 64
