"""From which width on a theory holds: the definition, what must agree, and simulated networks."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import eftcore as eft
from eftcore.errors import InputError
from eftcore.results import Theory
from eftcore.verdicts.widths import smallest_width, widths_of

KERNEL = eft.InputKernel.explicit([[1.0]])


def network(activation: str, **other) -> eft.ResNet:
    return eft.ResNet(**{"activation": activation, "weight_variance": 2.0, "epsilon": 0.2, "depth": 25} | other)


def exact(model: eft.ResNet, kernel: eft.InputKernel = KERNEL, **options) -> Theory:
    options = {"next_order": True, "truncation": 1e-3, "depths": [0, 10, 25]} | options
    return eft.predict(model, kernel, "exact", **options)


@pytest.fixture(scope="module")
def relu() -> Theory:
    return exact(network("relu"))


@pytest.mark.parametrize(
    ("theory", "x0", "x1", "tolerance"),
    [
        ([1.0, 2.0], [1.0, 2.0], [3.0, -1.0], 0.05),
        ([1.02, 2.0], [1.0, 2.0], [3.0, -1.0], 0.05),
        ([0.98, 2.0], [1.0, 2.0], [3.0, 4.0], 0.02),
        ([1.0], [1.0], [-0.5], 0.1),
    ],
)
def test_the_width_is_where_the_error_becomes_the_tolerance(
    theory: list[float], x0: list[float], x1: list[float], tolerance: float
) -> None:
    mine, leading, following = (np.array(values) for values in (theory, x0, x1))
    found = smallest_width(mine, leading, following, tolerance)

    def error(n: np.ndarray) -> np.ndarray:
        true = leading + following / n[:, None]
        return np.linalg.norm(mine - true, axis=1) / np.linalg.norm(true, axis=1)

    assert (error(np.geomspace(found * 1.0001, 1e9, 2000)) <= tolerance).all()
    assert found == 1.0 or error(np.array([found * 0.999]))[0] > tolerance


def test_widths_of_special_cases() -> None:
    one, none = np.array([1.0]), np.array([0.0])
    assert smallest_width(one, one, none, 0.05) == 1.0
    assert smallest_width(1.06 * one, one, one, 0.05) == math.inf
    # error and correction have opposite signs: from some width on the closure is wrong by itself, and never right after
    assert smallest_width(1.2 * one, one, 10 * one, 0.05) == math.inf
    # K1 of the first layers is exactly 0, and its K2 is rounding
    assert smallest_width(none, none, 1e-7 * one, 0.05) == 1.0
    assert smallest_width(one, none, none, 0.05) == math.inf


def test_widths_of_many_layers_are_those_of_each() -> None:
    values = np.random.default_rng(3).normal(size=(3, 40, 2))
    theory, x0, x1 = values[0] * 0.03 + values[1], values[1], values[2]
    together = smallest_width(theory, x0, x1, 0.05)
    alone = [float(smallest_width(*each, 0.05)) for each in zip(theory, x0, x1, strict=True)]
    assert together.tolist() == alone
    assert 0 < np.isinf(together).sum() < 40


def test_a_row_for_every_theory_quantity_tolerance_and_layer(relu: Theory) -> None:
    sigma = eft.predict(relu.spec.model, KERNEL, "sigma", depths=[0, 10, 25])
    mean = eft.predict(relu.spec.model, KERNEL, "mean", depths=[0, 10, 25])
    found = eft.width_windows(relu, [sigma, mean], [0.05, 0.1])
    assert len(found) == (3 + 3 + 1) * 2 * 3
    assert found["theory"].unique().tolist() == ["exact", "sigma", "mean"]
    assert (found["width"] >= 1).sum() + found["width"].isna().sum() == len(found)
    v4 = found.query("quantity == 'V4' and theory == 'exact' and tolerance == 0.05").set_index("depth")
    assert v4.loc[0, "width"] == 1.0
    assert v4.loc[25, "width_low"] < v4.loc[25, "width"] < v4.loc[25, "width_high"]
    ratio = relu.covariance_next[-1, 0, 0] / relu.covariance[-1, 0, 0]
    assert math.isclose(v4.loc[25, "width"], ratio * 0.95 / 0.05, rel_tol=1e-6)
    wider = found.query("quantity == 'V4' and theory == 'exact' and tolerance == 0.1 and depth == 25")
    assert wider["width"].item() < v4.loc[25, "width"]
    alone = widths_of(sigma, relu, [0.05, 0.1])
    pd.testing.assert_frame_equal(
        alone, found[found["theory"] == "sigma"].drop(columns="theory").reset_index(drop=True)
    )


def test_a_closure_that_is_wrong_by_itself_holds_from_no_width_on(relu: Theory) -> None:
    paper = eft.predict(relu.spec.model, KERNEL, "g_only", depths=[0, 10, 25])
    rows = eft.width_windows(relu, [paper], [0.05]).query("theory == 'g_only' and quantity == 'V4' and depth == 25")
    assert rows["status"].tolist() == ["never"]
    assert math.isinf(rows["width"].item())


def test_a_correction_that_is_not_known_gives_no_width() -> None:
    """The Wick powers of GELU, a divergent series, do not give its K2."""
    coarse = exact(network("gelu"))
    assert coarse.relative_error("K2") is None
    rows = eft.width_windows(coarse, tolerances=[0.05]).query("quantity == 'K1' and depth == 25")
    assert rows["status"].tolist() == ["unknown"]
    assert rows[["width", "width_low", "width_high"]].isna().all(axis=None)


@pytest.mark.parametrize(("activation", "samples"), [("relu", 60_000), ("tanh", 60_000)])
def test_the_width_agrees_with_simulated_networks(activation: str, samples: int) -> None:
    """Where theory says that V4 is wrong by the tolerance, simulated networks are, within 20 % of the width."""
    model = network(activation)
    found = exact(model)
    ratio = float(found.covariance_next[-1, 0, 0] / found.covariance[-1, 0, 0])
    tolerance = 0.15 if activation == "relu" else 0.02
    predicted = smallest_width(
        found.covariance[-1].ravel(), found.covariance[-1].ravel(), found.covariance_next[-1].ravel(), tolerance
    )
    width = round(float(predicted))
    sample = eft.simulate(model, KERNEL, width=width, samples=samples, seed=7, depths=[0, 25])
    true, noise = sample.covariance[-1, 0, 0], sample.covariance_se[-1, 0, 0]
    leading = found.covariance[-1, 0, 0]
    measured, spread = abs(true - leading) / true, noise * leading / true**2
    assert ratio > 0
    assert spread < 0.1 * tolerance
    # the error is nearly proportional to 1 / width
    assert abs(measured / tolerance - 1) < 0.2 + 3 * spread / tolerance


def test_bad_arguments(relu: Theory) -> None:
    with pytest.raises(InputError, match="widths need the next order"):
        eft.width_windows(exact(network("relu"), next_order=False))
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        eft.width_windows(relu, tolerances=[-0.05])
    with pytest.raises(InputError, match="another network"):
        eft.width_windows(relu, [eft.predict(network("tanh"), KERNEL, depths=[0, 10, 25])])
    with pytest.raises(InputError, match="other layers"):
        eft.width_windows(relu, [eft.predict(network("relu"), KERNEL, depths=[0, 25])])
