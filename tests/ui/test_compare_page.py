"""The page Compare without a browser: what the link names, what differs, and against what."""

from __future__ import annotations

import pytest

from db.reading import queries
from db.session import Database
from eftcore.words import window_text
from tests.ui.pages import OpenPage, plain, text_of


def test_compare_overlays_what_the_link_names(open_page: OpenPage, both: Database) -> None:
    runs = queries.runs(both, kind="simulation")["run_id"].tolist()
    app = open_page(both.url, "compare", run=[str(run) for run in runs], theory="g_only", covariances="00,11")
    assert not app.exception
    assert sorted(app.multiselect[0].value) == sorted(runs)
    assert app.multiselect[1].value == ["g_only"]
    assert len(app.get("plotly_chart")) == 2
    app.multiselect[0].set_value([]).run()
    assert "Choose at least one simulation" in text_of(app)


def test_more_than_eight_are_named(open_page: OpenPage, results: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [str(run) for run in queries.runs(results, kind="simulation")["run_id"]]
    monkeypatch.setattr("ui.data.compare.MOST_SERIES", 1)
    app = open_page(results.url, "compare", run=runs)
    assert f"The link asks for 2 simulations, and 1 can be told apart: left out: runs {runs[1]}." in text_of(app)
    monkeypatch.setattr("ui.data.compare.MOST_SERIES", 3)
    app = open_page(results.url, "compare", run=runs, theory=["mean", "g_only"])
    assert "4 curves are more than can be told apart; 3 are drawn, without " in plain(text_of(app))
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
    assert plain(row.iloc[-2]) == window_text(stored)


def test_compare_against_the_exact_leading_order(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "compare", reference="exact leading order")
    said = plain(text_of(app))
    assert "Against the exact leading order" in said
    assert "relu: none is stored; computed here, its own relative error" in said
