"""Target precision: what it bounds, how many networks it takes, and that stopping leaves the errors calibrated."""

from __future__ import annotations

import warnings
from functools import reduce

import numba
import numpy as np
import pytest
from scipy import stats

import eftcore as eft
from eftcore.ensemble import attained, reached, shards
from eftcore.ensemble.leading_order import leading_order
from eftcore.errors import InputError, NumericsWarning
from eftcore.pairs import to_pairs

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, bias_variance=0.1, epsilon=0.3, depth=6)
KERNEL = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 2.0]])
SPEC = eft.EnsembleSpec(model=MODEL, kernel=KERNEL, width=12)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """64 networks each."""
    monkeypatch.setattr(shards, "SHARD_WORK", 1)
    monkeypatch.setattr(shards, "FIRST_NETWORKS", 128)


def simulate(**options):
    return eft.simulate(MODEL, KERNEL, width=12, device="cpu", **options)


def test_what_is_bounded():
    sample = simulate(samples=4000)
    for quantity, name in (("K0", "mean"), ("V4", "covariance"), ("K1", "correction"), ("U1", "source")):
        value, error = getattr(sample, name), getattr(sample, name + "_se")
        if quantity != "V4":
            value, error = to_pairs(value), to_pairs(error)
        absolute = [float(np.sqrt((at_depth**2).sum())) for at_depth in error]
        size = [float(np.sqrt((at_depth**2).sum())) for at_depth in value]
        if quantity in ("K1", "U1"):
            size = [max(size)] * len(size)
        relative = max(a / b for a, b in zip(absolute, size, strict=True))
        assert reached(sample)[quantity] == pytest.approx({"absolute": max(absolute), "relative": relative})
        for bound, error_now in (("absolute", max(absolute)), ("relative", relative)):
            if bound == "relative" and 1.1 * error_now >= 1:
                continue  # nobody may ask for that little
            for factor, met in ((0.9, False), (1.1, True)):
                now = attained(sample, eft.Precision(quantity=quantity, **{bound: factor * error_now}))
                assert (now.met, now.error) == (met, pytest.approx(error_now))


def test_an_error_that_cannot_be_trusted_meets_no_target():
    """64 networks of width 12 do not know the variance of their variance."""
    sample = simulate(samples=64)
    assert not sample.reliable("V4").all()
    assert np.isfinite(sample.covariance_se).all()
    assert reached(sample)["V4"] == {"absolute": None, "relative": None}
    assert not attained(sample, eft.Precision(quantity="V4", absolute=1e9)).met


def test_one_network_tells_nothing():
    sample = simulate(samples=1)
    assert reached(sample)["V4"] == {"absolute": None, "relative": None}
    assert not attained(sample, eft.Precision(quantity="V4", absolute=1e9)).met


@pytest.mark.parametrize(
    ("quantity", "bound"),
    [("V4", {"relative": 0.01}), ("K1", {"absolute": 0.05}), ("U1", {"absolute": 0.01}), ("K0", {"relative": 0.004})],
)
def test_enough_networks_are_simulated_and_not_far_more(quantity, bound):
    """A third of them would not do, for any seed tried. K1 has an absolute bound: its own size is as uncertain."""
    target = eft.Precision(quantity=quantity, **bound)
    sample = simulate(precision=target)
    assert attained(sample, target).met
    assert attained(sample, target).stopped == "target met"
    assert sample.samples > 128
    fewer = simulate(samples=sample.samples // 3)
    assert not attained(fewer, target).met


def test_the_sample_is_the_sum_of_its_shards_whatever_the_threads():
    target = eft.Precision(quantity="K1", absolute=0.1)
    many = simulate(precision=target)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = simulate(precision=target)
    finally:
        numba.set_num_threads(threads)
    parts = reduce(lambda a, b: a + b, (simulate(samples=count, shard=k) for k, count in reversed(many.shards)))
    assert many.shards == tuple((k, 64) for k in range(len(many.shards)))
    for other in (one, parts):
        assert other.digest == many.digest
        assert all(np.array_equal(other.sums[name], many.sums[name]) for name in many.sums)
        assert np.array_equal(other.covariance, many.covariance)


def test_rounds_extend_each_other_and_stop_at_the_cap():
    target = eft.Precision(quantity="V4", relative=1e-4, max_samples=1000)
    rounds = [shards.first_round(SPEC, target)]
    assert rounds[0] == ((0, 64), (1, 64))
    while True:
        sample = simulate(samples=sum(count for _, count in rounds[-1]))
        more = shards.next_round(sample, target)
        if not more:
            break
        assert more[: len(rounds[-1])] == rounds[-1]
        assert len(more) <= shards.GROWTH * len(rounds[-1])
        rounds.append(more)
    assert rounds[-1] == (*((k, 64) for k in range(15)), (15, 40))
    assert attained(sample, target).stopped == "cap reached"
    with pytest.warns(NumericsWarning, match=r"precision: V4 to .* % \(asked 0.01 %\) after max_samples = 1000"):
        assert simulate(precision=target).samples == 1000


def test_a_cap_below_the_first_round_is_kept():
    target = eft.Precision(quantity="K0", relative=0.5, max_samples=100)
    assert simulate(precision=target).shards == ((0, 64), (1, 36))


def test_progress_counts_up_to_what_is_known_to_be_needed():
    told: list[tuple[int, int]] = []
    sample = simulate(precision=eft.Precision(quantity="U1", absolute=0.01), progress=lambda *now: told.append(now))
    assert told[0] == (64, 128)
    assert told[-1] == (sample.samples, sample.samples)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("ensembles", [80, pytest.param(400, marks=pytest.mark.campaign)])
def test_errors_stay_calibrated_where_they_decide_when_to_stop(ensembles):
    """They stop by themselves; a Kolmogorov-Smirnov test fails for fresh seeds with probability 1e-3.

    For a linear network K1 = 0, and the plain estimator's error is the hardest to tell from few networks.
    """
    model = eft.ResNet(activation="linear", weight_variance=1.0, epsilon=0.4, depth=2)
    target = eft.Precision(quantity="K1", absolute=0.5)
    scores, sizes = [], set()
    for seed in range(ensembles):
        sample = eft.simulate(
            model,
            eft.InputKernel.explicit([[1.0]]),
            width=24,
            precision=target,
            estimator="plain",
            seed=seed,
            depths=(2,),
            device="cpu",
        )
        assert attained(sample, target).met
        sizes.add(sample.samples)
        scores.append(sample.correction[0, 0, 0] / sample.correction_se[0, 0, 0])
    assert len(sizes) > 3
    assert stats.kstest(scores, "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"quantity": "V4"}, ["either relative (such as 0.01) or absolute"]),
        ({"quantity": "V4", "relative": 0.1, "absolute": 0.1}, ["not both"]),
        ({"quantity": "G", "relative": 0.1}, ["quantity", "'G'", "'K0', 'V4', 'K1' or 'U1'"]),
        ({"quantity": "V4", "relative": 1.5}, ["relative", "1.5", "less than 1"]),
        ({"quantity": "V4", "absolute": 0.0}, ["absolute", "0.0", "greater than 0"]),
        ({"quantity": "V4", "relative": 0.1, "max_samples": 1}, ["max_samples", "1", "greater than or equal to 2"]),
        ({"quantity": "V4", "relative": 0.1, "samples": 10}, ["samples", "unknown field"]),
    ],
)
def test_wrong_targets_are_refused(fields, parts):
    with pytest.raises(InputError) as caught:
        eft.Precision(**fields)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize("other", [{"samples": 100}, {"shard": 1}])
def test_precision_goes_with_neither_samples_nor_shard(other):
    with pytest.raises(InputError, match="does not go with precision"):
        simulate(precision=eft.Precision(quantity="V4", relative=0.1), **other)
    with pytest.raises(InputError, match="samples = None"):
        simulate()


def test_the_leading_order_comes_with_its_error():
    exact = eft.predict(MODEL, KERNEL, "wick", order=80).covariance
    coarse, fine = (leading_order(SPEC, rtol) for rtol in (1e-2, 1e-5))
    for found, rtol in ((coarse, 1e-2), (fine, 1e-5)):
        assert found.relative_error <= rtol
        assert (np.abs(found.covariance - exact) <= found.error + 1e-12).all()
    assert leading_order(SPEC, 1e-2) is coarse


def test_the_leading_order_is_summed_up_as_far_as_a_sample_needs(monkeypatch):
    asked: list[float] = []

    def noting(spec, rtol):
        asked.append(rtol)
        return leading_order(spec, rtol)

    monkeypatch.setattr("eftcore.ensemble.sample.leading_order", noting)
    for samples in (500, 200_000):
        sample = simulate(samples=samples)
        error = [
            np.linalg.norm(array[-1]) for array in (sample.with_leading_order().leading.error, sample.covariance_se)
        ]
        assert error[0] < 0.25 * error[1]
    assert asked[0] / asked[-1] == pytest.approx(20, rel=0.2)


def test_without_a_leading_order_v4_is_the_plain_estimate(monkeypatch):
    monkeypatch.setattr("eftcore.theory.waves.MOST_ENTRIES", 0)
    monkeypatch.setattr("eftcore.ensemble.leading_order.MOST_ENTRIES", 0)
    depths = (0, 5)  # of no other test: series are kept
    sample = simulate(samples=2000, depths=depths)
    plain = simulate(samples=2000, depths=depths, estimator="plain")
    assert sample.with_leading_order().leading is None
    said = "V4: the exact leading order .* the plain estimate is used"
    with pytest.warns(eft.NumericsWarning, match=said):
        ratio = sample.covariance_se[1:] / plain.covariance_se[1:]
    assert 0.5 < ratio.min() <= ratio.max() < 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=said)
        assert simulate(depths=depths, precision=eft.Precision(quantity="V4", relative=0.08)).samples > 128


def test_random_streams_are_told_and_survive_merging():
    fused, torch = simulate(samples=64), simulate(samples=64, sampler="weights")
    assert fused.streams[0].startswith("xoshiro128++")
    assert torch.streams[0].startswith("torch mt19937")
    assert (fused + simulate(samples=64, shard=1)).streams == fused.streams
