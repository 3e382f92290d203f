"""The frames behind the windows page, against SQL on the same database."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import eftcore as eft
from db.reading import queries
from db.session import Database
from db.writing.repository import record_comparison, record_prediction
from eftcore.words import window_text
from ui.data.cells import STATES, build_cells, build_intervals, runs_of
from ui.data.naming import name_configurations, name_theories, split_columns
from ui.data.run import build_simulations
from ui.data.windows import (
    SORT,
    WindowFilter,
    WindowsView,
    build_csv,
    build_window_options,
    build_windows,
)
from ui.notation import CONFIGURATION


def _page(db: Database, chosen: WindowFilter, **place: object) -> WindowsView:
    """The windows, with the columns that differ."""
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


ALL = "SELECT count(*) AS n FROM v_windows WHERE reference_kind = 'simulation'"
"""What the page shows without a filter: not what is held against a checked module."""


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
    wanted = queries.select(both, f"{ALL} AND {condition}")["n"].iloc[0]
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
        certified = stored["certified_until"] / stored["total_time"]
        if stored["status"] != "too_noisy":
            certified = np.nan_to_num(certified)
        assert cell["share"] == pytest.approx(certified, nan_ok=True)
        assert cell["layers"] == pytest.approx(certified * stored["depth"], nan_ok=True)
        assert (cell["status"], cell["runs"]) == (stored["status"], (stored["simulation_run_id"],))
        assert cell["text"] == window_text(stored.to_dict())


def test_a_cell_counts_its_windows_and_says_what_sql_says(both: Database) -> None:
    for tolerance in (0.01, 0.05, 0.1):
        cells = build_cells(both, WindowFilter(tolerance=tolerance), "width", "epsilon")
        for cell in cells.to_dict("records"):
            rows = queries.select(
                both,
                "SELECT status, certified_until / total_time AS share, depth, simulation_run_id FROM v_windows"
                " WHERE reference_kind = 'simulation' AND tolerance = :tolerance AND quantity = :quantity",
                {"tolerance": tolerance, "quantity": cell["quantity"]},
            )
            assert cell["windows"] == len(rows) > 1
            assert [cell[status] for status in STATES] == [(rows["status"] == status).sum() for status in STATES]
            shares = rows.loc[rows["status"] != "too_noisy", "share"].astype(float).fillna(0.0)
            assert cell["share"] == pytest.approx(shares.median(), nan_ok=True)
            assert cell["layers"] == pytest.approx((shares * 16).median(), nan_ok=True)
            assert set(cell["runs"]) == set(rows["simulation_run_id"])
        assert runs_of(cells) == sorted(runs_of(cells))


def test_the_csv_file_has_every_window_with_clean_numbers_and_units(results: Database) -> None:
    chosen = WindowFilter(tolerance=0.1)
    table = pd.read_csv(io.BytesIO(build_csv(results, chosen, "certified until", True)))
    stored = queries.windows(results, tolerance=0.1, reference_kind="simulation")
    assert len(table) == len(stored)
    certified, layers = table["certified until (t = ε² ℓ)"], table["certified until (layer ℓ)"]
    known = certified.dropna().tolist()
    assert known == sorted(known, reverse=True)
    assert sum(known) == pytest.approx(stored["certified_until"].sum())
    assert (layers.dropna() == certified.dropna() / 0.25**2).all()
    text = build_csv(results, chosen, "configuration", False).decode()
    assert max(map(len, re.findall(r"\d\.\d+", text))) < 15
    assert "tolerance τ (relative)" in text.splitlines()[0]


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
    assert runs_of(cells) == []
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
