"""The page Run without a browser: verdicts, entries, the kernel of one network, diagnostics."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import eftcore as eft
from db.reading import queries
from db.session import Database
from db.writing.repository import record_prediction
from eftcore.words import verdict_text
from tests.ui.pages import OpenPage, keyed, plain, text_of
from ui.data.diagnostics import CHECKS, DIAGNOSTICS

UNFOLDED = dict.fromkeys(("numbers", "network", "diagnostics", "precision", "provenance"), "true")
"""In the address of the page Run: everything that folds is open."""


def test_run_page_shows_the_run_of_the_url(open_page: OpenPage, results: Database) -> None:
    tanh, relu = (
        int(queries.runs(results, kind="simulation", activation=name)["run_id"].iloc[0]) for name in ("tanh", "relu")
    )
    app = open_page(results.url, "run", simulation=str(tanh), **UNFOLDED)
    assert app.selectbox[0].value == tanh
    verdicts, windows, values, quantiles, precision, provenance = (table.value for table in app.table)
    assert list(verdicts) == ["theory", "K0", "V4", "K1"]
    assert "quantity" in values
    assert quantiles["component"].tolist() == ["00"] * 7 + ["11"] * 7
    assert len(windows) == 6
    assert precision["quantity"].tolist() == ["K0", "V4", "K1"]
    assert provenance.iloc[0].tolist()[1] == str(tanh)
    assert "M = 2048 networks of width n = 16" in text_of(app)
    app.selectbox[0].set_value(relu).run()
    assert app.query_params["simulation"] == str(relu)
    assert app.table[5].value.iloc[0].tolist()[1] == str(relu)


def test_run_page_begins_with_verdicts_that_are_those_of_sql(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "run", tolerance="0.1")
    run = int(queries.runs(results, kind="simulation")["run_id"].iloc[0])
    shown = app.table[0].value.set_index("theory")
    stored = queries.windows(results, reference_run_id=run, tolerance=0.1)
    assert stored["quantity"].value_counts().to_dict() == {"K0": 3, "V4": 2, "K1": 1}
    for window in stored.to_dict("records"):
        said = plain(shown.loc[window["closure"].replace("_", "\\_"), window["quantity"]])
        assert said == verdict_text(window)
        if window["status"] == "bounded":
            layer = round(window["refuted_from"] / 0.25**2)
            assert re.search(rf"(not from|not from layer) {layer} on", said)
    assert (shown == "—").sum().sum() == 3, "what a closure does not predict"
    sentences = plain(text_of(app))
    holding = stored[(stored["quantity"] == "K0") & (stored["status"] == "beyond")]["closure"]
    assert len(holding)
    assert "K0: mean is the simplest theory that holds to the end." in sentences
    assert len(app.get("plotly_chart")) == 2, "details fold"


def test_run_page_opens_the_newest_without_a_choice(open_page: OpenPage, results: Database) -> None:
    newest = int(queries.runs(results, kind="simulation")["run_id"].iloc[0])
    assert open_page(results.url, "run").selectbox[0].value == newest


@pytest.mark.parametrize("asked", ["999", "two", "-1", "1"])
def test_unknown_run_is_said_so(open_page: OpenPage, results: Database, asked: str) -> None:
    if asked == "1":
        asked = str(queries.runs(results, kind="prediction")["run_id"].iloc[0])
    assert f"simulation = '{asked}': the database has no finished simulation" in text_of(
        open_page(results.url, "run", simulation=asked)
    )


def test_entries_can_be_chosen_and_left_out(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "run", entries="11", covariances=["01,01"], numbers="true")
    assert set(app.table[2].value["component"]) == {"11", "01,01"}
    app.multiselect[0].set_value([]).run()
    app.multiselect[1].set_value([]).run()
    assert "Choose at least one entry" in text_of(app)


def test_the_kernel_of_one_network_is_shown_beside_the_law_where_there_is_one(
    open_page: OpenPage, fresh: Database, put: Callable[..., int]
) -> None:
    put(fresh, "tanh")
    app = open_page(fresh.url, "run", kernels="11")
    said = text_of(app)
    assert "The law from theory needs the next order in 1/n of this network" in re.sub(r"\\(.)", r"\1", said)
    assert list(app.table[2].value.columns) == ["component", "probability", "simulated", "95 % bounds"]
    assert set(app.table[2].value["component"]) == {"11"}
    charts = len(app.get("plotly_chart"))
    keyed(app.multiselect, "kernels").set_value([]).run()
    assert "Choose at least one entry" in text_of(app)
    assert len(app.get("plotly_chart")) == charts - 1
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    exact = record_prediction(
        fresh, eft.predict(model, kernel, "exact", next_order=True, truncation=0.05), provenance={}
    )
    app = open_page(fresh.url, "run", network="true")
    assert f"exact closure with its next order (run {exact})" in re.sub(r"\\(.)", r"\1", text_of(app))
    assert "within" in set(app.table[2].value["the law lies"].iloc[:7])
    with fresh.session() as session:
        session.connection().exec_driver_sql("DELETE FROM kernel_quantiles")
    assert "No quantiles of these entries are recorded" in text_of(open_page(fresh.url, "run", network="true"))


@pytest.mark.parametrize("chosen", DIAGNOSTICS)
def test_diagnostics_are_computed_when_chosen(open_page: OpenPage, results: Database, chosen: str) -> None:
    app = open_page(results.url, "run", diagnostic=chosen)
    assert not app.exception
    assert len(app.get("plotly_chart")) == (2 if chosen == CHECKS else 3)
    if chosen == CHECKS:
        assert set(app.table[2].value["verdict"]) == {"holds"}
