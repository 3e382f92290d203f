"""Tables of real numbers in ``.csv`` and ``.npy`` files. A file that is ambiguous is refused, with the row and cell.

A lenient reader changes many tables without a word: a first row with a gap becomes a header, a blank line disappears,
the second array of a file is never seen. Here each of these is an error.
"""

from __future__ import annotations

import csv
import io
import math
import re
import tokenize
from pathlib import Path, PurePath

import numpy as np

from eftcore.errors import InputError, within
from eftcore.inputs.sizes import LARGEST_ARRAY
from eftcore.inputs.tables import real_table

SUFFIXES = (".npy", ".csv")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LIKE_A_NUMBER = re.compile(
    r"[-+\u2212(]*\s*[$\u20ac\u00a3]?\s*(0[xX][0-9a-fA-F]+|[\d.,][\d.,:/'_\s\u2212+-]*([eEdD^*][-+^*\d]*)?)\s*[%)ij$\u20ac\u00a3]*"
)
_MISSING = {"nan", "null", "none", "n/a", "#n/a", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "-nan"}
_MISSING_AS_WRITTEN = {"NA", "-", "--", "?", "."}  # but "Na" may be the name of a column
_NO_HEADER = (ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError, RecursionError, MemoryError)
"""What numpy raises where the header of a .npy file is not the Python literal that it should be."""
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_table(path: Path) -> np.ndarray:
    """(rows, columns) float64 from a ``.npy`` or ``.csv`` file; see ``parse_table``.

    Raises InputError as ``parse_table`` does, and where the file is missing or cannot be read.
    """
    with within(path):
        if path.suffix.lower() not in SUFFIXES:
            raise InputError("must end in .npy or .csv")
        if not path.is_file():
            raise InputError(
                "there is no such file", remedy="check the path, which in a study file starts at that file's folder"
            )
        try:
            if path.stat().st_size > LARGEST_ARRAY:
                raise InputError(f"is larger than {LARGEST_ARRAY / 1e9:g} GB", remedy="save the rows meant")
            content = path.read_bytes()
        except OSError as error:
            raise InputError(error.strerror or str(error), remedy="make it readable") from None
    return parse_table(content, path)


def parse_table(content: bytes, path: PurePath) -> np.ndarray:
    """(rows, columns) float64 from the bytes of a ``.npy`` or ``.csv`` file; its path tells which.

    CSV: UTF-8, with or without a byte-order mark; cells between commas, with points as decimal marks, quoted or not. A
    first row without a number and without an empty cell is a header and skipped. ``.npy``: one array of real numbers of
    any width, byte order or memory order; nothing in the file is run.

    Raises InputError for any other content. Its place is the path with the row and the cell, both counted from 1, where
    a header counts as a row.

    >>> parse_table(b"x,y\\n1,2\\n3,4\\n", PurePath("data.csv"))
    array([[1., 2.],
           [3., 4.]])
    >>> parse_table(b",2\\n3,4\\n", PurePath("data.csv"))
    Traceback (most recent call last):
    ...
    eftcore.errors.InputError: data.csv: row 1, cell 1: is empty; give a number in every cell, ...
    """
    with within(path):
        return real_table(_npy(content) if path.suffix.lower() == ".npy" else _csv(content))


def _npy(content: bytes) -> np.ndarray:
    if content.startswith(b"PK"):
        raise InputError("is a .npz archive, which may hold several arrays", remedy="save the one meant as .npy")
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"format version {version[0]}.{version[1]}")
        shape, _, dtype = read_header(file)
    except _NO_HEADER as error:
        raise InputError(
            f"is not a .npy file of one array ({_line(error)})", remedy="write it with numpy.save"
        ) from None
    if dtype.hasobject:
        raise InputError("holds Python objects (pickled), which are not read", remedy="save an array of numbers")
    if any(length < 1 for length in shape):
        raise InputError(f"has shape {shape} and must be a non-empty table", remedy="save rows of numbers")
    held, wanted = len(content) - file.tell(), math.prod(shape) * dtype.itemsize
    if held != wanted:
        problem = "is cut short" if held < wanted else "holds more than one array"
        raise InputError(
            f"{problem} ({held} bytes where shape {shape} of {dtype} takes {wanted})",
            remedy="save one whole array",
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _csv(content: bytes) -> list[list[float]]:
    rows = _rows(content)
    if not rows:
        raise InputError("is empty", remedy="give one input per row, numbers between commas")
    _refuse_another_separator(rows)
    first = 1 if _is_header(rows[0]) else 0
    if len(rows) == first:
        raise InputError("has a header and no rows of numbers", remedy="give one input per row")
    width = len(rows[0])
    table = []
    for number, row in enumerate(rows[first:], first + 1):
        if not row:
            raise InputError("is empty", place=f"row {number}", remedy="remove it, or give its numbers")
        values = [_value(cell, number, place) for place, cell in enumerate(row, 1)]
        if len(row) != width:
            raise InputError(
                f"has {len(row)} cells, row 1 has {width}", place=f"row {number}", remedy="give equal rows"
            )
        table.append(values)
    return table


def _rows(content: bytes) -> list[list[str]]:
    """Rows of cells, blanks around each cell removed. Blank lines at the end are dropped; others are empty rows."""
    if content.startswith(_BYTE_ORDER_MARKS) or b"\0" in content:
        raise InputError("is not UTF-8 text (UTF-16, or no text at all)", remedy="save it as CSV in UTF-8")
    try:
        text = content.decode("utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True)]
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text (byte {error.start})", remedy="save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"is not a table with commas between cells ({error})", remedy="save it as plain CSV") from None
    rows = [[] if row == [""] else row for row in rows]
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _refuse_another_separator(rows: list[list[str]]) -> None:
    """Raises InputError where cells are separated by another character than a comma.

    The first two rows are looked at, since a header of one column may contain any character.
    """
    for number, row in enumerate(rows[:2], 1):
        for place, cell in enumerate(row, 1):
            for separator, called in ((";", "semicolons"), ("\t", "tabs")):
                parts = cell.split(separator) if separator in cell else []
                if any(_LIKE_A_NUMBER.fullmatch(part.strip()) for part in parts):
                    raise InputError(
                        f"has {called} between numbers",
                        place=f"row {number}, cell {place}",
                        value=cell,
                        remedy="separate cells by commas, and write decimals with a point",
                    )


def _is_header(row: list[str]) -> bool:
    if not row:
        raise InputError("is empty", place="row 1", remedy="begin with the numbers or with the names of the columns")
    if any(cell == "" or _NUMBER.fullmatch(cell) for cell in row):
        return False
    for place, cell in enumerate(row, 1):
        if _is_missing(cell) or _LIKE_A_NUMBER.fullmatch(cell):
            _value(cell, 1, place)
    return True


def _is_missing(cell: str) -> bool:
    return cell.lower() in _MISSING or cell in _MISSING_AS_WRITTEN


def _value(cell: str, row: int, place: int) -> float:
    where = f"row {row}, cell {place}"
    if cell == "":
        raise InputError(
            "is empty",
            place=where,
            remedy="give a number in every cell, no comma at the end of a row, and a name for every column of a header",
        )
    if _is_missing(cell):
        raise InputError("is no finite number", place=where, value=cell, remedy="remove or replace that row")
    if not _NUMBER.fullmatch(cell):
        raise InputError(
            "is not a number",
            place=where,
            value=cell,
            remedy="write numbers as 1234.5 or 1.2345e3, separated by commas",
        )
    value = float(cell)
    if not math.isfinite(value) or (value == 0 and re.search("[1-9]", re.split("[eE]", cell)[0])):
        raise InputError(
            "is beyond double precision (1e-308 to 1e308)", place=where, value=cell, remedy="rescale the data"
        )
    return value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
