"""The frames behind the windows page, against SQL on the same database."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import eftcore as eft
import ui.data.windows
from db.reading import queries
from db.session import Database
from db.writing.repository import record_comparison, record_prediction
from ui.data.naming import name_configurations, name_theories, split_columns
from ui.data.run import build_simulations
from ui.data.windows import (
    SORT,
    WindowFilter,
    WindowsView,
    build_cells,
    build_intervals,
    build_window_options,
    build_windows,
)
from ui.notation import CONFIGURATION


def _page(db: Database, chosen: WindowFilter, **place: object) -> WindowsView:
    """One page, with the columns that differ."""
    _, differing = split_columns(build_window_options(db, chosen.reference_kind).matching(chosen))
    return build_windows(db, chosen, differing, **place)


def test_options_are_the_values_stored(both: Database) -> None:
    options = build_window_options(both)
    assert options.values("activation") == ["relu", "tanh"]
    assert options.closures == ["mean", "source_only", "g_only"]
    assert options.quantities == ["K0", "V4", "K1"]
    assert options.tolerances == [0.01, 0.05, 0.10]
    assert options.default_tolerance == 0.05
    assert options.differing == ["closure", "activation"]


@pytest.mark.parametrize(
    ("allowed", "condition"),
    [
        ({}, "tolerance = 0.05"),
        ({"activation": ["relu"], "width": []}, "tolerance = 0.05 AND activation = 'relu'"),
        (
            {"closure": ["mean", "g_only"], "quantity": ["V4", "K1"], "epsilon": [0.25]},
            "tolerance = 0.05 AND closure IN ('mean', 'g_only') AND quantity IN ('V4', 'K1')",
        ),
        ({"closure": ["mean"], "quantity": ["K1"]}, "1 = 0"),
    ],
)
def test_filters_select_what_sql_selects(both: Database, allowed: dict[str, list[object]], condition: str) -> None:
    chosen = WindowFilter(tolerance=0.05, allowed=allowed)
    wanted = queries.select(both, f"SELECT count(*) AS n FROM v_windows WHERE {condition}")["n"].iloc[0]
    assert build_window_options(both).matching(chosen)["windows"].sum() == wanted
    if wanted:
        assert len(_page(both, chosen).windows) == wanted
        assert build_cells(both, chosen, "closure", "activation")["windows"].sum() == wanted
        assert len(build_intervals(both, chosen, "closure", "activation")) == wanted


def test_table_holds_the_stored_intervals(results: Database) -> None:
    table = _page(results, WindowFilter(tolerance=0.05, allowed={"closure": ["g_only"], "quantity": ["V4"]})).table
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
    view = _page(results, WindowFilter(tolerance=0.05))
    assert "σ" in view.table
    assert "ε" not in view.table
    alone = _page(results, WindowFilter(tolerance=0.05, allowed={"activation": ["tanh"]}))
    assert set(alone.table).isdisjoint(set(CONFIGURATION.values()) - {"M"})


def test_pages_cover_every_window_once(results: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = WindowFilter(tolerance=0.05)
    total = int(build_window_options(results).matching(chosen)["windows"].sum())
    monkeypatch.setattr(ui.data.windows, "PAGE_ROWS", 5)
    pages = [_page(results, chosen, page=page).windows for page in range(1, -(-total // 5) + 1)]
    assert [len(page) for page in pages[:-1]] == [5] * (len(pages) - 1)
    key = ["prediction_run_id", "simulation_run_id", "quantity"]
    assert len(pd.concat(pages).drop_duplicates(key)) == total


@pytest.mark.parametrize("sort", [name for name, column in SORT.items() if column is not None])
@pytest.mark.parametrize("descending", [False, True])
def test_the_whole_selection_is_sorted_with_absent_values_last(both: Database, sort: str, descending: bool) -> None:
    column = SORT[sort]
    assert column is not None
    found = _page(both, WindowFilter(tolerance=0.05), sort=sort, descending=descending).windows[column]
    present = found.dropna().tolist()
    assert present == sorted(present, reverse=descending)
    assert found.iloc[: len(present)].notna().all()


def test_a_cell_of_one_window_is_that_window(results: Database) -> None:
    cells = build_cells(results, WindowFilter(tolerance=0.05), "closure", "activation")
    assert (cells["windows"] == 1).all()
    for cell in cells.to_dict("records"):
        stored = queries.windows(
            results, tolerance=0.05, closure=cell["across"], activation=cell["by"], quantity=cell["quantity"]
        ).iloc[0]
        for name in ("certified_until", "refuted_from", "total_time"):
            assert cell[name] == stored[name] or (np.isnan(cell[name]) and np.isnan(stored[name]))
        assert (cell["status"], cell["link"]) == (stored["status"], f"run?simulation={stored['simulation_run_id']}")


def test_a_cell_of_several_windows_says_the_least(both: Database) -> None:
    for tolerance in (0.01, 0.05, 0.1):
        cells = build_cells(both, WindowFilter(tolerance=tolerance), "width", "epsilon")
        for cell in cells.to_dict("records"):
            windows = queries.windows(both, tolerance=tolerance, quantity=cell["quantity"])
            assert cell["windows"] == len(windows)
            assert cell["unresolved"] == (windows["status"] == "too_noisy").sum()
            least, most = windows["certified_until"].min(), windows["certified_until"].max()
            assert [cell["certified_until"], cell["certified_most"]] == pytest.approx([least, most], nan_ok=True)


def test_axes_come_in_order(results: Database) -> None:
    windows = build_intervals(results, WindowFilter(tolerance=0.05), "activation", "closure")
    assert list(dict.fromkeys(windows["across"])) == ["relu", "tanh"]
    ranked = windows.sort_values("by_rank")["by"]
    assert list(dict.fromkeys(ranked)) == ["mean", "source_only", "g_only"]


def test_statements_of_the_windows_page(results: Database, statements: list[str]) -> None:
    spent = []
    for build in (
        lambda: build_window_options(results),
        lambda: build_windows(results, WindowFilter(tolerance=0.05), []),
        lambda: build_cells(results, WindowFilter(tolerance=0.05), "closure", "activation"),
        lambda: build_intervals(results, WindowFilter(tolerance=0.05), "closure", "activation"),
    ):
        before = len(statements)
        build()
        spent.append(len(statements) - before)
    assert spent == [1, 1, 1, 1]


def test_simulations_that_differ_in_their_seed_alone_say_it(fresh: Database, put: Callable[..., int]) -> None:
    put(fresh, "tanh", seed=1), put(fresh, "tanh", seed=2)
    windows = name_configurations(name_theories(queries.windows(fresh, tolerance=0.05)))
    assert set(windows["configuration"]) == {"seed = 1", "seed = 2"}
    chosen = WindowFilter(tolerance=0.05, allowed={"seed": [2], "closure": ["g_only"], "quantity": ["V4"]})
    assert _page(fresh, WindowFilter(tolerance=0.05)).table["seed"].nunique() == 2
    assert len(_page(fresh, chosen).windows) == 1
    assert [label.split(", ")[-1] for label in build_simulations(fresh)["label"]] == ["seed = 2", "seed = 1"]


def test_theories_of_one_closure_are_told_apart() -> None:
    rows = pd.DataFrame(
        {
            "closure": ["wick", "wick", "g_only", "g_only"],
            "closure_order": [8, 24, None, None],
            "nodes": [None] * 4,
            "converged": [True, False, True, True],
            "step": ["exact", "exact", "euler", "euler"],
            "continuous": [False] * 4,
            "rtol": [1e-9] * 4,
            "next_order": [False] * 4,
            "prediction_run_id": [2, 3, 4, 5],
            "simulation_run_id": [1] * 4,
        }
    )
    names = ["wick 8", "wick 24 (not converged)", "g_only · run 4", "g_only · run 5"]
    assert name_theories(rows)["theory"].tolist() == names
    rows.loc[3, "step"] = "exact"
    names[2:] = ["g_only", "g_only, exact step"]
    assert name_theories(rows)["theory"].tolist() == names


def test_split_columns_of_one_row_leaves_nothing_to_tell(results: Database) -> None:
    rows = queries.runs(results, kind="simulation").head(1)
    same, differing = split_columns(rows)
    assert differing == []
    assert "M = 2048" in same


@pytest.fixture
def referred(fresh: Database, put: Callable[..., int]) -> Database:
    """Two closures against the exact leading order, and the same against a simulation."""
    put(fresh, "tanh")
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    exact = eft.predict(model, kernel, "wick", order=8)
    reference = record_prediction(fresh, exact, provenance={})
    for closure in ("source_only", "g_only"):
        theory = eft.predict(model, kernel, closure)
        record_comparison(
            fresh,
            prediction_run_id=record_prediction(fresh, theory, provenance={}),
            reference_run_id=reference,
            comparison=eft.compare(theory, exact),
        )
    return fresh


def test_a_better_theory_as_reference(referred: Database) -> None:
    options = build_window_options(referred, "theory")
    assert options.closures == ["source_only", "g_only"]
    assert not {"width", "samples", "seed"} & set(options.parameters)
    chosen = WindowFilter(tolerance=0.05, reference_kind="theory")
    stored = queries.windows(referred, tolerance=0.05, reference_kind="theory")
    shown = _page(referred, chosen).windows
    assert len(shown) == len(stored) == 5
    pairs = {(row["closure"], row["quantity"]): row for row in stored.to_dict("records")}
    for row in shown.to_dict("records"):
        wanted = pairs[row["closure"], row["quantity"]]
        ends = [[one[name] for name in ("resolved_from", "certified_until")] for one in (row, wanted)]
        assert row["status"] == wanted["status"]
        assert ends[0] == pytest.approx(ends[1], nan_ok=True)
        assert row["link"].startswith("predict?sigma=tanh&C_W=2.0&")
    cells = build_cells(referred, chosen, "closure", "epsilon")
    assert cells["windows"].tolist() == [1] * 5
    assert set(cells["link"]) == {""}
    assert len(build_intervals(referred, chosen, "closure", "epsilon")) == 5


@pytest.mark.parametrize("view", ["map", "intervals", "bars"])
def test_page_against_a_better_theory(open_page: Callable[..., AppTest], referred: Database, view: str) -> None:
    app = open_page(referred.url, reference="exact leading order", view=view, tolerance="0.05")
    assert not app.exception
    table = app.dataframe[0].value
    assert table["theory"].unique().tolist() == ["source_only", "g_only"]
    assert set(table["reference"]) == {"wick 8"}
    assert "M" not in table
    assert len(app.get("plotly_chart")) == 1
    assert not [text.value for text in app.text if "n = " in text.value or "M = " in text.value]
    assert len(open_page(referred.url).dataframe[0].value) == 6


def test_page_against_a_better_theory_by_what_it_has_not(open_page: Callable[..., AppTest], referred: Database) -> None:
    """An address in which only the reference was changed still sorts by the width."""
    app = open_page(referred.url, reference="exact leading order", tolerance="0.05", sort="n", across="width")
    assert not app.exception
    assert len(app.dataframe[0].value) == 5


def test_page_without_a_better_theory_says_how_to_get_one(open_page: Callable[..., AppTest], results: Database) -> None:
    app = open_page(results.url, reference="exact leading order")
    assert not app.exception
    assert "reference" in app.code[0].value
