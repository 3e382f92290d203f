"""The page of windows without a browser: filters, links, views, and what is chosen in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import eftcore as eft
from db.reading import queries
from db.session import Database
from db.writing.repository import record_prediction, record_widths
from eftcore.verdicts.widths import widths_of
from eftcore.words import width_text
from tests.ui.pages import OpenPage, keyed, plain, text_of


def test_windows_table_and_filters(open_page: OpenPage, both: Database) -> None:
    app = open_page(both.url)
    assert "Validity windows" in text_of(app)
    everything = app.dataframe[0].value
    sql = "SELECT count(*) AS n FROM v_windows WHERE tolerance = 0.05 AND reference_kind = 'simulation'"
    wanted = queries.select(both, sql)["n"].iloc[0]
    assert len(everything) == wanted
    keyed(app.multiselect, "activation").set_value(["tanh"]).run()
    keyed(app.button_group, "quantity").set_value(["V4"]).run()
    shown = app.dataframe[0].value
    assert shown["theory"].tolist() == ["source_only", "g_only"]
    assert "tanh" in app.text[0].value


def test_a_link_restores_the_filters_and_the_view(open_page: OpenPage, results: Database) -> None:
    query = {"activation": "relu", "closure": ["g_only", "mean"], "tolerance": "0.1"}
    app = open_page(results.url, **query, view="intervals", across="activation", by="closure", sort="theory")
    shown = app.dataframe[0].value
    assert shown["theory"].tolist() == ["g_only"] * 3 + ["mean"]
    assert "τ = 0.1 " in app.text[0].value
    assert "relu" in app.text[0].value
    assert keyed(app.button_group, "view").value == "intervals"
    assert keyed(app.selectbox, "across").value == "activation"


@pytest.mark.parametrize("view", ["map", "intervals", "bars"])
def test_every_view_of_the_windows_draws(open_page: OpenPage, results: Database, view: str) -> None:
    app = open_page(results.url, view=view)
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1


def test_the_view_of_parameters_says_which_one_matters(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, view="parameters", tolerance="0.1", of_quantity="V4", of_theory="source_only")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 3
    row = app.table[0].value.iloc[0]
    assert (row["parameter"], row["levels"]) == ("σ", "2")
    assert plain(str(row.iloc[2])).startswith("100 ± ")
    assert "2 windows; of 0 only" in text_of(app)
    alone = open_page(results.url, view="parameters", activation="tanh")
    assert not alone.exception
    assert "No parameter differs" in text_of(alone)


def test_columns_that_are_left_out_are_named_by_the_address(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, without=["status", "T"])
    every = list(app.dataframe[0].value.columns)
    assert list(app.dataframe[0].proto.column_order) == [name for name in every if name not in ("status", "T")]


def test_filters_that_match_nothing_say_so(open_page: OpenPage, results: Database) -> None:
    said = text_of(open_page(results.url, closure="mean", quantity="K1"))
    assert "No window matches these filters" in said


def test_the_table_holds_every_window_and_bars_come_in_pages(
    open_page: OpenPage, results: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.data.windows.BARS", 4)
    app = open_page(results.url, view="bars")
    assert "12 windows." in text_of(app)
    assert len(app.dataframe[0].value) == 12
    assert _drawn(app) == ["mean", "source_only", "g_only", "mean"]
    app.number_input[0].set_value(2).run()
    assert _drawn(app) == ["source_only", "g_only"]
    # fewer pages after a filter: the page number follows
    keyed(app.multiselect, "activation").set_value(["tanh"]).run()
    assert not app.exception
    assert len(app.dataframe[0].value) == 6
    assert _drawn(app) == ["mean", "source_only", "g_only"]
    assert _drawn(open_page(results.url, view="bars", page="2")) == ["source_only", "g_only"]


def _drawn(app: AppTest) -> list[str]:
    """The labels of the bars on the page."""
    return json.loads(app.get("plotly_chart")[0].proto.spec)["layout"]["yaxis"]["ticktext"]


def test_bars_come_first_where_they_fit_and_a_choice_stays(
    open_page: OpenPage, results: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page(results.url)
    assert keyed(app.button_group, "view").value == "bars"
    monkeypatch.setattr("ui.views.windows.BARS", 4, raising=False)
    monkeypatch.setattr("ui.data.windows.BARS", 4)
    app = open_page(results.url)
    assert keyed(app.button_group, "view").value == "map"
    keyed(app.multiselect, "activation").set_value(["tanh"]).run()
    assert keyed(app.button_group, "view").value == "bars", "the rows fit now"
    keyed(app.button_group, "view").set_value("map").run()
    keyed(app.multiselect, "activation").set_value([]).run()
    keyed(app.multiselect, "activation").set_value(["relu"]).run()
    assert keyed(app.button_group, "view").value == "map", "it was chosen"
    assert keyed(open_page(results.url, view="map").button_group, "view").value == "map"


def _key(element: Any) -> str:
    """The key of a table or figure: its identity is "$$ID", a hash and the key."""
    return str(element.proto.id).split("-", 2)[2]


def _ticked(app: AppTest, rows: list[int]) -> AppTest:
    """The page after these rows of the table of windows were ticked."""
    app.session_state[_key(app.dataframe[0])] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    return app.run()


def test_ticked_rows_are_opened_or_compared(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url)
    runs = app.dataframe[0].value["run"].str.extract(r"=(\d+)")[0].tolist()
    assert not app.get("page_link")
    _ticked(app, [0])
    links = {link.proto.label: link.proto.query_string for link in app.get("page_link")}
    assert links == {f"Open run {runs[0]}": f"simulation={runs[0]}", "Compare simulation": f"run={runs[0]}"}
    _ticked(app, [0, 1, 11])
    links = {link.proto.label: link.proto.query_string for link in app.get("page_link")}
    assert links == {"Compare 2 simulations": f"run={runs[0]}&run={runs[11]}"}
    assert "3 rows ticked" in text_of(app)


def test_a_chosen_cell_of_the_map_is_opened_compared_or_looked_into(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, view="map", across="width", by="activation", quantity="V4")
    app.session_state[_key(app.get("plotly_chart")[0])] = {
        "selection": {"points": [{"customdata": [0]}], "point_indices": [0], "box": []}
    }
    app.run()
    relu = int(queries.runs(results, kind="simulation", activation="relu")["run_id"].iloc[0])
    assert "2 windows chosen:" in text_of(app)
    assert [link.proto.label for link in app.get("page_link")] == [f"Open run {relu}", "Compare simulation"]
    (only,) = [button for button in app.button if button.label == "Only these"]
    only.click().run()
    assert not app.exception
    assert keyed(app.multiselect, "activation").value == ["relu"]
    assert set(app.dataframe[0].value["quantity"]) == {"V4"}


def test_rows_link_to_their_run(open_page: OpenPage, results: Database) -> None:
    links = set(open_page(results.url).dataframe[0].value["run"])
    runs = queries.runs(results, kind="simulation")["run_id"]
    assert links == {f"run?simulation={number}" for number in runs}


def test_windows_in_width_are_shown_where_they_are_asked_for(
    open_page: OpenPage, fresh: Database, put: Callable[..., int], statements: list[str]
) -> None:
    put(fresh, "tanh")
    before = len(statements)
    closed = open_page(fresh.url)
    spent = len(statements) - before
    assert len(closed.dataframe) == 1
    st.cache_data.clear()
    app = open_page(fresh.url, in_width="true")
    assert "One asks for it" not in text_of(closed)
    assert "next_order = true" in text_of(app)
    assert app.dataframe[1].value["n*"].tolist() != []
    assert len(statements) - before - spent == spent + 1
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    exact = eft.predict(model, kernel, "exact", next_order=True, truncation=0.05)
    run_id = record_prediction(fresh, exact, provenance={})
    record_widths(fresh, prediction_run_id=run_id, reference_run_id=run_id, widths=widths_of(exact, exact))
    app = open_page(fresh.url, in_width="true", quantity="V4")
    assert "next_order = true" not in text_of(app)
    table = app.dataframe[1].value
    row = widths_of(exact, exact, [0.05]).query("quantity == 'V4' and depth == 16").iloc[0]
    assert table.set_index(["theory", "from"]).loc[("exact", "next order in 1/n"), "n*"] == width_text(row.to_dict())
