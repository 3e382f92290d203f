"""The studies page without a browser: what users write, what is listed, and what is deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from db.reading import queries
from db.reading.study_queries import saved_views, study_progress
from db.session import Database
from db.writing import claims
from eftcore.errors import EnvironmentProblem
from ui import running, shell

OpenPage = Callable[..., AppTest]


def _listed(app: AppTest) -> list[str]:
    assert not app.exception
    return app.dataframe[0].value["study"].tolist()


def _one(elements: Any, label: str) -> Any:
    (found,) = [element for element in elements if element.label == label]
    return found


def test_what_a_user_writes_is_shown_and_kept_apart_from_the_results(open_page: OpenPage, studied: Database) -> None:
    before = queries.runs(studied)
    app = open_page(studied.url, "studies")
    assert _listed(app) == ["curved"], "the other one is archived"
    _one(app.text_input, "title, in place of the name").set_value("The <b>curved</b> one")
    _one(app.text_input, "tags, between commas").set_value("smooth, paper")
    _one(app.text_area, "notes").set_value("from Monday")
    _one(app.button, "Save").click().run()
    assert _listed(app) == ["The <b>curved</b> one"]
    assert "from Monday" in [text.value for text in app.text]
    written = study_progress(studied).drop_duplicates("study_id").set_index("name").loc["curved"]
    assert (written["title"], written["notes"]) == ("The <b>curved</b> one", "from Monday")
    assert sorted(written["tags"].split(", ")) == ["paper", "smooth"]
    assert queries.runs(studied).equals(before)
    windows = [link.proto.page for link in app.get("page_link") if link.proto.label == "Its windows"]
    assert len(windows) == 1


def test_archived_studies_are_listed_where_asked_for(open_page: OpenPage, studied: Database) -> None:
    assert _listed(open_page(studied.url, "studies", archived="true")) == ["With a kink", "curved"]
    assert _listed(open_page(studied.url, "studies", study="kinked")) == ["With a kink"]
    app = open_page(studied.url, "studies", open="kinked")
    assert "open = kinked: there is no such study in the list" in app.warning[0].value.replace("\\", "")


def test_columns_are_chosen_by_the_address(open_page: OpenPage, studied: Database) -> None:
    app = open_page(studied.url, "studies", columns=["failed", "study", "measurements"])
    assert list(app.dataframe[0].proto.column_order) == ["study", "measurements", "failed"]


def test_a_study_is_deleted_after_it_was_said_what_goes(open_page: OpenPage, studied: Database) -> None:
    """And not while results are computed."""
    app = open_page(studied.url, "studies", open="curved")
    assert not [button for button in app.button if button.key == "delete-really"]
    app.session_state["delete"] = True
    app.run()
    said = next(text.value for text in app.markdown if text.value.startswith("This would go")).replace("\\", "")
    assert "1 row of studies" in said
    assert "4 rows of runs" in said
    holder = claims.new_holder()
    assert claims.claim(studied, "a" * 64, task="simulation", holder=holder)
    _one(app.button, "Delete all this").click().run()
    assert "results are being computed" in app.error[0].value
    assert len(queries.studies(studied)) == 2
    claims.release(studied, holder)
    _one(app.button, "Delete all this").click().run()
    assert not app.exception
    assert queries.studies(studied)["name"].tolist() == ["kinked"]
    assert {"tanh", "relu"} & set(queries.runs(studied)["activation"]) == {"relu"}


def test_an_explorer_that_only_reads_starts_and_changes_nothing(
    open_page: OpenPage, studied: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFT_READ_ONLY", "true")
    monkeypatch.setenv("EFT_HOME", str(tmp_path))
    app = open_page(studied.url, "studies")
    assert _listed(app) == ["curved"]
    assert [button.label for button in app.button] == []
    for act in (
        lambda: running.run("quick", title="quick"),
        lambda: running.top_up("quick", 10, title="quick"),
        lambda: running.stop(claims.new_holder()),
        lambda: shell.changing().__enter__(),
    ):
        with pytest.raises(EnvironmentProblem, match="this one only reads"):
            act()
    app.session_state["views"] = True
    app.run()
    _one(app.text_input, "save this view as").set_value("mine")
    _one(app.button, "Save").click().run()
    assert "this one only reads" in app.error[0].value
    assert saved_views(studied).empty


def test_an_incomplete_study_goes_on_from_its_record(
    open_page: OpenPage, half_finished: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Path, str]] = []
    monkeypatch.setenv("EFT_HOME", str(tmp_path))
    monkeypatch.setattr(running, "run", lambda path, title: started.append((path, title)))
    monkeypatch.setattr(running, "top_up", lambda path, samples, title: started.append((path, samples)))
    app = open_page(half_finished.url, "studies")
    _one(app.button, "Go on").click().run()
    assert started == [(tmp_path / "studies" / "half.toml", "half")]
    assert "weight_variance = [50.0]" in started[0][0].read_text()
