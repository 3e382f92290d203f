"""Column types that mean the same on SQLite and PostgreSQL, and the stored form of numbers and arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from eftcore.errors import InputError

Json = sa.JSON().with_variant(JSONB(), "postgresql")


class UTCDateTime(sa.TypeDecorator[datetime]):
    """A point in time, in UTC when written and when read. Refuses a datetime without a time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise InputError("has no time zone", place="time", value=value.isoformat(), remedy="use datetime.now(UTC)")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class utc_now(FunctionElement[datetime]):
    """The time by the clock of the database, so that rows written by several machines are ordered correctly."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(utc_now, "postgresql")
def _now_postgresql(element: utc_now, compiler: Any, **_options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(utc_now, "sqlite")
def _now_sqlite(element: utc_now, compiler: Any, **_options: Any) -> str:
    # CURRENT_TIMESTAMP has whole seconds; six digits, because SQLite compares times as text
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


NONFINITE = ("nan", "inf", "-inf")
_LARGEST = "1.7976931348623157e308"


def is_finite(column: str) -> str:
    """SQL condition that a number is absent or finite (PostgreSQL sorts NaN above every number)."""
    return f"{column} IS NULL OR {column} BETWEEN -{_LARGEST} AND {_LARGEST}"


def split_nonfinite(values: Iterable[float]) -> tuple[list[float | None], list[str | None]]:
    """Stored form of numbers: (number or None, None or "nan" | "inf" | "-inf"), because SQLite turns NaN into NULL.

    >>> split_nonfinite([1.5, float("nan"), float("-inf")])
    ([1.5, None, None], [None, 'nan', '-inf'])
    """
    array = np.asarray(values, dtype=float)
    numbers: list[float | None] = array.tolist()
    markers: list[str | None] = [None] * len(numbers)
    for index in np.flatnonzero(~np.isfinite(array)):
        numbers[index], markers[index] = None, nonfinite_name(array[index])
    return numbers, markers


def nonfinite_name(value: float) -> str | None:
    """None for a finite number, else its stored name."""
    if math.isfinite(value):
        return None
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def plain_json(value: Any) -> Any:
    """JSON-able copy: numpy scalars and arrays become plain, non-finite numbers their names (JSON has none).

    >>> plain_json({"truncation": float("inf"), "order": np.int64(24)})
    {'truncation': 'inf', 'order': 24}
    """
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, float):
        return nonfinite_name(value) or value
    return value


def pack(array: np.ndarray) -> bytes:
    """Raw little-endian float64, row-major."""
    return np.ascontiguousarray(array, dtype="<f8").tobytes()


def unpack(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of pack: a fresh, writable float64 array."""
    return np.frombuffer(data, dtype="<f8").reshape(shape).astype(float)
