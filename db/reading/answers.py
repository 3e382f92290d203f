"""Answers of SQL as frames: every column is kept under a unique name, and integers keep all their digits."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pandas as pd

_INT64 = range(-(2**63), 2**63)


def answer_frame(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Rows of an answer as a frame.

    A repeated column name, which joins produce, gets a number: ``run_id``, ``run_id_2``. Columns of whole numbers stay
    whole, also with absent values (Int64, or Python's integers where they are longer); other numbers are float64.

    >>> answer_frame(["n", "n"], [(2**53 + 1, 0.5), (None, 1)]).to_dict("list")
    {'n': [9007199254740993, None], 'n_2': [0.5, 1.0]}
    """
    by_column = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return pd.DataFrame(
        {name: _series(values) for name, values in zip(unique_names(columns), by_column, strict=True)},
        index=pd.RangeIndex(len(rows)),
    )


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, where a repeated name gets the lowest number that is free.

    >>> unique_names(["a", "a", "a_2", "a"])
    ['a', 'a_3', 'a_2', 'a_4']
    """
    taken, found = set(names), []
    for name in names:
        chosen, number = name, 2
        while chosen in found or (chosen != name and chosen in taken):
            chosen, number = f"{name}_{number}", number + 1
        found.append(chosen)
    return found


def _series(values: Sequence[Any]) -> pd.Series[Any]:
    there = [value for value in values if value is not None]
    if not there or not all(
        isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in there
    ):
        return pd.Series(list(values), dtype=None if there else "object")
    if not all(_is_whole(value) for value in there):
        return pd.Series([None if value is None else float(value) for value in values], dtype="float64")
    whole = [None if value is None else int(value) for value in values]
    if any(value is not None and value not in _INT64 for value in whole):
        return pd.Series(whole, dtype="object")
    return pd.Series(whole, dtype="int64" if len(there) == len(values) else "Int64")


def _is_whole(value: Any) -> bool:
    """Whether the value is an integer, or a decimal without decimal places, as PostgreSQL returns sums of integers."""
    return isinstance(value, int) or (
        isinstance(value, Decimal) and value.is_finite() and value.as_tuple().exponent == 0
    )
