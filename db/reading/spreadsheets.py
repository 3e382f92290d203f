"""Text that a spreadsheet would take for a formula: in CSV files an apostrophe before it keeps it text.

A label or an error message may come from somebody else's archive, and a program that opens the file runs what begins
with one of these characters. Numbers begin with a sign too, and stay what they are.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)


def harmless(value: Any) -> Any:
    """The value, or the text with an apostrophe before it.

    >>> [harmless(value) for value in ("=1+1", "-inf", "tanh", -0.5, None)]
    ["'=1+1", '-inf', 'tanh', -0.5, None]
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A frame as CSV whose texts, column names among them, are no formulas."""
    return frame.map(harmless).rename(columns=harmless).to_csv(index=False).encode()
