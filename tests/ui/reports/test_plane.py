"""The next order's border in the plane of depth and width, from simulations whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ui.reports.atlas.plane import TOLERANCE, next_order_widths

WIDTHS = np.array([4.0, 8.0, 16.0, 32.0, 64.0])


def rows(following: float, beyond: float, se: float = 1e-6, time: float = 1.0) -> pd.DataFrame:
    """Simulations of V4 = 10 + following / n + beyond / n^2, without noise but with this standard error."""
    value = 10 + following / WIDTHS + beyond / WIDTHS**2
    columns = {"width": WIDTHS, "simulated": value, "simulated_se": se, "predicted": 10.0, "next_order": following}
    return pd.DataFrame(columns).assign(time=time)


@pytest.mark.parametrize(("beyond", "low", "high"), [(20.0, 4.0, 8.0), (300.0, 16.0, 32.0)])
def test_the_border_lies_between_the_last_failure_and_the_first_success(beyond: float, low: float, high: float) -> None:
    found = next_order_widths(rows(7.0, beyond)).iloc[0]
    exact = (beyond / TOLERANCE / 10) ** 0.5
    assert low < exact < high * 1.1
    assert (found["time"], found["width_low"], found["width_high"]) == (1.0, low, high)


def test_noise_decides_nothing() -> None:
    found = next_order_widths(rows(7.0, 300.0, se=1.0)).iloc[0]
    assert np.isnan(found["width_high"])
    assert np.isnan(found["width_low"]) or found["width_low"] < 16
    certain = next_order_widths(rows(7.0, 300.0, se=0.01)).iloc[0]
    assert (certain["width_low"], certain["width_high"]) == (16.0, 32.0)


def test_each_depth_by_itself() -> None:
    both = pd.concat([rows(7.0, 20.0, time=1.0), rows(7.0, 300.0, time=2.0)])
    assert next_order_widths(both)["width_high"].tolist() == [8.0, 32.0]
