"""CSV files of views: what a spreadsheet would take for a formula is text there; numbers stay numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from db.reading.files import export_view
from db.reading.spreadsheets import csv_bytes
from db.session import Database
from db.writing.repository import mark_failed
from tests.flows import warm
from tests.flows.conftest import environment

__all__ = ["environment"]

FORMULAS = ("=1+1", "+A1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\tx", "\rx", '=HYPERLINK("http://evil";"x")', "＝1")
HARMLESS = ("tanh", "a=b", "-1e-3", "-inf", "it's")


@pytest.fixture
def messages(sqlite_db: Database, make_theory, provenance) -> Database:
    """Failed runs whose messages would be formulas, or would not."""
    for number, message in enumerate((*FORMULAS, *HARMLESS)):
        theory = make_theory("mean", activation="tanh", depth=8 + number)
        mark_failed(sqlite_db, theory.spec, error=message, provenance=provenance)
    return sqlite_db


def _cells(path: Path, column: str) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row[column] for row in csv.DictReader(file)]


def test_no_cell_begins_as_a_formula(messages: Database, tmp_path: Path):
    export_view(messages, tmp_path / "runs.csv", "v_runs")
    cells = _cells(tmp_path / "runs.csv", "error_message")
    assert sorted(cells) == sorted([*(f"'{text}" for text in FORMULAS), *HARMLESS])
    with (tmp_path / "runs.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            for cell in row:
                assert not cell.startswith(("=", "+", "@", "\t", "\r"))


def test_numbers_stay_numbers(sqlite_db: Database, record_all, tmp_path: Path):
    record_all(sqlite_db, "first")
    for kept in (False, True):
        path = tmp_path / f"{kept}.csv"
        export_view(sqlite_db, path, "v_trajectories", formulas=kept)
        numbers = [float(cell) for cell in _cells(path, "simulated") if cell]
        assert min(numbers) < 0
    assert (tmp_path / "False.csv").read_bytes() == (tmp_path / "True.csv").read_bytes()


def test_who_wants_the_texts_as_they_are_says_so(messages: Database, tmp_path: Path):
    export_view(messages, tmp_path / "runs.csv", "v_runs", formulas=True)
    assert sorted(_cells(tmp_path / "runs.csv", "error_message")) == sorted([*FORMULAS, *HARMLESS])


def test_parquet_is_not_changed(messages: Database, tmp_path: Path):
    import pyarrow.parquet as pq

    export_view(messages, tmp_path / "runs.parquet", "v_runs")
    texts = pq.read_table(tmp_path / "runs.parquet").column("error_message").to_pylist()
    assert sorted(texts) == sorted([*FORMULAS, *HARMLESS])


def test_what_the_explorer_hands_out_is_harmless_too():
    frame = pd.DataFrame({"=cmd": ["=1+1", None], "number": [-0.5, 1.0], "text": ["-inf", "a"], "mixed": [-1, "@x"]})
    lines = csv_bytes(frame).decode().splitlines()
    assert lines == ["'=cmd,number,text,mixed", "'=1+1,-0.5,-inf,-1", ",1.0,a,'@x"]


def test_the_command_has_the_option(messages: Database, tmp_path: Path, environment: dict[str, str]):
    for option, begins in (([], "'=1+1"), (["--keep-formulas"], "=1+1")):
        path = tmp_path / f"{len(option)}.csv"
        database = f"sqlite:///{messages.url.database}"
        done = warm.run(environment, "export", str(path), "--view", "v_runs", "--db", database, *option)
        assert done.returncode == 0, done.stderr
        assert begins in _cells(path, "error_message")
