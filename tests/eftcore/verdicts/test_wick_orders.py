"""What each Wick order adds: it adds up, each order's covariance is one, and shares name the orders that matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import eftcore as eft

PAIR = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 1.5]])
QUANTITIES = ("covariance", "correction", "source")


def network(activation: str = "tanh", **fields: Any) -> eft.ResNet:
    defaults = {"weight_variance": 2.0, "bias_variance": 0.1, "epsilon": 0.2, "depth": 20}
    return eft.ResNet(activation=activation, **{**defaults, **fields})


@pytest.mark.parametrize("activation", ["tanh", "cos", "gelu", "relu"])
def test_contributions_add_up_to_the_closure(activation: str) -> None:
    model, depths = network(activation), (0, 7, 20)
    found = eft.wick_contributions(model, PAIR, order=7, depths=depths)
    parity = eft.get_activation(activation).parity
    assert found.orders.tolist() == ([2, 4, 6] if parity else list(range(1, 8)))
    whole = eft.predict(model, PAIR, "wick", order=7, depths=depths)
    for name in QUANTITIES:
        parts, total = getattr(found, name), getattr(whole, name)
        size = np.abs(total).max()
        np.testing.assert_allclose(parts.sum(0), total, atol=1e-9 * size)
        # nothing but the Wishart part is there at l = 0
        assert np.abs(parts[found.orders != 2][:, 0]).max() == 0.0
    assert max(found.numerical_error.values()) <= 1e-9
    assert found.time.tolist() == whole.time.tolist()


@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_every_order_adds_a_covariance(activation: str) -> None:
    """Orders are orthogonal, so what one adds to V4 is itself the covariance of a response: positive semi-definite."""
    found = eft.wick_contributions(network(activation), PAIR, order=8, depths=(5, 20))
    lowest = np.linalg.eigvalsh(found.covariance)[..., 0]
    assert (lowest > -1e-12 * np.abs(found.covariance).max((2, 3))).all()
    assert np.trace(found.covariance, axis1=2, axis2=3).min() > 0


@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
def test_the_second_order_is_g_only_with_a_normal_ordered_source(activation: str) -> None:
    model, depths = network(activation), (0, 10, 20)
    found = eft.wick_contributions(model, PAIR, order=2, depths=depths)
    (second,) = np.flatnonzero(found.orders == 2)
    g_only = eft.predict(model, PAIR, "g_only", step="exact", depths=depths)
    np.testing.assert_allclose(found.covariance[second], g_only.covariance, rtol=1e-8)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.source[second, 0], 0.0)


def test_shares_sum_to_one_and_point_at_the_orders_that_carry_what_is_missing() -> None:
    model, kernel = network("tanh", bias_variance=0.0, depth=50), eft.InputKernel.explicit([[2.0]])
    found = eft.wick_contributions(model, kernel, order=12, depths=(0, 25, 50))
    frame = found.frame()
    assert frame.columns.tolist() == ["quantity", "order", "depth", "time", "size", "share"]
    assert len(frame) == 3 * 6 * 3
    assert frame.loc[(frame["order"] == 2) | (frame["depth"] == 0), "share"].isna().all()
    higher = frame[(frame["order"] > 2) & (frame["depth"] > 0)]
    np.testing.assert_allclose(higher.groupby(["quantity", "depth"])["share"].sum(), 1.0, rtol=1e-12)
    last = frame[(frame["quantity"] == "V4") & (frame["depth"] == 50)].set_index("order")
    assert last["share"][1:].is_monotonic_decreasing
    assert last.loc[4, "share"] > 0.45
    assert last.loc[4, "size"] == np.abs(found.covariance[1, 2, 0, 0])


@pytest.mark.parametrize("activation", ["relu", "gelu", "softplus"])
def test_without_parity_the_mean_over_neurons_carries_most_of_what_is_missing(activation: str) -> None:
    model = network(activation, bias_variance=0.0, depth=25)
    found = eft.wick_contributions(model, eft.InputKernel.explicit([[1.0]]), order=8, depths=(25,))
    frame = found.frame()
    share = frame[frame["quantity"] == "V4"].set_index("order")["share"]
    assert share.sum() == pytest.approx(1.0, rel=1e-12)
    assert share.idxmax() == 1
    assert share[1] > 0.8


def test_an_order_out_of_range_is_refused() -> None:
    with pytest.raises(eft.InputError, match="order = 1"):
        eft.wick_contributions(network(), PAIR, order=1)
