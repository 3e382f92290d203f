"""Pages without a browser: what they say about every state of the database, and how state, links and filters work."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from db import queries
from db.session import Database

OpenPage = Callable[..., AppTest]


def _said(app: AppTest) -> str:
    """All the text of a page, where nothing went wrong."""
    assert not app.exception
    texts = [
        element.value for kind in ("title", "text", "caption", "markdown", "info", "code") for element in app.get(kind)
    ]
    return "\n".join(map(str, texts))


@pytest.mark.parametrize("page", ["windows", "run"])
def test_missing_database_names_the_command_and_creates_nothing(open_page: OpenPage, page: str, tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    said = _said(open_page(f"sqlite:///{path}", page))
    assert "There is no results database yet" in said
    assert "eft db upgrade" in said
    assert not path.exists()


@pytest.mark.parametrize("page", ["windows", "run"])
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
    assert path.read_bytes() == before


@pytest.mark.parametrize(("page", "what"), [("windows", "comparison"), ("run", "simulation")])
def test_empty_database_says_how_to_fill_it(open_page: OpenPage, empty_file: Path, page: str, what: str) -> None:
    said = _said(open_page(f"sqlite:///{empty_file}", page))
    assert f"No {what}" in said
    assert "eft run quick" in said


@pytest.mark.parametrize(
    ("url", "words"),
    [("sqlite:///{folder}/text.db", "cannot use database"), ("mysql://host/name", "use sqlite or postgresql")],
)
def test_what_is_no_results_database_is_said_so(open_page: OpenPage, tmp_path: Path, url: str, words: str) -> None:
    (tmp_path / "text.db").write_text("not a database, but longer than the header of one would be\n" * 20)
    assert words in _said(open_page(url.format(folder=tmp_path)))


def test_windows_table_and_filters(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url)
    assert "Validity windows" in _said(app)
    everything = app.dataframe[0].value
    wanted = queries.select(results, "SELECT count(*) AS n FROM v_windows WHERE tolerance = 0.05")["n"].iloc[0]
    assert len(everything) == wanted
    _group(app, "activation").set_value(["tanh"]).run()
    _group(app, "quantity").set_value(["V4"]).run()
    shown = app.dataframe[0].value
    assert shown["theory"].tolist() == ["source_only", "g_only"]
    assert "tanh" in app.text[0].value


def _group(app: AppTest, key: str) -> object:
    (found,) = [group for group in app.button_group if group.key == key]
    return found


def test_a_link_restores_the_filters(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, activation="relu", closure=["g_only", "mean"], tolerance="0.1")
    shown = app.dataframe[0].value
    assert set(shown["theory"]) == {"mean", "g_only"}
    assert "τ = 0.1 " in app.text[0].value
    assert "relu" in app.text[0].value


def test_filters_that_match_nothing_say_so(open_page: OpenPage, results: Database) -> None:
    said = _said(open_page(results.url, closure="mean", quantity="K1"))
    assert "No window matches these filters" in said


def test_pages_of_the_table(open_page: OpenPage, results: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.data.PAGE_ROWS", 5)
    app = open_page(results.url)
    assert "Windows 1 to 5 of 12." in _said(app)
    app.number_input[0].set_value(3).run()
    assert "Windows 11 to 12 of 12." in _said(app)
    # fewer pages after a filter: the page number follows
    _group(app, "activation").set_value(["tanh"]).run()
    assert "Windows 6 to 6 of 6." in _said(app)
    assert "Windows 11 to 12 of 12." in _said(open_page(results.url, page="3"))


def test_rows_link_to_their_run(open_page: OpenPage, results: Database) -> None:
    links = set(open_page(results.url).dataframe[0].value["run"])
    runs = queries.runs(results, kind="simulation")["run_id"]
    assert links == {f"run?simulation={number}" for number in runs}


def test_run_page_shows_the_run_of_the_url(open_page: OpenPage, results: Database) -> None:
    tanh, relu = (
        int(queries.runs(results, kind="simulation", activation=name)["run_id"].iloc[0]) for name in ("tanh", "relu")
    )
    app = open_page(results.url, "run", simulation=str(tanh))
    assert app.selectbox[0].value == tanh
    values, windows, provenance = (table.value for table in app.table)
    assert "quantity" in values
    assert len(windows) == 6
    assert provenance.iloc[0].tolist()[1] == str(tanh)
    assert "M = 2048 networks of width n = 16" in _said(app)
    app.selectbox[0].set_value(relu).run()
    assert app.query_params["simulation"] == str(relu)
    assert app.table[2].value.iloc[0].tolist()[1] == str(relu)


def test_run_page_opens_the_newest_without_a_choice(open_page: OpenPage, results: Database) -> None:
    newest = int(queries.runs(results, kind="simulation")["run_id"].iloc[0])
    assert open_page(results.url, "run").selectbox[0].value == newest


@pytest.mark.parametrize("asked", ["999", "two", "-1", "1"])
def test_unknown_run_is_said_so(open_page: OpenPage, results: Database, asked: str) -> None:
    if asked == "1":
        asked = str(queries.runs(results, kind="prediction")["run_id"].iloc[0])
    assert f"simulation = {asked}: the database has no finished simulation" in _said(
        open_page(results.url, "run", simulation=asked)
    )


def test_entries_can_be_chosen_and_left_out(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "run", entries="11", covariances=["01,01"])
    assert set(app.table[0].value["component"]) == {"11", "01,01"}
    app.multiselect[0].set_value([]).run()
    app.multiselect[1].set_value([]).run()
    assert "Choose at least one entry" in _said(app)


def test_simulation_without_theory_says_so(open_page: OpenPage, fresh: Database, put: Callable[..., int]) -> None:
    put(fresh, "tanh")
    with fresh.session() as session:
        session.connection().exec_driver_sql("DELETE FROM comparisons")
    assert "No theory has been compared" in _said(open_page(fresh.url, "run"))
    assert "No comparison" in _said(open_page(fresh.url))


def test_statements_per_page_do_not_grow(open_page: OpenPage, results: Database, statements: list[str]) -> None:
    spent = {}
    for page in ("windows", "run"):
        before = len(statements)
        open_page(results.url, page)
        spent[page] = len(statements) - before
    # two look up the schema's revision; the rest are named at each build_ function
    assert spent == {"windows": 2 + 2, "run": 2 + 6}


def test_labels_are_shown_as_they_are(open_page: OpenPage, fresh: Database, put: Callable[..., int]) -> None:
    label = "<img src=x onerror=alert(1)> **bold** :red[x] $x$"
    put(fresh, "tanh", label=label)
    app = open_page(fresh.url)
    assert label in app.text[0].value
    assert not any(label in element.value for kind in ("markdown", "caption") for element in app.get(kind))
    app = open_page(fresh.url, "run")
    assert not any(label in element.value for kind in ("markdown", "caption") for element in app.get(kind))
