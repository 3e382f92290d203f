"""Pages without a browser: what they say where the database is missing, of another version, or holds too little."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from db.session import Database
from tests.ui.pages import OpenPage, text_of

READING = ["windows", "compare", "run", "paper", "sql", "studies"]
"""Pages that need a database; predict does without."""


@pytest.mark.parametrize("page", READING)
def test_missing_database_names_the_command_and_creates_nothing(open_page: OpenPage, page: str, tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    said = text_of(open_page(f"sqlite:///{path}", page))
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
    said = text_of(open_page(f"sqlite:///{path}", page))
    assert "The database belongs to another version" in said
    assert ("eft db upgrade" if revision is None else "update the program") in said
    assert (f"eft db upgrade --db sqlite:///{path}" in said) == (revision is None)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("page", "what"), [("windows", "comparison"), ("compare", "simulation"), ("run", "simulation")]
)
def test_empty_database_says_how_to_fill_it(open_page: OpenPage, sqlite_template: Path, page: str, what: str) -> None:
    said = text_of(open_page(f"sqlite:///{sqlite_template}", page))
    assert f"No {what}" in said
    assert "eft run quick" in said


@pytest.mark.parametrize(
    ("url", "words"),
    [("sqlite:///{folder}/text.db", "cannot be used"), ("mysql://host/name", "use sqlite or postgresql")],
)
def test_what_is_no_results_database_is_said_so(open_page: OpenPage, tmp_path: Path, url: str, words: str) -> None:
    (tmp_path / "text.db").write_text("not a database, but longer than the header of one would be\n" * 20)
    assert words in text_of(open_page(url.format(folder=tmp_path)))


def test_simulation_without_theory_says_so(open_page: OpenPage, fresh: Database, put: Callable[..., int]) -> None:
    put(fresh, "tanh")
    with fresh.session() as session:
        session.connection().exec_driver_sql("DELETE FROM comparisons")
    assert "No theory has been compared" in text_of(open_page(fresh.url, "run"))
    assert "No comparison" in text_of(open_page(fresh.url))


@pytest.mark.parametrize("page", ["windows", "compare", "run"])
def test_a_database_of_failures_points_to_their_causes(open_page: OpenPage, failed: Database, page: str) -> None:
    said = text_of(open_page(failed.url, page))
    assert "recorded yet" in said
    assert "**1 failed**" in said


def test_half_finished_study_says_so(open_page: OpenPage, half_finished: Database) -> None:
    for page in ("windows", "run", "compare"):
        assert "half-finished" in text_of(open_page(half_finished.url, page))
    app = open_page(half_finished.url, "studies")
    shown = ["predictions", "simulations", "recorded", "state"]
    assert app.dataframe[0].value[shown].iloc[0].tolist() == [1, 0, 0.5, "unfinished"]
