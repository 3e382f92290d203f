"""The residual of the G-only covariance equation: zero on itself, exact cases, simulation against theory.

Seeds are fixed. Over fresh seeds each statistical comparison would fail with probability ALPHA.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import eftcore as eft
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.verdicts.residuals import PARTS

ALPHA = 1e-3
PAIR = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 1.5]])
SINGLE = eft.InputKernel.explicit([[1.3]])


def network(activation: str = "tanh", **fields: Any) -> eft.ResNet:
    defaults = {"weight_variance": 1.5, "bias_variance": 0.1, "epsilon": 0.2, "depth": 20}
    return eft.ResNet(activation=activation, **{**defaults, **fields})


def shards(model: eft.ResNet, kernel: eft.InputKernel, count: int, **options: Any) -> list[eft.Sample]:
    return [eft.simulate(model, kernel, shard=shard, device="cpu", **options) for shard in range(count)]


def assert_zero(difference: np.ndarray, error: np.ndarray, freedom: int) -> None:
    """Student t, Bonferroni over entries."""
    t = np.abs(difference / error)
    assert t.max() < stats.t.isf(ALPHA / (2 * t.size), freedom)


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus(beta=2)"])
@pytest.mark.parametrize("step", ["euler", "exact"])
def test_g_only_solves_its_own_equation(activation: str, step: Any) -> None:
    theory = eft.predict(network(activation), PAIR, "g_only", step=step, depths=range(21))
    found = eft.equation_residual(theory)
    size = np.abs(found.change).max()
    np.testing.assert_allclose(found.transport, 0.0, atol=1e-9 * size)
    np.testing.assert_array_equal(found.source, 0.0)
    np.testing.assert_array_equal(found.interpolation, 0.0)
    # what the paper's step leaves out is the whole residual of a theory with every power of epsilon
    assert (np.abs(found.residual).max() > 1e-3 * size) == (step == "exact")
    np.testing.assert_allclose(found.residual, found.step, atol=1e-9 * size)
    assert found.standard_error == {}


@pytest.mark.parametrize("options", [{"depths": range(0, 201, 10)}, {"depths": range(0, 201, 10), "continuous": True}])
def test_gaps_between_recorded_layers_are_bridged_within_the_estimate(options: dict[str, Any]) -> None:
    model = network(epsilon=0.1, depth=200)
    found = eft.equation_residual(eft.predict(model, PAIR, "g_only", **options))
    norms = found.norms()
    assert (norms["residual"] < 2 * norms["interpolation"]).all()
    assert norms["interpolation"].max() < 1e-2 * norms["change"].min()
    finer = eft.equation_residual(eft.predict(model, PAIR, "g_only", **{**options, "depths": range(0, 201, 5)}))
    slope = np.log2(norms["residual"].max() / finer.norms()["residual"].max())
    assert slope == pytest.approx(2.0, abs=0.25)


def test_longer_intervals_hold_the_mean_of_the_recorded_ones() -> None:
    model = network(epsilon=0.1, depth=40)
    sample = eft.simulate(model, PAIR, width=16, samples=64, depths=range(0, 41, 4), device="cpu")
    fine, coarse = (eft.equation_residual(sample, between=between) for between in (None, (4, 12, 40)))
    np.testing.assert_array_equal(coarse.depth, [4, 12])
    np.testing.assert_array_equal(coarse.layers, [8, 28])
    for name in ("change", *PARTS, "interpolation"):
        values = getattr(fine, name)
        expected = np.stack([values[1:3].mean(axis=0), values[3:10].mean(axis=0)])
        np.testing.assert_allclose(getattr(coarse, name), expected, rtol=1e-12)
    for bound in ("residual", "transport"):
        mean = fine.standard_error[bound][3:10].mean(axis=0)
        assert (coarse.standard_error[bound][1] < 0.5 * mean).all()
    with pytest.raises(eft.InputError, match="recorded layers"):
        eft.equation_residual(sample, between=(0, 6))


def test_the_equation_is_the_papers_for_one_input() -> None:
    """By hand: dV4/dt = 2 chi V4 + 4 K Q, and epsilon^2 (chi^2 V4 + 2 Q^2) for the step."""
    model = network()
    theory = eft.predict(model, SINGLE, "wick", order=12, depths=range(21))
    path = eft.mean_field(model, SINGLE)
    assert theory.covariance is not None
    v4, chi = theory.covariance[:, 0, 0], path.susceptibility[:, 0, 0]
    k, q, h = path.kernel[:, 0, 0], path.increment[:, 0, 0], model.epsilon**2
    found = eft.equation_residual(theory)
    change = np.diff(v4) / h
    np.testing.assert_allclose(found.change[:, 0, 0], change, rtol=1e-12)
    np.testing.assert_allclose(found.residual[:, 0, 0], change - (2 * chi * v4 + 4 * k * q)[:-1], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.step[:, 0, 0], h * (chi**2 * v4 + 2 * q**2)[:-1], rtol=1e-8)
    np.testing.assert_allclose(found.residual, found.step + found.source + found.transport, rtol=1e-12)
    np.testing.assert_allclose(found.time, theory.time[:-1], rtol=1e-12)


def test_transport_at_the_first_layer_is_what_the_sigma_kernel_fluctuates_on_its_own() -> None:
    """At l = 0 E[S | G] is E2(G) but S still fluctuates: epsilon^2 C_W^2 (<s^4> - <s^2>^2 - 2 (K E2')^2)."""
    model = network("gelu")
    theory = eft.predict(model, SINGLE, "wick", order=60, depths=range(3))
    found = eft.equation_residual(theory)
    rule = MehlerExpectations(eft.get_activation("gelu"), level=4).rule
    sigma = eft.get_activation("gelu").function(1.3**0.5 * rule.nodes)
    spread = rule.mean(sigma**4) - rule.mean(sigma**2) ** 2
    chi = eft.mean_field(model, SINGLE).susceptibility[0, 0, 0]
    expected = model.epsilon**2 * (model.weight_variance**2 * spread - 2 * (chi * 1.3) ** 2)
    assert found.transport[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_residual_of_a_paired_sample_agrees_with_the_exact_leading_order() -> None:
    model = network(bias_variance=0.0, weight_variance=2.0)
    depths = range(0, 21, 4)
    many = shards(model, PAIR, 16, width=512, samples=500, depths=depths)
    found = eft.equation_residual(many)
    theory = eft.equation_residual(eft.predict(model, PAIR, "wick", depths=depths))
    upper = np.triu_indices(3)
    for name in ("residual", "transport"):
        difference = (getattr(found, name) - getattr(theory, name))[:, upper[0], upper[1]]
        assert_zero(difference, found.standard_error[name][:, upper[0], upper[1]], 15)
    np.testing.assert_allclose(found.step, theory.step, rtol=0.1)
    np.testing.assert_array_equal(theory.source, 0.0)


def test_a_linear_network_has_source_error_alone() -> None:
    """S = G: all that G-only misses is n-dependent, source 4 C_W V4 / n and a second power of epsilon, exactly."""
    width, c_w = 8, 1.5
    model = network("linear", bias_variance=0.0, depth=10)
    many = shards(model, SINGLE, 24, width=width, samples=4000, depths=range(11))
    found = eft.equation_residual(many)
    # E[G^2] = K^2 + V4 / n follows its own closed recursion
    h = c_w * model.epsilon**2
    missing = np.empty((10, 1, 1))
    square, mean = 1.3**2 * (1 + 2 / width), 1.3
    for layer in range(10):
        missing[layer] = square - mean**2
        square *= (1 + h) ** 2 + (4 * h + 2 * h**2) / width
        mean *= 1 + h
    assert_zero(found.source - 4 * c_w * missing, found.standard_error["source"], 23)
    assert_zero(found.transport - 2 * h * c_w * missing, found.standard_error["transport"], 23)
    assert (found.source > 10 * found.standard_error["source"]).all()


def test_transport_carries_the_error_at_large_width_and_grows_with_depth() -> None:
    theory = eft.predict(network(weight_variance=2.0, depth=40), PAIR, "wick", depths=range(0, 41, 2))
    norms = eft.equation_residual(theory).norms()
    assert (norms["source"] == 0).all()
    assert norms["transport"].iloc[-1] > 5 * norms["transport"].iloc[0]
    assert (norms["residual"] <= norms["step"] + norms["transport"] + 1e-12).all()


def test_the_published_rule_is_judged_by_converged_integrals_unless_asked_for() -> None:
    published = eft.Numerics(quadrature="gauss_hermite", nodes=32)
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=200)
    kernel = eft.InputKernel.explicit([[2.0]])
    theory = eft.predict(model, kernel, "g_only", numerics=published, depths=range(201))
    own = eft.equation_residual(theory, numerics=published)
    np.testing.assert_allclose(own.residual, 0.0, atol=1e-9)
    assert eft.equation_residual(theory).norms()["relative"].iloc[-1] > 0.05


def test_standard_errors_from_shards_and_the_bound_from_one_sample() -> None:
    model = network(depth=6)
    many = shards(model, PAIR, 12, width=16, samples=300, depths=range(7))
    apart = [eft.equation_residual(shard) for shard in many]
    together = eft.equation_residual(many)
    merged = many[0]
    for shard in many[1:]:
        merged = merged + shard
    bound = eft.equation_residual(merged).standard_error
    for name in ("residual", "source", "transport"):
        values = np.stack([getattr(one, name) for one in apart])
        np.testing.assert_allclose(getattr(together, name), values.mean(0), rtol=1e-10, atol=1e-12)
        expected = values.std(0, ddof=1) / 12**0.5
        np.testing.assert_allclose(together.standard_error[name], expected, rtol=1e-10)
        # twelve shards know their error to 21 %
        assert (bound[name] > 0.5 * together.standard_error[name]).all()
    # one layer apart, the bound ignores that neighbouring layers fluctuate together; from the second interval on, since
    # the paired V4 has no error at layer 0
    assert (bound["residual"][1:] > 2 * together.standard_error["residual"][1:]).all()


def test_frames_hold_every_component_once() -> None:
    found = eft.equation_residual(eft.predict(network(), PAIR, "wick", order=4, depths=(0, 1, 2, 20)))
    frame = found.frame()
    assert len(frame) == 3 * 6
    assert frame["component"][:6].tolist() == ["00,00", "00,01", "00,11", "01,01", "01,11", "11,11"]
    assert frame["layers"].tolist() == [1] * 12 + [18] * 6
    np.testing.assert_allclose(frame["residual"], frame[list(PARTS[1:])].sum(axis=1), atol=1e-12)
    assert frame.loc[13, "change"] == found.change[2, 0, 1]
    assert not frame.isna().any().any()


def test_what_has_no_residual_is_refused() -> None:
    model = network()
    with pytest.raises(eft.InputError, match=r"^reference: has no covariance"):
        eft.equation_residual(eft.predict(model, PAIR, "mean"))
    for depths in ((5,), (0, 8)):
        with pytest.raises(eft.InputError, match="record at least"):
            eft.equation_residual(eft.predict(model, PAIR, "g_only", depths=depths))
    one, other = (eft.simulate(model, PAIR, width=8, samples=16, seed=seed, depths=(0, 1)) for seed in (0, 1))
    with pytest.raises(eft.InputError, match=r"^reference: its shards belong to different ensembles"):
        eft.equation_residual([one, other])
