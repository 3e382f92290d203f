"""Each statement of docs/design/security.md names a test that is there, or says why there is none."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "design" / "security.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+\.) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)


def test_every_statement_names_a_test_that_is_there():
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert len(ROWS) >= 20
    assert len(ROWS) == len([line for line in PAGE.splitlines() if line.startswith("| ") and line != "| | |"])
    for statement, evidence in ROWS:
        named = set(re.findall(r"`(test_\w+)`", evidence))
        assert named or evidence.startswith("by "), statement
        assert named <= there, f"{named - there} of: {statement}"
