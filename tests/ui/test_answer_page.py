"""The first page without a browser: it answers without a database, tells what is wrong, and starts a simulation."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from db.session import Database
from flows.study.expansion import load_study
from ui import running

OpenPage = Callable[..., AppTest]


def _said(app: AppTest) -> str:
    assert not app.exception
    texts = [str(element.value) for kind in ("markdown", "caption", "error") for element in app.get(kind)]
    return re.sub(r"\\(.)", r"\1", "\n".join(texts))


def test_it_answers_without_a_database(open_page: OpenPage, tmp_path: Path) -> None:
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "answer")
    said = _said(app)
    assert "### Use **G-only**: within 5 % down to the last of 100 layers." in said
    assert "with 95 %; at infinite width it is 1.91." in said
    assert "theory alone answers" in said
    assert len(app.get("plotly_chart")) == 1
    assert not (tmp_path / "none.db").exists()


def test_a_link_asks_the_whole_question(open_page: OpenPage, sqlite_template: Path) -> None:
    query = {
        "my_sigma": "relu",
        "my_L": "50",
        "my_residual": "1/sqrt(L)",
        "my_n": "16",
        "my_within": "10",
        "my_of": "V4",
        "my_C_W": "1.5",
    }
    app = open_page(f"sqlite:///{sqlite_template}", "answer", **query)
    said = _said(app)
    assert "50 layers with ε = 0.1414: t = ε² ℓ runs to T = 1." in said
    assert "within 10 % down to layer" in said
    link = next(each.proto for each in app.get("page_link") if "Predict" in each.proto.label)
    assert parse_qs(link.query_string)["sigma"] == ["relu"]
    assert "The database has no simulation of this activation and block" in said
    again = open_page(f"sqlite:///{sqlite_template}", "answer", **{**query, "my_of": "K0"})
    assert "Use **infinite width**" in _said(again)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"my_residual": "L/2"}, "ε = 'L/2': unknown rule"),
        ({"my_N": "4", "my_correlation": "-0.9"}, "correlation = -0.9: must lie between -0.333333 and 1 for 4 inputs"),
        ({"my_sigma": "relu", "my_C_W": "90", "my_residual": "10", "my_L": "500"}, "leaves the range"),
    ],
)
def test_it_tells_what_is_wrong(open_page: OpenPage, tmp_path: Path, query: dict[str, str], words: str) -> None:
    assert words in _said(open_page(f"sqlite:///{tmp_path / 'none.db'}", "answer", **query))


def test_a_database_of_another_version_is_told_and_the_answer_stands(
    open_page: OpenPage, shapes: dict[str, Path]
) -> None:
    said = _said(open_page(f"sqlite:///{shapes['old']}", "answer", my_L="10"))
    assert "Use **G-only**" in said
    assert "run `eft db upgrade`" in said


def test_it_shows_the_simulations_nearby_in_few_statements(
    open_page: OpenPage, results: Database, statements: list[str]
) -> None:
    query = {"my_L": "16", "my_residual": "0.25", "my_n": "16", "my_N": "2"}
    app = open_page(results.url, "answer", **query)
    assert len(statements) == 4 + 2  # the schema revision and the bar, and build_evidence
    (table,) = [each.value for each in app.dataframe if "run" in each.value]
    assert table["network"].tolist() == ["the same"]
    assert table[["n", "M"]].iloc[0].tolist() == [16, 2048]


def test_a_simulation_of_the_network_is_started(
    open_page: OpenPage, results: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFT_HOME", str(tmp_path))
    started: list[Path] = []

    class Done:
        code = None
        said = ("simulating",)
        stopped = False
        started = datetime.now(UTC)
        title = ""

    def run(study: Path, *, title: str) -> Any:
        started.append(study)
        Done.title = title

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(running, "jobs", lambda: [Done()] if started else [])
    query = {"my_sigma": "relu", "my_L": "20", "my_n": "32", "my_N": "2", "my_within": "7"}
    app = open_page(results.url, "answer", **query)
    (button,) = [each for each in app.button if each.key == "simulate"]
    button.click().run()
    assert not app.exception
    assert "The simulation is running" in "".join(str(each.value) for each in app.info)
    (path,) = started
    written = tomllib.loads(path.read_text())
    assert (written["model"]["activation"], written["widths"]) == ("relu", [32])
    study = load_study(path)
    assert {spec.closure for spec in study.predictions.values()} == {"g_only", "sigma", "exact"}
    assert 0.07 in written["tolerances"]


@pytest.mark.parametrize("page", ["answer", "predict"])
def test_an_explorer_that_only_reads_offers_files_and_starts_nothing(
    open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setenv("EFT_READ_ONLY", "true")
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", page, my_L="5", T="0.05")
    assert not app.exception
    assert len(app.get("download_button")) == 1
    assert not [button.label for button in app.button]
