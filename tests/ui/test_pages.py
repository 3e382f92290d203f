"""Pages without a browser: what they say about every state of the database, and how state, links and filters work."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

import eftcore as eft
from db.reading import queries
from db.schema.rows import study_claim
from db.schema.views import VIEWS, by_study
from db.session import Database
from db.writing import claims
from db.writing.repository import record_comparison, record_measurement, record_prediction, record_study, record_widths
from eftcore.errors import InputError
from eftcore.verdicts.widths import widths_of
from eftcore.words import verdict_text, width_text, window_text
from tests.checked import record_checked
from tests.ui.conftest import ONE_RUN
from ui.data.diagnostics import CHECKS, DIAGNOSTICS
from ui.data.predict import MOST_LAYERS
from ui.data.sql import EXAMPLES, MEANING

OpenPage = Callable[..., AppTest]


def _said(app: AppTest) -> str:
    """All the text of a page, where nothing went wrong."""
    assert not app.exception
    kinds = ("title", "text", "caption", "markdown", "info", "warning", "code")
    texts = [element.value for kind in kinds for element in app.get(kind)]
    return "\n".join([*map(str, texts), *_told(app)])


def _told(app: AppTest) -> list[str]:
    """What the page says is wrong, as it is seen: without the escapes of Markdown."""
    return [re.sub(r"\\(.)", r"\1", str(element.value)) for element in app.error]


READING = ["windows", "compare", "run", "paper", "sql", "studies"]
"""Pages that need a database; predict does without."""


@pytest.mark.parametrize("page", READING)
def test_missing_database_names_the_command_and_creates_nothing(open_page: OpenPage, page: str, tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    said = _said(open_page(f"sqlite:///{path}", page))
    assert "There is no results database yet" in said
    assert f"eft db upgrade --db sqlite:///{path}\neft run quick --db sqlite:///{path}" in said
    assert not path.exists()


def test_missing_database_offers_predictions_which_need_none(open_page: OpenPage, tmp_path: Path) -> None:
    links = open_page(f"sqlite:///{tmp_path / 'not there.db'}", "windows").get("page_link")
    assert [link.proto.page for link in links] == ["", "predict"]


def test_the_command_for_a_database_at_an_odd_place_can_be_pasted(open_page: OpenPage, tmp_path: Path) -> None:
    (code,) = open_page(f"sqlite:///{tmp_path / 'not there.db'}", "windows").code
    assert shlex.split(code.value.splitlines()[0])[-1] == f"sqlite:///{tmp_path / 'not there.db'}"


@pytest.mark.parametrize("page", READING)
@pytest.mark.parametrize("revision", [None, "0000_before_the_first"])
def test_old_schema_names_the_remedy_and_stays_as_it_is(
    open_page: OpenPage, page: str, revision: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE eft_schema_version (version_num VARCHAR(32) NOT NULL)")
    if revision is not None:
        connection.execute("INSERT INTO eft_schema_version VALUES (?)", [revision])
    connection.commit()
    connection.close()
    before = path.read_bytes()
    said = _said(open_page(f"sqlite:///{path}", page))
    assert "The database belongs to another version" in said
    assert ("eft db upgrade" if revision is None else "update the program") in said
    assert (f"eft db upgrade --db sqlite:///{path}" in said) == (revision is None)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("page", "what"), [("windows", "comparison"), ("compare", "simulation"), ("run", "simulation")]
)
def test_empty_database_says_how_to_fill_it(open_page: OpenPage, empty_file: Path, page: str, what: str) -> None:
    said = _said(open_page(f"sqlite:///{empty_file}", page))
    assert f"No {what}" in said
    assert "eft run quick" in said


@pytest.mark.parametrize(
    ("url", "words"),
    [("sqlite:///{folder}/text.db", "cannot be used"), ("mysql://host/name", "use sqlite or postgresql")],
)
def test_what_is_no_results_database_is_said_so(open_page: OpenPage, tmp_path: Path, url: str, words: str) -> None:
    (tmp_path / "text.db").write_text("not a database, but longer than the header of one would be\n" * 20)
    assert words in _said(open_page(url.format(folder=tmp_path)))


def test_windows_table_and_filters(open_page: OpenPage, both: Database) -> None:
    app = open_page(both.url)
    assert "Validity windows" in _said(app)
    everything = app.dataframe[0].value
    sql = "SELECT count(*) AS n FROM v_windows WHERE tolerance = 0.05 AND reference_kind = 'simulation'"
    wanted = queries.select(both, sql)["n"].iloc[0]
    assert len(everything) == wanted
    _keyed(app.multiselect, "activation").set_value(["tanh"]).run()
    _keyed(app.button_group, "quantity").set_value(["V4"]).run()
    shown = app.dataframe[0].value
    assert shown["theory"].tolist() == ["source_only", "g_only"]
    assert "tanh" in app.text[0].value


def _keyed(elements: Any, key: str) -> Any:
    (found,) = [element for element in elements if element.key == key]
    return found


def test_a_link_restores_the_filters_and_the_view(open_page: OpenPage, results: Database) -> None:
    query = {"activation": "relu", "closure": ["g_only", "mean"], "tolerance": "0.1"}
    app = open_page(results.url, **query, view="intervals", across="activation", by="closure", sort="theory")
    shown = app.dataframe[0].value
    assert shown["theory"].tolist() == ["g_only"] * 3 + ["mean"]
    assert "τ = 0.1 " in app.text[0].value
    assert "relu" in app.text[0].value
    assert _keyed(app.button_group, "view").value == "intervals"
    assert _keyed(app.selectbox, "across").value == "activation"


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
    assert _plain(str(row.iloc[2])).startswith("100 ± ")
    assert "2 windows; of 0 only" in _said(app)
    alone = open_page(results.url, view="parameters", activation="tanh")
    assert not alone.exception
    assert "No parameter differs" in _said(alone)


def test_columns_that_are_left_out_are_named_by_the_address(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, without=["status", "T"])
    every = list(app.dataframe[0].value.columns)
    assert list(app.dataframe[0].proto.column_order) == [name for name in every if name not in ("status", "T")]


def test_filters_that_match_nothing_say_so(open_page: OpenPage, results: Database) -> None:
    said = _said(open_page(results.url, closure="mean", quantity="K1"))
    assert "No window matches these filters" in said


def test_the_table_holds_every_window_and_bars_come_in_pages(
    open_page: OpenPage, results: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.data.windows.BARS", 4)
    app = open_page(results.url, view="bars")
    assert "12 windows." in _said(app)
    assert len(app.dataframe[0].value) == 12
    assert _drawn(app) == ["mean", "source_only", "g_only", "mean"]
    app.number_input[0].set_value(2).run()
    assert _drawn(app) == ["source_only", "g_only"]
    # fewer pages after a filter: the page number follows
    _keyed(app.multiselect, "activation").set_value(["tanh"]).run()
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
    assert _keyed(app.button_group, "view").value == "bars"
    monkeypatch.setattr("ui.views.windows.BARS", 4, raising=False)
    monkeypatch.setattr("ui.data.windows.BARS", 4)
    app = open_page(results.url)
    assert _keyed(app.button_group, "view").value == "map"
    _keyed(app.multiselect, "activation").set_value(["tanh"]).run()
    assert _keyed(app.button_group, "view").value == "bars", "the rows fit now"
    _keyed(app.button_group, "view").set_value("map").run()
    _keyed(app.multiselect, "activation").set_value([]).run()
    _keyed(app.multiselect, "activation").set_value(["relu"]).run()
    assert _keyed(app.button_group, "view").value == "map", "it was chosen"
    assert _keyed(open_page(results.url, view="map").button_group, "view").value == "map"


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
    assert "3 rows ticked" in _said(app)


def test_a_chosen_cell_of_the_map_is_opened_compared_or_looked_into(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, view="map", across="width", by="activation", quantity="V4")
    app.session_state[_key(app.get("plotly_chart")[0])] = {
        "selection": {"points": [{"customdata": [0]}], "point_indices": [0], "box": []}
    }
    app.run()
    relu = int(queries.runs(results, kind="simulation", activation="relu")["run_id"].iloc[0])
    assert "2 windows chosen:" in _said(app)
    assert [link.proto.label for link in app.get("page_link")] == [f"Open run {relu}", "Compare simulation"]
    (only,) = [button for button in app.button if button.label == "Only these"]
    only.click().run()
    assert not app.exception
    assert _keyed(app.multiselect, "activation").value == ["relu"]
    assert set(app.dataframe[0].value["quantity"]) == {"V4"}


def test_rows_link_to_their_run(open_page: OpenPage, results: Database) -> None:
    links = set(open_page(results.url).dataframe[0].value["run"])
    runs = queries.runs(results, kind="simulation")["run_id"]
    assert links == {f"run?simulation={number}" for number in runs}


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
    assert "M = 2048 networks of width n = 16" in _said(app)
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
        said = _plain(shown.loc[window["closure"].replace("_", "\\_"), window["quantity"]])
        assert said == verdict_text(window)
        if window["status"] == "bounded":
            layer = round(window["refuted_from"] / 0.25**2)
            assert re.search(rf"(not from|not from layer) {layer} on", said)
    assert (shown == "—").sum().sum() == 3, "what a closure does not predict"
    sentences = _plain(_said(app))
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
    assert f"simulation = '{asked}': the database has no finished simulation" in _said(
        open_page(results.url, "run", simulation=asked)
    )


def test_entries_can_be_chosen_and_left_out(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "run", entries="11", covariances=["01,01"], numbers="true")
    assert set(app.table[2].value["component"]) == {"11", "01,01"}
    app.multiselect[0].set_value([]).run()
    app.multiselect[1].set_value([]).run()
    assert "Choose at least one entry" in _said(app)


def test_the_kernel_of_one_network_is_shown_beside_the_law_where_there_is_one(
    open_page: OpenPage, fresh: Database, put: Callable[..., int]
) -> None:
    put(fresh, "tanh")
    app = open_page(fresh.url, "run", kernels="11")
    said = _said(app)
    assert "The law from theory needs the next order in 1/n of this network" in re.sub(r"\\(.)", r"\1", said)
    assert list(app.table[2].value.columns) == ["component", "probability", "simulated", "95 % bounds"]
    assert set(app.table[2].value["component"]) == {"11"}
    charts = len(app.get("plotly_chart"))
    _keyed(app.multiselect, "kernels").set_value([]).run()
    assert "Choose at least one entry" in _said(app)
    assert len(app.get("plotly_chart")) == charts - 1
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    exact = record_prediction(
        fresh, eft.predict(model, kernel, "exact", next_order=True, truncation=0.05), provenance={}
    )
    app = open_page(fresh.url, "run", network="true")
    assert f"exact closure with its next order (run {exact})" in re.sub(r"\\(.)", r"\1", _said(app))
    assert "within" in set(app.table[2].value["the law lies"].iloc[:7])
    with fresh.session() as session:
        session.connection().exec_driver_sql("DELETE FROM kernel_quantiles")
    assert "No quantiles of these entries are recorded" in _said(open_page(fresh.url, "run", network="true"))


@pytest.mark.parametrize("chosen", DIAGNOSTICS)
def test_diagnostics_are_computed_when_chosen(open_page: OpenPage, results: Database, chosen: str) -> None:
    app = open_page(results.url, "run", diagnostic=chosen)
    assert not app.exception
    assert len(app.get("plotly_chart")) == (2 if chosen == CHECKS else 3)
    if chosen == CHECKS:
        assert set(app.table[2].value["verdict"]) == {"holds"}


def test_simulation_without_theory_says_so(open_page: OpenPage, fresh: Database, put: Callable[..., int]) -> None:
    put(fresh, "tanh")
    with fresh.session() as session:
        session.connection().exec_driver_sql("DELETE FROM comparisons")
    assert "No theory has been compared" in _said(open_page(fresh.url, "run"))
    assert "No comparison" in _said(open_page(fresh.url))


@pytest.mark.parametrize("page", ["windows", "compare", "run"])
def test_a_database_of_failures_points_to_their_causes(open_page: OpenPage, failed: Database, page: str) -> None:
    said = _said(open_page(failed.url, page))
    assert "recorded yet" in said
    assert "**1 failed**" in said


def test_studies_page_names_the_cause_and_the_command(open_page: OpenPage, failed: Database) -> None:
    app = open_page(failed.url, "studies")
    assert "eft run wild.toml" in _said(app)
    (save,) = app.get("download_button")
    assert save.proto.label == "Save wild.toml"
    progress, configurations, failures = (table.value for table in app.dataframe)
    shown = ["study", "state", "failed", "asked for", "recorded"]
    assert progress[shown].iloc[0].tolist() == ["wild", "failed runs", 1, 2, 0.0]
    assert configurations[["recorded", "asked", "failed"]].values.tolist() == [[0, 1, 1]]
    assert failures["cause"].tolist() == ["K0 <b>leaves</b> the range"]


def test_a_study_runs_while_a_process_claims_it(open_page: OpenPage, failed: Database) -> None:
    """Whatever became of its runs, and however fresh they are."""

    def state() -> list[str]:
        app = open_page(failed.url, "studies")
        assert not app.exception
        return app.dataframe[0].value["state"].tolist()

    assert state() == ["failed runs"]
    holder = claims.new_holder()
    mine = study_claim("0" * 64, holder)
    assert claims.claim(failed, mine, task="study wild", holder=holder)
    assert state() == ["running"]
    app = open_page(failed.url, "studies")
    assert [button.label for button in app.button if button.key == "stop-study"] == ["Stop"]
    claims.release(failed, holder)
    assert claims.claim(failed, study_claim("1" * 64, holder), task="study other", holder=holder)
    assert state() == ["failed runs"]
    assert claims.claim(failed, mine, task="study wild", holder=holder, lease_seconds=-1.0)
    assert state() == ["failed runs"], "a claim without a heartbeat is void"


def test_studies_of_one_name_are_told_apart(open_page: OpenPage, fresh: Database) -> None:
    for digest, widths in (("3" * 64, [8]), ("4" * 64, [16])):
        record_study(fresh, name="quick", digest=digest, spec={**ONE_RUN, "widths": widths}, runs_asked=2)
    record_study(fresh, name="paper", digest="5" * 64, spec=ONE_RUN, runs_asked=2)
    app = open_page(fresh.url, "studies")
    assert not app.exception
    assert [code.value for code in app.code] == ["eft run paper.toml", "eft run paper"]
    assert app.dataframe[0].value["study"].tolist() == ["paper", "quick-2", "quick-1"]
    assert [code.value for code in open_page(fresh.url, "studies", open="quick-1").code] == ["eft run quick-1.toml"]


def test_half_finished_study_says_so(open_page: OpenPage, half_finished: Database) -> None:
    for page in ("windows", "run", "compare"):
        assert "half-finished" in _said(open_page(half_finished.url, page))
    app = open_page(half_finished.url, "studies")
    shown = ["predictions", "simulations", "recorded", "state"]
    assert app.dataframe[0].value[shown].iloc[0].tolist() == [1, 0, 0.5, "unfinished"]


def test_no_share_is_shown_of_a_study_that_an_older_version_recorded(
    open_page: OpenPage, half_finished: Database
) -> None:
    with half_finished.session() as session:
        session.execute(sa.text("UPDATE studies SET runs_asked = NULL"))
    app = open_page(half_finished.url, "studies")
    assert not app.exception
    shown = app.dataframe[0].value
    assert shown["predictions"].tolist() == [1]
    assert shown[["asked for", "recorded"]].isna().all(axis=None)
    assert "eft run half.toml" in _said(app)


def test_sql_page_offers_every_documented_view() -> None:
    of_studies = set(MEANING) - {"v_checks"}
    assert {*MEANING, *map(by_study, of_studies)} == {view.name for view in VIEWS}


def test_studies_page_of_an_empty_database(open_page: OpenPage, empty_file: Path) -> None:
    assert "eft run quick" in _said(open_page(f"sqlite:///{empty_file}", "studies"))


def test_compare_overlays_what_the_link_names(open_page: OpenPage, both: Database) -> None:
    runs = queries.runs(both, kind="simulation")["run_id"].tolist()
    app = open_page(both.url, "compare", run=[str(run) for run in runs], theory="g_only", covariances="00,11")
    assert not app.exception
    assert sorted(app.multiselect[0].value) == sorted(runs)
    assert app.multiselect[1].value == ["g_only"]
    assert len(app.get("plotly_chart")) == 2
    app.multiselect[0].set_value([]).run()
    assert "Choose at least one simulation" in _said(app)


def _plain(text: str) -> str:
    """A text as it is seen: without the escapes of Markdown."""
    return re.sub(r"\\(.)", r"\1", text)


def test_a_page_says_what_its_link_asks_for_and_is_not_there(open_page: OpenPage, results: Database) -> None:
    runs = [str(run) for run in queries.runs(results, kind="simulation")["run_id"]]
    app = open_page(results.url, "compare", run=[*runs, "999", "x"], theory=["g_only", "wick 8"])
    said = _plain(_said(app))
    assert "not have: run = 999, run = x." in said
    assert "not have: theory = wick 8." in said
    assert sorted(app.multiselect[0].value) == sorted(map(int, runs))
    assert "run = 999" in _plain(_said(app.run())), "also when the page is drawn again"
    app = open_page(results.url, "windows", activation=["relu", "gelu"], tolerance="0.2", depth="16")
    assert "not have: activation = gelu, tolerance = 0.2." in _plain(_said(app))
    assert "The link asks" not in _said(open_page(results.url, "windows", activation="relu"))


def test_more_than_eight_are_named(open_page: OpenPage, results: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [str(run) for run in queries.runs(results, kind="simulation")["run_id"]]
    monkeypatch.setattr("ui.data.compare.MOST_SERIES", 1)
    app = open_page(results.url, "compare", run=runs)
    assert f"The link asks for 2 simulations, and 1 can be told apart: left out: runs {runs[1]}." in _said(app)
    monkeypatch.setattr("ui.data.compare.MOST_SERIES", 3)
    app = open_page(results.url, "compare", run=runs, theory=["mean", "g_only"])
    assert "4 curves are more than can be told apart; 3 are drawn, without " in _plain(_said(app))
    assert len(app.table[0].value.drop_duplicates(["configuration", "theory"])) == 3


def test_compare_lists_what_differs_and_the_windows(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "compare", theory="g_only")
    runs = queries.runs(results, kind="simulation")
    listed = app.dataframe[0].value
    assert list(listed) == ["in figures", "run", "σ"]
    assert listed["σ"].tolist() == runs["activation"].tolist()
    windows = app.table[0].value
    (stored,) = queries.windows(
        results, activation="tanh", closure="g_only", quantity="V4", tolerance=0.05, reference_kind="simulation"
    ).to_dict("records")
    row = windows[(windows["quantity"] == "V4") & (windows["configuration"] == "tanh")].iloc[0]
    assert _plain(row.iloc[-2]) == window_text(stored)


def test_compare_against_the_exact_leading_order(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "compare", reference="exact leading order")
    said = _plain(_said(app))
    assert "Against the exact leading order" in said
    assert "relu: none is stored; computed here, its own relative error" in said


def test_sql_page_runs_the_query_of_the_link(open_page: OpenPage, both: Database) -> None:
    sql = "SELECT quantity, count(*) AS windows FROM v_windows GROUP BY quantity ORDER BY quantity"
    app = open_page(both.url, "sql", sql=sql)
    assert not app.exception
    assert app.text_area[0].value == sql
    assert app.dataframe[1].value.equals(queries.select(both, sql))


def test_sql_page_keeps_every_column_and_every_digit(open_page: OpenPage, results: Database) -> None:
    sql = "SELECT 1 AS n, 9007199254740993 AS n, 1e-13 AS small UNION ALL SELECT NULL, NULL, 0.5 ORDER BY small"
    app = open_page(results.url, "sql", sql=sql)
    assert not app.exception
    table = app.dataframe[1]
    assert table.value.to_dict("list") == {"n": [1, None], "n_2": [9007199254740993, None], "small": [1e-13, 0.5]}
    assert json.loads(table.proto.columns)["small"]["type_config"]["format"] == "%.10g", "not 0.0000000000001"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM runs", "only one SELECT"),
        ("SELECT nothing FROM v_windows", "nothing"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "only one SELECT"),
    ],
)
def test_sql_page_explains_what_was_refused(open_page: OpenPage, results: Database, sql: str, words: str) -> None:
    app = open_page(results.url, "sql", sql=sql)
    assert not app.exception
    assert words in _told(app)[0]


def test_examples_of_the_sql_page_answer(both: Database) -> None:
    without = {"failures", "how wide, from theory"}  # these results have no failure, and no next order
    for name, sql in EXAMPLES.items():
        assert (len(queries.select(both, sql)) > 0) == (name not in without)


def test_sql_chart_takes_the_columns_of_the_result(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "sql", sql=EXAMPLES["error of V4 over depth"], chart_shown="true")
    assert not app.exception
    assert _keyed(app.selectbox, "x").options == ["time", "error", "error_se"]
    assert _keyed(app.selectbox, "curves").value == "closure"
    assert len(app.get("plotly_chart")) == 1


def test_predict_needs_no_database(open_page: OpenPage, tmp_path: Path) -> None:
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", sigma="erf", T="1.0", C_W="1.5")
    assert not app.exception
    model = eft.ResNet(activation="erf", weight_variance=1.5, epsilon=0.1, depth=100)
    theory = eft.predict(model, eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3), "g_only")
    shown = app.table[0].value.set_index("closure").loc["g\\_only"]
    assert theory.covariance is not None
    assert float(shown["V4\\[00,00\\]"].replace("\\", "")) == pytest.approx(theory.covariance[-1, 0, 0], rel=1e-5)
    assert not (tmp_path / "none.db").exists()


def test_predict_knows_blocks_with_two_matrices(open_page: OpenPage, tmp_path: Path) -> None:
    query = {
        "sigma": "gelu",
        "T": "1.0",
        "N": "1",
        "variance": "1.0",
        "block": "two_matrix",
        "norm": "rms",
        "ratio": "4",
    }
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", **query)
    assert not app.exception
    model = eft.ResNet(
        activation="gelu",
        weight_variance=2.0,
        epsilon=0.1,
        depth=100,
        block="two_matrix",
        normalisation="rms",
        hidden_ratio=4.0,
    )
    theory = eft.predict(model, eft.InputKernel.explicit([[1.0]]), "exact")
    shown = app.table[0].value.set_index("closure")
    assert [name.replace("\\", "") for name in shown.index] == ["mean", "source_only", "g_only", "exact"]
    values = shown["V4\\[00,00\\]"].str.replace("\\", "")
    assert float(values["exact"]) == pytest.approx(theory.covariance[-1, 0, 0], rel=1e-4)
    assert "two_matrix" in "".join(element.value for element in app.code)


def test_a_long_prediction_begins_when_somebody_says_so(open_page: OpenPage, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ui.waiting.LONG_SECONDS", 0.5)
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", T="1.0", N="4")
    closures = [each.replace("\\", "") for each in app.table[0].value["closure"]]
    assert closures == ["mean", "source_only", "g_only", "sigma"]
    assert "the exact leading order in 1/n: about a second." in _said(app)
    _keyed(app.button, "compute-the exact leading order in 1/n").click().run()
    assert app.table[0].value["closure"].tolist()[-1] == "exact"
    assert "about a second" not in _said(app)


def test_predict_draws_the_stored_simulation(open_page: OpenPage, results: Database) -> None:
    query = {"eps": "0.25", "T": "1.0", "n": "16", "variance": "1.0", "correlation": "0.3"}
    app = open_page(results.url, "predict", **query)
    run = int(queries.runs(results, kind="simulation", activation="tanh")["run_id"].iloc[0])
    assert not app.exception
    (link,) = app.get("page_link")
    assert link.proto.label == f"simulation: run {run}, n = 16, M = 2048 networks"
    assert "simulation ± 2 s.e." in app.get("plotly_chart")[0].proto.spec
    app = open_page(results.url, "predict", **query, sigma="gelu")
    assert not app.get("page_link")


def test_predict_shows_the_next_order_and_widths_where_they_are_asked_for(open_page: OpenPage, tmp_path: Path) -> None:
    query = {"sigma": "relu", "eps": "0.25", "T": "1.0", "N": "1", "variance": "1.0"}
    plain = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", **query)
    assert len(plain.get("plotly_chart")) == 1
    assert "Windows in width n*" not in [element.value for element in plain.subheader]
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", **query, next="true", tau="0.1")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 2
    titles = [element.value for element in app.subheader]
    assert titles.index("The next order in 1/n at T") < titles.index("Windows in width n*")
    coefficients = next(table.value for table in app.table if "coefficient" in table.value)
    assert [name.replace("\\", "") for name in coefficients["coefficient"]] == ["D[00,00]", "K2[00]", "T[00,00,00]"]
    widths = app.table[-1].value.set_index(["closure", "quantity"])
    assert widths.columns[-1].replace("\\", "") == "τ = 0.1"
    assert widths.loc[("g\\_only", "V4")].iloc[-1] == "no width"
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.25, depth=16)
    exact = eft.predict(model, eft.InputKernel.explicit([[1.0]]), "exact", next_order=True, truncation=0.01)
    row = eft.width_windows(exact, tolerances=[0.1]).query("quantity == 'V4' and depth == 16").iloc[0]
    found = re.sub(r"\\(.)", r"\1", widths.loc[("exact leading order", "V4")].iloc[-1])
    assert found == width_text(row.to_dict())


def test_predict_tells_why_there_is_no_next_order(open_page: OpenPage, tmp_path: Path, monkeypatch) -> None:
    def refused(spec: eft.PredictionSpec) -> eft.Theory:
        if spec.next_order:
            reason = "the next order does not converge with 'sin' at this kernel"
            raise InputError(reason, place="next_order", value=True)
        return eft.predict_spec(spec)

    monkeypatch.setattr("ui.data.predict._predict", refused)
    query = {"sigma": "sin", "eps": "0.5", "T": "1.0", "N": "1"}
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", **query, next="true")
    assert _told(app) == ["next_order = True: the next order does not converge with 'sin' at this kernel"]
    assert len(app.get("plotly_chart")) == 1


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
    assert "One asks for it" not in _said(closed)
    assert "next_order = true" in _said(app)
    assert app.dataframe[1].value["n*"].tolist() != []
    assert len(statements) - before - spent == spent + 1
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    exact = eft.predict(model, kernel, "exact", next_order=True, truncation=0.05)
    run_id = record_prediction(fresh, exact, provenance={})
    record_widths(fresh, prediction_run_id=run_id, reference_run_id=run_id, widths=widths_of(exact, exact))
    app = open_page(fresh.url, in_width="true", quantity="V4")
    assert "next_order = true" not in _said(app)
    table = app.dataframe[1].value
    row = widths_of(exact, exact, [0.05]).query("quantity == 'V4' and depth == 16").iloc[0]
    assert table.set_index(["theory", "from"]).loc[("exact", "next order in 1/n"), "n*"] == width_text(row.to_dict())


def test_the_measured_next_order_is_on_every_page(
    open_page: OpenPage, fresh: Database, put: Callable[..., int]
) -> None:
    run = put(fresh, "tanh")
    told = open_page(fresh.url, "windows", reference="measured next order")
    assert "No next order in 1/n has been measured yet" in _said(told)
    told = open_page(fresh.url, "compare", reference="measured next order")
    assert "that simulations of two widths have measured" in _said(told)
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    exact = eft.predict(model, kernel, "exact", next_order=True, truncation=0.05)
    samples = [eft.simulate(model, kernel, width=n, samples=256, device="cpu") for n in (16, 64)]
    measured = eft.measured_next_order(samples, exact)
    prediction = record_prediction(fresh, exact, provenance={})
    measurement = record_measurement(fresh, measured, provenance={})
    for reference, result in ((run, samples[0]), (measurement, measured)):
        comparison = eft.compare(exact, result)
        record_comparison(fresh, prediction_run_id=prediction, reference_run_id=reference, comparison=comparison)
    app = open_page(fresh.url, "run")
    assert not app.exception
    assert "D and K2 are measured: the coefficients of 1/n in V4 and K1, from simulations" in _said(app)
    app = open_page(fresh.url, "windows", reference="measured next order")
    assert not app.exception
    assert app.dataframe[0].value["quantity"].tolist() == ["D", "K2"]
    app = open_page(fresh.url, "compare", reference="measured next order")
    assert not app.exception
    assert "against what simulations of several widths measure" in _said(app)


def test_predict_writes_the_study_file(open_page: OpenPage, results: Database, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EFT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    app = open_page(results.url, "predict", sigma="gelu", n="32")
    assert [button.label for button in app.button] == ["Write study file"]
    app.button[0].click().run()
    (path,) = (tmp_path / "home" / "studies").glob("*.toml")
    assert f"eft run {path}" in _said(app)
    written = tomllib.loads(path.read_text())
    assert (written["model"]["activation"], written["widths"]) == ("gelu", [32])


def test_predict_shows_what_a_file_was_read_as(open_page: OpenPage, tmp_path: Path) -> None:
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", source="data file", T="0.1")
    app.file_uploader[0].set_value(("x.csv", b"a,b\n1,1\n1,-1\n3,4\n", "text/csv")).run()
    (preview,) = [each for each in app.expander if "read as" in each.label]
    assert preview.label == "read as 3 rows of 2 numbers: the table, and K⁰"
    table, kernel = (each.value.to_numpy().tolist() for each in preview.dataframe)
    assert table == [[1.0, 1.0], [1.0, -1.0], [3.0, 4.0]]
    assert kernel == [[1.0, 0.0, 3.5], [0.0, 1.0, -0.5], [3.5, -0.5, 12.5]]


def test_predict_says_what_is_wrong_below_its_fields(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "predict", correlation="-0.9", N="4", eps="0.001")
    assert not app.exception
    assert _told(app) == [
        f"total_time = 2.0: with epsilon = 0.001 it takes 2000000 layers, and this page predicts up to {MOST_LAYERS};"
        " use `eft predict`, with --continuous for the limit epsilon -> 0",
        "correlation = -0.9: must lie between -0.333333 and 1 for 4 inputs",
    ]
    assert _keyed(app.slider, "correlation").value == -0.9, "the fields of the kernel are there, whatever the model"


def test_statements_per_page_do_not_grow(open_page: OpenPage, results: Database, statements: list[str]) -> None:
    spent = {}
    for page in ("answer", "windows", "compare", "run", "checks", "predict", "paper", "sql", "studies"):
        before = len(statements)
        open_page(results.url, page)
        spent[page] = len(statements) - before
    # two look up the schema's revision, two are those of the bar; the rest are named at each build_ function
    assert spent == {
        "answer": 4 + 2,
        "windows": 4 + 2,
        "compare": 4 + 5,
        "run": 4 + 5,  # and the list of simulations, which is kept since Compare read it
        "checks": 4 + 8,
        "predict": 4 + 1,
        "paper": 4 + 1,
        "sql": 4,
        "studies": 4 + 2,
    }


def test_a_page_that_is_seen_again_reads_little_until_there_are_other_results(
    open_page: OpenPage, fresh: Database, put: Callable[..., int], statements: list[str]
) -> None:
    def read(page: str) -> int:
        before = len(statements)
        app = open_page(fresh.url, page)
        assert not app.exception
        return len(statements) - before

    put(fresh, "tanh")
    for page in ("windows", "compare", "run"):
        first, again = read(page), read(page)
        assert 4 <= again < first
        put(fresh, "tanh", seed=len(statements))
        assert read(page) >= first
    assert len(open_page(fresh.url).dataframe[0].value) > 12


def test_labels_are_shown_as_they_are(open_page: OpenPage, fresh: Database, put: Callable[..., int]) -> None:
    label = "<img src=x onerror=alert(1)> **bold** :red[x] $x$"
    put(fresh, "tanh", label=label)
    app = open_page(fresh.url)
    assert label in app.text[0].value
    assert not any(label in element.value for kind in ("markdown", "caption") for element in app.get(kind))
    app = open_page(fresh.url, "run")
    assert not any(label in element.value for kind in ("markdown", "caption") for element in app.get(kind))


def test_checks_page_shows_a_check_block_by_block_and_beside_theory(open_page: OpenPage, both: Database) -> None:
    app = open_page(both.url, "checks")
    assert not app.exception
    assert "blocks.1 is the first block that deviates" in app.error[0].value.replace("\\", "")
    assert "Compared with gelu (two matrices, layer, m/n = 2)" in _said(app).replace("\\", "")
    assert len(app.get("plotly_chart")) == 1
    drawn = str(app.get("plotly_chart")[0].proto.spec)
    assert "60 networks: median and 95%" in drawn
    assert "theory: mean" in drawn
    blocks, values, windows, origin = (table.value for table in app.table)
    assert [text.replace("\\", "") for text in blocks["block"]] == [f"blocks.{index}" for index in range(4)]
    assert blocks["verdict"].tolist() == ["", "first that deviates", "", ""]
    assert set(values["quantity"]) == set(windows["quantity"]) == {"K0", "V4"}
    (measured,) = [name for name in values if name.startswith("measured")]
    assert values[measured].str.contains("±").all()
    facts = dict(zip(origin.iloc[:, 0], origin.iloc[:, 1].str.replace("\\", ""), strict=True))
    assert facts["made by"] == "checked.py:make_model"
    assert facts["host"] == "bench"
    assert "torch" in facts["packages"]
    assert app.dataframe[0].value["outcome"].tolist() == ["deviates from layer 2 on"]


def test_checks_page_by_its_address(open_page: OpenPage, fresh: Database) -> None:
    assert "No check recorded yet" in _said(open_page(fresh.url, "checks"))
    ids = [record_checked(fresh, {}, good=good) for good in (False, True)]
    app = open_page(fresh.url, "checks", check=str(ids[0]))
    assert app.selectbox[0].value == ids[0]
    assert len(app.error) == 1
    app.selectbox[0].set_value(ids[1]).run()
    assert not app.exception
    assert "All 4 blocks are as the spec says" in app.success[0].value.replace("\\", "")
    assert app.table[0].value["verdict"].tolist() == [""] * 4
    outcomes = ["as it should be", "deviates from layer 2 on"]
    assert app.dataframe[0].value["outcome"].tolist() == outcomes, "the newest first"
    assert app.query_params["check"] == str(ids[1])
    assert app.selectbox[0].value == ids[1]
    lost = open_page(fresh.url, "checks", check="77")
    assert "the database has no check of that number" in _told(lost)[0].replace("\\", "")
