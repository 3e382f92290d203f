"""The source of the mean correction: closures' U1 against the exact one, and their formulas on a reference's state.

Seeds are fixed. Over fresh seeds each statistical comparison would fail with probability ALPHA.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

import eftcore as eft

ALPHA = 1e-3
SINGLE = eft.InputKernel.explicit([[1.3]])
PAIR = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 1.5]])
KEYS = ["depth", "component"]


def network(activation: str = "tanh", **fields: Any) -> eft.ResNet:
    defaults = {"weight_variance": 2.0, "bias_variance": 0.1, "epsilon": 0.2, "depth": 30}
    return eft.ResNet(activation=activation, **{**defaults, **fields})


def closures(model: eft.ResNet, kernel: eft.InputKernel, **options: Any) -> list[eft.Theory]:
    asked = (("mean", {}), ("source_only", {}), ("g_only", {}), ("sigma", {}), ("wick", {"order": 2}))
    return [eft.predict(model, kernel, closure, **more, **options) for closure, more in asked]  # type: ignore[arg-type]


def test_model_source_at_depth_zero_in_closed_form() -> None:
    """(1/2) H : V4 = K^2 E2''(K) with E2 = (2 / pi) arcsin(2 K / (1 + 2 K)) for erf; exactly 0 in truth."""
    model = network("erf")
    exact = eft.predict(model, SINGLE, "wick", order=16, depths=(0, 1))
    found = eft.compare_sources([eft.predict(model, SINGLE, "g_only", depths=(0, 1))], exact)
    k = 1.3
    # E2' = (2 / pi) * 2 / ((1 + 2 K) sqrt(1 + 4 K))
    slope = 4 / math.pi / ((1 + 2 * k) * math.sqrt(1 + 4 * k))
    curvature = -slope * (2 / (1 + 2 * k) + 2 / (1 + 4 * k))
    assert found["model"][0] == pytest.approx(k * k * curvature, rel=1e-10)
    assert found["exact"][0] == 0.0
    assert found["difference"][0] == found["model"][0] < -0.05


@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus(beta=2)", "sin"])
def test_only_the_g_only_source_is_wrong_from_the_start(activation: str) -> None:
    model = network(activation, depth=4)
    exact = eft.predict(model, PAIR, "wick", order=6, depths=(0, 4))
    found = eft.compare_sources(closures(model, PAIR, depths=(0, 4)), exact)
    assert found["closure"].unique().tolist() == ["g_only", "sigma", "wick"]
    start = found[found["depth"] == 0].groupby("closure")["difference"].agg(lambda x: x.abs().max())
    assert start["g_only"] > 0.01
    assert start["sigma"] == start["wick"] == 0.0


def test_sources_over_depth() -> None:
    """G-only's source is wrong by as much as the source itself; the sigma-kernel restores most of it."""
    model, kernel = network(bias_variance=0.0, depth=50), eft.InputKernel.explicit([[2.0]])
    exact = eft.predict(model, kernel, "wick", order=24, depths=range(51))
    theories = closures(model, kernel, depths=range(51))
    found = eft.compare_sources(theories, exact)
    error = found.groupby("closure")["difference"].agg(lambda x: float(np.linalg.norm(x)))
    size = float(np.linalg.norm(exact.source))  # type: ignore[arg-type]
    assert error["g_only"] > size
    assert 4 * error["sigma"] < error["wick"] < 0.6 * error["g_only"]
    # K1' = C_W U1: the columns sum up to K1
    rows = found[found["closure"] == "g_only"]
    for column, theory in (("model", theories[2]), ("exact", exact)):
        assert theory.correction is not None
        total = model.weight_variance * model.epsilon**2 * rows[column][:-1].sum()
        assert total == pytest.approx(theory.correction[-1, 0, 0], rel=1e-9)


def test_a_sample_as_reference_brings_its_errors() -> None:
    model = network(bias_variance=0.0)
    sample = eft.simulate(model, PAIR, width=256, samples=6000, depths=(0, 10, 20, 30), device="cpu")
    exact = eft.predict(model, PAIR, "wick", depths=(0, 10, 20, 30))
    g_only = eft.predict(model, PAIR, "g_only", depths=(0, 20, 30))
    found = eft.compare_sources([exact, g_only], sample)
    rows = found[found["closure"] == "wick"].set_index(KEYS)
    assert rows["order"].tolist() == [24] * 12
    moving = rows[rows["exact_se"] > 0]
    assert len(moving) == 9
    z = moving["difference"] / moving["exact_se"]
    assert 2 * stats.norm.sf(z.abs().max()) * len(z) > ALPHA
    assert (rows.loc[0, ["model", "exact"]] == 0).all(axis=None)
    wrong = found[(found["closure"] == "g_only") & (found["component"] == "00")]
    assert wrong["depth"].tolist() == [0, 20, 30]
    assert wrong["exact"].tolist() == sample.source[[0, 2, 3], 0, 0].tolist()
    assert wrong["exact_se"].tolist() == sample.source_se[[0, 2, 3], 0, 0].tolist()
    moving = wrong[wrong["exact_se"] > 0]
    assert (moving["difference"].abs() / moving["exact_se"]).min() > 5


@pytest.mark.parametrize("activation", ["tanh", "sin", "erf"])
def test_formulas_on_their_own_state_give_their_own_source(activation: str) -> None:
    """For an odd sigma the second Wick order is the G-only theory with a normal-ordered source."""
    model = network(activation)
    for closure, options, column in (("g_only", {}, "g_only"), ("wick", {"order": 2}, "normal_ordered")):
        found = eft.sources_on(eft.predict(model, PAIR, closure, depths=(0, 10, 30), **options))  # type: ignore[arg-type]
        np.testing.assert_allclose(found[column], found["exact"], atol=1e-9 * found["exact"].abs().max())
        assert (found["exact_se"] == 0).all()


def test_normal_ordering_mends_the_formula_and_higher_orders_carry_the_rest() -> None:
    model = network()
    exact = eft.predict(model, PAIR, "wick", order=16, depths=(0, 15, 30))
    found = eft.sources_on(exact)
    wrong, mended = (float(np.linalg.norm(found[name] - found["exact"])) for name in ("g_only", "normal_ordered"))
    assert mended < 0.5 * wrong
    start = found[found["depth"] == 0]
    np.testing.assert_allclose(start["normal_ordered"], 0.0, atol=1e-12)
    assert start["g_only"].abs().max() > 0.1


def test_what_has_no_source_is_refused() -> None:
    model = network(depth=4)
    mean, g_only = eft.predict(model, SINGLE, "mean"), eft.predict(model, SINGLE, "g_only", depths=(0, 2))
    with pytest.raises(eft.InputError, match=r"^reference: has no source"):
        eft.compare_sources([g_only], mean)
    with pytest.raises(eft.InputError, match=r"^theories: none of them has a source"):
        eft.compare_sources([mean], g_only)
    with pytest.raises(eft.InputError, match=r"^theories\[0\]: has no recorded layer in common"):
        eft.compare_sources([eft.predict(model, SINGLE, "g_only", depths=(1, 3))], g_only)
    with pytest.raises(eft.InputError, match="another network"):
        eft.compare_sources([eft.predict(network(depth=5), SINGLE, "g_only")], g_only)
    with pytest.raises(eft.InputError, match="lacks"):
        eft.sources_on(eft.predict(model, SINGLE, "source_only"))
