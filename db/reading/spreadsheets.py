"""Texts in CSV files that a spreadsheet would take for formulas; an apostrophe before such a text keeps it a text.

A label or an error message may come from another user's archive, and a spreadsheet runs a text that begins with one of
the characters below as a formula. Numbers may begin with a sign too; they are left unchanged.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)


def harmless(value: Any) -> Any:
    """The value; a text that a spreadsheet would take for a formula gets an apostrophe before it.

    >>> [harmless(value) for value in ("=1+1", "-inf", "tanh", -0.5, None)]
    ["'=1+1", '-inf', 'tanh', -0.5, None]
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A frame as CSV in which no text and no column name is a formula."""
    return frame.map(harmless).rename(columns=harmless).to_csv(index=False).encode()
