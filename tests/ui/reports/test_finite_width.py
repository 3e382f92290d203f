"""Whether an excess is of order 1/n alone: a test of known size that refuses numbers that are not."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ui.reports.atlas.finite_width import LEVEL, finite_width, width_fit

WIDTHS = np.array([32, 128, 512])
NOISE = np.array([0.2, 0.3, 0.5])


def table(limit: float, slope: float, *, seed: int = 0, noise: np.ndarray = NOISE) -> pd.DataFrame:
    """Rows as the query gives them: 24 groups with n (X_n - X) / X = limit + slope / n and Gaussian noise."""
    rng = np.random.default_rng(seed)
    rows = [
        {"quantity": quantity, "activation": activation, "c_w": c_w, "width": width, "simulations": 6}
        | {"n_excess": limit + slope / width + se * rng.standard_normal(), "n_excess_variance": se**2}
        for quantity in ("K0", "V4")
        for activation in ("erf", "gelu", "relu", "silu", "sin", "tanh")
        for c_w in (1.0, 2.0)
        for width, se in zip(WIDTHS, noise, strict=True)
    ]
    return pd.DataFrame(rows)


def verdicts(rows: pd.DataFrame) -> list[str]:
    return [sentence.partition("refute that in ")[2] for sentence in finite_width(rows) if "refute" in sentence]


def test_an_excess_of_order_1_over_n_is_not_refuted() -> None:
    assert verdicts(table(8.0, 0.0)) == ["0 of 24 rows.", "0 of 24 rows."]


def test_one_altered_number_is_refuted() -> None:
    rows = table(8.0, 0.0)
    altered = (rows["quantity"] == "V4") & (rows["activation"] == "relu") & (rows["c_w"] == 2) & (rows["width"] == 32)
    rows.loc[altered, "n_excess"] *= 1.3
    constant, sloped = verdicts(rows)
    assert constant.startswith("1 of 24 rows, V4 of relu at C_W = 2 (p = ")
    assert sloped == "0 of 24 rows."
    between = altered.shift(1, fill_value=False)
    rows.loc[between, "n_excess"] *= 0.6
    assert verdicts(rows)[1].startswith("1 of 24 rows, V4 of relu at C_W = 2 (p = ")


def test_a_term_of_the_next_order_is_told_apart() -> None:
    """As V4 of ReLU at C_W = 2, T = 2 has: 16.5 at n = 32 and 13.7 for wide networks."""
    constant, sloped = verdicts(table(13.7, 90.0, noise=np.full(3, 0.2)))
    assert int(constant.split()[0]) >= 20
    assert sloped == "0 of 24 rows."


def test_the_excess_is_relative_to_the_leading_order() -> None:
    said = next(iter(finite_width(table(16.5, 0.0, noise=np.full(3, 1e-3)))))
    assert "relative to the leading order, at n = 512" in said
    (found,) = re.findall(r"relu, C_W = 2: (\S+) ± 0\.0010;", said)
    assert float(found) == pytest.approx(16.5, abs=0.005)


@pytest.mark.parametrize("with_slope", [False, True])
def test_p_values_are_uniform_where_the_model_holds(with_slope: bool) -> None:
    rng = np.random.default_rng(1)
    slope = 40.0 if with_slope else 0.0
    p_values = [
        width_fit(WIDTHS, 8 + slope / WIDTHS + NOISE * rng.standard_normal(3), NOISE, with_slope=with_slope).p_value
        for _ in range(2000)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_the_fit_is_weighted_least_squares() -> None:
    values = np.array([21.4, 16.5, 13.8])
    errors = np.array([0.5, 0.4, 0.9])
    fit = width_fit(WIDTHS, values, errors, with_slope=True)
    coefficients, covariance = np.polyfit(1 / WIDTHS, values, 1, w=1 / errors, cov="unscaled")
    assert (fit.slope, fit.limit) == pytest.approx(tuple(coefficients))
    assert fit.limit_se == pytest.approx(np.sqrt(covariance[1, 1]))
    constant = width_fit(WIDTHS, values, errors, with_slope=False)
    assert constant.limit == pytest.approx(np.average(values, weights=errors**-2))
    assert (constant.degrees_of_freedom, fit.degrees_of_freedom) == (2, 1)


@pytest.mark.parametrize("seeds", [60, pytest.param(200, marks=pytest.mark.campaign)])
def test_all_tests_together_rarely_refuse_what_holds(seeds: int) -> None:
    refused = sum(not verdicts(table(8.0, 0.0, seed=seed))[0].startswith("0 of") for seed in range(seeds))
    assert refused <= stats.binom.ppf(1 - 1e-3, seeds, LEVEL)
