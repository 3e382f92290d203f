"""Each row of docs/design/security.md and faults.md names a test that is there, or says why there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "design"
COLUMNS = {"security.md": 2, "faults.md": 3}


def _rows(page: str) -> list[list[str]]:
    """The cells of each row below the head of its table."""
    text = (FOLDER / page).read_text(encoding="utf-8")
    bodies = re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for body in bodies for row in body.splitlines()]


def test_every_page_is_looked_at():
    assert {path.name for path in FOLDER.iterdir()} == set(COLUMNS)


@pytest.mark.parametrize("page", COLUMNS)
def test_every_row_names_a_test_that_is_there(page: str):
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    rows = _rows(page)
    assert len(rows) >= 20
    for row in rows:
        *told, evidence = row
        assert len(row) == COLUMNS[page], row
        assert told[-1].endswith("."), row
        named = set(re.findall(r"`(test_\w+)`", evidence))
        assert named or evidence.startswith("by "), row
        assert named <= there, f"{named - there} of: {row}"
