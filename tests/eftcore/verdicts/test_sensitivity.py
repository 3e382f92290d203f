"""Shares of variance: functions whose Sobol indices are known, incomplete designs, and depths that are bounded only."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from eftcore.verdicts.sensitivity import restricted_depths, variance_shares


def _grid(*sizes: int) -> np.ndarray:
    return np.array(list(itertools.product(*map(range, sizes))))


def _named(grid: np.ndarray) -> dict[str, np.ndarray]:
    return {f"x{place}": grid[:, place] for place in range(grid.shape[1])}


def test_indices_of_a_function_of_two_levels() -> None:
    grid = _grid(2, 2, 2)
    a, b = 2 * grid[:, 0] - 1, 2 * grid[:, 1] - 1
    depth = 3.0 * a + 2.0 * b + 1.0 * a * b  # variances 9, 4 and 1, of the first, the second and both together
    shares = variance_shares(_named(grid), depth, depth).set_index("parameter")
    assert shares.loc[["x0", "x1", "x2"], "first_order"].tolist() == pytest.approx([9 / 14, 4 / 14, 0], abs=1e-12)
    assert shares.loc[["x0", "x1", "x2"], "total"].tolist() == pytest.approx([10 / 14, 5 / 14, 0], abs=1e-12)
    assert (shares["compared"] == 1).all()


def test_indices_of_ishigami_are_those_in_closed_form() -> None:
    """sin x0 + 7 sin^2 x1 + 0.1 x2^4 sin x0 with x uniform in (-pi, pi) (Ishigami & Homma 1990)."""
    size = 24
    grid = _grid(size, size, size)
    x = -np.pi + 2 * np.pi * (grid + 0.5) / size
    depth = np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    shares = variance_shares(_named(grid), depth, depth, bins=size, draws=1).set_index("parameter")
    assert shares.loc[["x0", "x1", "x2"], "first_order"].tolist() == pytest.approx([0.3139, 0.4424, 0.0], abs=0.005)
    assert shares.loc[["x0", "x1", "x2"], "total"].tolist() == pytest.approx([0.5576, 0.4424, 0.2437], abs=0.005)


def test_the_standard_error_covers_what_random_configurations_miss() -> None:
    """Of 60 random samples of an additive function, where an index is 0.8, at least 50 have it within two errors."""
    generator = np.random.default_rng(7)
    within = 0
    for _ in range(60):
        x = generator.integers(0, 2, (80, 2))
        depth = 2.0 * x[:, 0] + x[:, 1] + 0.0
        row = variance_shares({"a": x[:, 0], "b": x[:, 1]}, depth, depth, draws=2).set_index("parameter").loc["a"]
        within += abs(row["first_order"] - 0.8) <= 2 * row["first_order_se"]
    assert within >= 50  # binomial with 0.95: fewer in less than one of 500 cases


def test_a_wide_interval_widens_the_error_and_not_the_share() -> None:
    grid = _grid(2, 3)
    depth = 1.0 + grid[:, 0] + 0.2 * grid[:, 1]
    sharp = variance_shares(_named(grid), depth, depth).set_index("parameter").loc["x0"]
    wide = variance_shares(_named(grid), depth - 0.5, depth + 0.5).set_index("parameter").loc["x0"]
    assert wide["first_order"] == pytest.approx(sharp["first_order"])
    assert wide["first_order_se"] > 1.3 * sharp["first_order_se"]


def test_what_an_incomplete_design_cannot_tell_is_not_told() -> None:
    # a and b change together: no two configurations differ in one of them alone
    together = variance_shares({"a": [0, 1, 0, 1], "b": [0, 1, 0, 1]}, *2 * [np.array([1.0, 2.0, 1.0, 2.0])])
    assert (together["first_order"] == 1).all()
    assert together["total"].isna().all()
    assert (together["compared"] == 0).all()
    half = variance_shares({"a": [0, 1, 0], "b": [0, 0, 1]}, *2 * [np.array([1.0, 3.0, 1.0])]).set_index("parameter")
    assert half.loc["a", "compared"] == pytest.approx(2 / 3)
    assert variance_shares({"a": [0, 1]}, np.ones(2), np.ones(2))["first_order"].isna().all()
    assert variance_shares({"a": [1, 1]}, np.ones(2), np.ones(2)).empty
    assert variance_shares({"a": []}, np.ones(0), np.ones(0)).empty


def test_a_depth_beyond_the_horizon_is_the_horizon() -> None:
    rows = pd.DataFrame(
        {
            "status": ["beyond", "bounded", "bounded", "undecided"],
            "certified_until": [2.0, np.nan, 1.2, np.nan],
            "refuted_from": [np.nan, 0.1, 1.4, np.nan],
        }
    )
    low, high = restricted_depths(rows, 1.0)
    assert low.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert high.tolist() == [1.0, 0.1, 1.0, 1.0]
