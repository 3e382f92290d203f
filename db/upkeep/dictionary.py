"""What the columns of views and of the tables of a release mean: read from docs/data-dictionary.md."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]
_PLACES = (_HERE / "_docs" / "data-dictionary.md", _HERE.parent / "docs" / "data-dictionary.md")
"""In a wheel the page lies in the package, in a checkout in docs/."""

_SHARED = ("configuration", "v_windows", "v_precision")
"""Tables of the page that explain columns to which others only refer."""

_MARKER = "_nonfinite"


def meaning_of(table: str, column: str) -> str:
    """What the page says, as plain text, of a column of a view or of a table of a release ("release law").

    Raises KeyError for a column that the page does not explain; a test reads all of a release.

    >>> meaning_of("v_errors", "tolerance")
    'largest relative error (Frobenius norm over components) that counts as valid'
    """
    if column.endswith(_MARKER):
        return f"nan, inf or -inf where {column.removesuffix(_MARKER)} is such a number, and then empty there"
    said = [_meanings(place)[column] for place in (table, *_SHARED) if column in _meanings(place)]
    if not said:
        raise KeyError(f"{table}: {column}")
    return next((meaning for meaning, refers in said if not refers), said[0][0])


@cache
def _page() -> str:
    return next(path for path in _PLACES if path.is_file()).read_text(encoding="utf-8")


@cache
def _meanings(table: str) -> dict[str, tuple[str, bool]]:
    """The meaning of each column of one table of the page, and whether it only refers to another table."""
    _, _, after = _page().partition(f"<!-- columns: {table} -->\n")
    found = {}
    for line in after.split("\n\n", 1)[0].splitlines()[2:]:
        names, _, meaning = (cell.strip() for cell in line.strip().strip("|").split("|", 2))
        for name in re.findall(r"`(\w+)`", names):
            found[name] = _plain(meaning), " as in v_" in f" {meaning}"
    return found


def _plain(text: str) -> str:
    """Markdown without code marks and links."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "")
