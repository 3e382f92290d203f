"""Tables of real numbers, given as arrays or nested lists. Other values are refused, never converted.

NumPy converts many things to float64 that are no real numbers: it drops the imaginary part of complex values, counts
days since 1970 for dates, forgets the mask of masked arrays and parses text. Here each of these is an error.
"""

from __future__ import annotations

import numbers
from decimal import Decimal
from typing import Any

import numpy as np

from eftcore.errors import InputError

_NOT_REAL = {
    "c": ("complex", "give real numbers, for example the real and the imaginary part as features of their own"),
    "M": ("of dates (datetime)", "give real numbers, for example days since a date of your choice"),
    "m": ("of time spans (timedelta)", "give real numbers, for example seconds"),
    "V": ("a structured or raw array", "give one array of numbers, for example stacked from its fields"),
    "U": ("of text", "convert it to numbers"),
    "S": ("of bytes", "convert it to numbers"),
    "T": ("of text", "convert it to numbers"),
}
"""Kinds of numpy's dtypes that are not real numbers: the name of each in a message, and the remedy."""


def real_table(value: Any) -> np.ndarray:
    """A non-empty two-dimensional float64 array, every entry finite, of integers, floats or booleans (0 and 1).

    Numbers with more digits than float64 has are rounded to the nearest one; integers above 2^53 are among these.

    Args:
        value: an array or nested lists; objects in them may be fractions, decimals or long integers.

    Raises:
        InputError: complex numbers, dates, time spans, records, text or other objects; a masked array; not two
            dimensions; no entries; NaN, infinity, or a number beyond float64.

    >>> real_table([[1, 2.5]])
    array([[1. , 2.5]])
    >>> real_table([[1 + 2j]])
    Traceback (most recent call last):
    ...
    eftcore.errors.InputError: [[(1+2j)]]: is complex; give real numbers, for example the real and ...
    """
    if _is_masked(value):
        raise InputError(
            "is a masked array, whose masked entries have no value",
            remedy="fill them (array.filled(...)) or choose rows without any",
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"is not a table of numbers ({error})", value=value, remedy="give equal rows") from None
    if array.dtype.kind in _NOT_REAL:
        what, remedy = _NOT_REAL[array.dtype.kind]
        raise InputError(f"is {what}", value=value, remedy=remedy)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"has shape {array.shape} and must be a non-empty table of two dimensions, rows of numbers")
    with np.errstate(over="ignore"):
        real = _from_objects(array) if array.dtype.kind == "O" else np.array(array, dtype=np.float64)
    if not np.isfinite(real).all():
        row, column = np.argwhere(~np.isfinite(real))[0]
        entry = array[row, column]
        what = "is beyond double precision" if _is_finite(entry) else "is NaN or infinity"
        raise InputError(
            what,
            place=(int(row), int(column)),
            value=entry.item() if isinstance(entry, np.generic) else entry,
            remedy="remove or replace it",
        )
    return real


def _is_masked(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_masked(item) for item in value if isinstance(item, list | tuple | np.ma.MaskedArray))
    return isinstance(value, np.ma.MaskedArray)


def _from_objects(array: np.ndarray) -> np.ndarray:
    real = np.empty(array.shape)
    for place, item in np.ndenumerate(array):
        if not isinstance(item, numbers.Real | Decimal | np.bool_):
            raise InputError(f"is a {type(item).__name__}", place=place, value=item, remedy="give a real number")
        try:
            real[place] = float(item)
        except OverflowError:
            real[place] = np.inf
    return real


def _is_finite(item: Any) -> bool:
    """Whether an entry that became infinite as float64 is itself a finite number."""
    if isinstance(item, Decimal):
        return item.is_finite()
    return isinstance(item, numbers.Rational) or bool(np.isfinite(item))
