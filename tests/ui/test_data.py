"""The frames behind the windows page, against SQL on the same database."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable

import pandas as pd
import pytest

import ui.data
from db import queries
from db.session import Database
from ui.data import (
    WindowFilter,
    build_window_options,
    build_windows,
    name_configurations,
    name_theories,
    split_columns,
)
from ui.notation import CONFIGURATION


@pytest.mark.parametrize("name", ["data", "launch", "notation", "run_data"])
def test_examples_in_docstrings(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"ui.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_options_are_the_values_stored(results: Database) -> None:
    options = build_window_options(results)
    assert options.activations == ["relu", "tanh"]
    assert options.closures == ["mean", "source_only", "g_only"]
    assert options.quantities == ["K0", "V4", "K1"]
    assert options.tolerances == [0.01, 0.05, 0.10]
    assert options.default_tolerance == 0.05


@pytest.mark.parametrize(
    ("chosen", "condition"),
    [
        (WindowFilter(tolerance=0.05), "tolerance = 0.05"),
        (WindowFilter(tolerance=0.01, activation=("relu",)), "tolerance = 0.01 AND activation = 'relu'"),
        (
            WindowFilter(tolerance=0.1, closure=("mean", "g_only"), quantity=("V4", "K1")),
            "tolerance = 0.1 AND closure IN ('mean', 'g_only') AND quantity IN ('V4', 'K1')",
        ),
        (WindowFilter(tolerance=0.1, closure=("mean",), quantity=("K1",)), "false"),
    ],
)
def test_filters_select_what_sql_selects(results: Database, chosen: WindowFilter, condition: str) -> None:
    wanted = queries.select(results, f"SELECT count(*) AS n FROM v_windows WHERE {condition}")["n"].iloc[0]
    assert build_window_options(results).total(chosen) == wanted
    if wanted:
        assert len(build_windows(results, chosen).windows) == wanted


def test_table_holds_the_stored_intervals(results: Database) -> None:
    table = build_windows(results, WindowFilter(tolerance=0.05, closure=("g_only",), quantity=("V4",))).table
    for row in table.to_dict("records"):
        stored = queries.select(
            results,
            "SELECT certified_until, refuted_from, status, samples FROM v_windows WHERE tolerance = 0.05"
            " AND closure = 'g_only' AND quantity = 'V4' AND activation = :activation",
            {"activation": row["σ"]},
        ).iloc[0]
        shown = pd.Series([row["certified until"], row["refuted from"]], dtype=float)
        assert shown.equals(pd.Series([stored["certified_until"], stored["refuted_from"]], dtype=float))
        assert (row["status"], row["M"]) == (stored["status"], stored["samples"])


def test_table_shows_only_columns_that_differ(results: Database) -> None:
    view = build_windows(results, WindowFilter(tolerance=0.05))
    assert "σ" in view.table
    assert "ε" not in view.table
    assert "ε = 0.25" in view.common
    assert "n = 16" in view.common
    alone = build_windows(results, WindowFilter(tolerance=0.05, activation=("tanh",)))
    assert set(alone.table).isdisjoint(set(CONFIGURATION.values()) - {"M"})
    assert alone.common.startswith("tanh, C_W = 2")


def test_pages_cover_every_window_once(results: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = WindowFilter(tolerance=0.05)
    total = build_window_options(results).total(chosen)
    monkeypatch.setattr(ui.data, "PAGE_ROWS", 5)
    pages = [build_windows(results, chosen, page).windows for page in range(1, -(-total // 5) + 1)]
    assert [len(page) for page in pages[:-1]] == [5] * (len(pages) - 1)
    key = ["prediction_run_id", "simulation_run_id", "quantity"]
    assert len(pd.concat(pages).drop_duplicates(key)) == total


def test_statements_of_the_windows_page(results: Database, statements: list[str]) -> None:
    build_window_options(results)
    assert len(statements) == 1
    build_windows(results, WindowFilter(tolerance=0.05))
    assert len(statements) == 2


def test_simulations_that_differ_in_nothing_shown_carry_their_number(fresh: Database, put: Callable[..., int]) -> None:
    first, second = put(fresh, "tanh", seed=1), put(fresh, "tanh", seed=2)
    windows = name_configurations(name_theories(queries.windows(fresh, tolerance=0.05)))
    assert set(windows["configuration"]) == {f"run {first}", f"run {second}"}


def test_theories_of_one_closure_are_told_apart() -> None:
    rows = pd.DataFrame(
        {
            "closure": ["wick", "wick", "g_only", "g_only"],
            "closure_order": [8, 24, None, None],
            "nodes": [None] * 4,
            "prediction_run_id": [2, 3, 4, 5],
            "simulation_run_id": [1] * 4,
        }
    )
    assert name_theories(rows)["theory"].tolist() == ["wick m=8", "wick m=24", "g_only · run 4", "g_only · run 5"]


def test_split_columns_of_one_row_leaves_nothing_to_tell(results: Database) -> None:
    rows = queries.runs(results, kind="simulation").head(1)
    same, differing = split_columns(rows)
    assert differing == []
    assert "M = 2048" in same
