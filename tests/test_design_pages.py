"""Each row of docs/design/security.md and faults.md names a test that is there, or says why there is none.

The pages about the engines have tables of other kinds too; every test that they name is there, and their fits are those
of the table. The walks lead through files and names that are there.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eftcore.ensemble.minimax import FITS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "design"
COLUMNS = {"security.md": 2, "faults.md": 3}
ENGINES = ("processors.md", "graphics.md")


def _rows(page: str) -> list[list[str]]:
    """The cells of each row below the head of its table."""
    text = (FOLDER / page).read_text(encoding="utf-8")
    bodies = re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for body in bodies for row in body.splitlines()]


def test_every_page_is_looked_at():
    assert {path.name for path in FOLDER.iterdir()} == {*COLUMNS, *ENGINES, "walks.md", "scale.md"}


def test_every_step_of_the_walks_is_there():
    steps = _rows("walks.md")
    assert len(steps) > 15
    for _, file, name, _ in steps:
        assert name.strip("`") in (ROOT / file.strip("`")).read_text(encoding="utf-8"), (file, name)


def _tests() -> set[str]:
    """The names of all tests."""
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }


@pytest.mark.parametrize("page", ENGINES)
def test_every_test_of_an_engine_that_is_named_is_there(page: str):
    named = set(re.findall(r"`(test_\w+)`", (FOLDER / page).read_text(encoding="utf-8")))
    assert len(named) >= 10
    assert named <= _tests()


def test_the_page_on_processors_lists_every_fit_with_its_formula_degree_and_error():
    text = (FOLDER / "processors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([A-Z_]+)` \| (.+?) \| (.+?) \| (.+?) \|", text, flags=re.MULTILINE)
    known = []
    for name, fit in FITS.items():
        above, below = fit.degree
        error = f"{fit.error:.1e}".replace("e-0", "e-")
        known.append((name, fit.formula, f"{above} / {below}" if below else str(above), error))
    assert listed == known


@pytest.mark.parametrize("page", COLUMNS)
def test_every_row_names_a_test_that_is_there(page: str):
    there = _tests()
    rows = _rows(page)
    assert len(rows) >= 20
    for row in rows:
        *told, evidence = row
        assert len(row) == COLUMNS[page], row
        assert told[-1].endswith("."), row
        named = set(re.findall(r"`(test_\w+)`", evidence))
        assert named or evidence.startswith("by "), row
        assert named <= there, f"{named - there} of: {row}"
