"""Tables of inputs: each way to write one is read right, or refused with the place, the value and what to do."""

from __future__ import annotations

import datetime
import io
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import pytest

import eftcore as eft
from eftcore.errors import InputError
from eftcore.inputs.files import parse_table, read_table

WANTED = [[1.5, 2.0], [3.0, -4.0]]

READ = {
    "plain": b"1.5,2\n3,-4\n",
    "a header": b"x,y\n1.5,2\n3,-4\n",
    "a header of quoted names": b'"x, in mm","y"\n1.5,2\n3,-4\n',
    "a header with figures in its names": b"1x1,1x2\n1.5,2\n3,-4\n",
    "a header as numpy writes it": b"# x,y\n1.5,2\n3,-4\n",
    "a header named after sodium": b"Na,Cl\n1.5,2\n3,-4\n",
    "the same name twice": b"x,x\n1.5,2\n3,-4\n",
    "a byte-order mark": b"\xef\xbb\xbf1.5,2\n3,-4\n",
    "a byte-order mark and a header": b"\xef\xbb\xbfx,y\n1.5,2\n3,-4\n",
    "a byte-order mark and quotes": b'\xef\xbb\xbf"1.5","2"\n"3","-4"\n',
    "lines of Windows": b"1.5,2\r\n3,-4\r\n",
    "lines of an old Macintosh": b"1.5,2\r3,-4\r",
    "no last line end": b"1.5,2\n3,-4",
    "blank lines at the end": b"1.5,2\n3,-4\n\n  \n",
    "blanks around cells": b" 1.5 ,\t2\n3, -4\n",
    "quoted numbers": b'"1.5","2"\n"3","-4"\n',
    "other forms of numbers": b"+1.5e0,.2E+1\n3.,-4.0\n",
}


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_a_csv_file_is_read(content: bytes) -> None:
    assert parse_table(content, PurePath("data.csv")).tolist() == WANTED


def test_one_column_is_one_feature() -> None:
    assert parse_table(b"x\n1\n2\n", PurePath("data.csv")).tolist() == [[1.0], [2.0]]


def test_integers_of_many_digits_are_rounded_to_the_nearest_double() -> None:
    wanted = [[float(2**53 + 3), 1e20]]
    assert parse_table(b"9007199254740995,100000000000000000000", PurePath("data.csv")).tolist() == wanted
    assert eft.InputKernel.from_data([[2**53 + 3]]).matrix == ((float(2**53 + 3) ** 2,),)


REFUSED: list[tuple[str, bytes, list[str]]] = [
    ("an empty cell in the first row", b",2\n3,4\n", ["row 1, cell 1", "empty"]),
    ("the same after a byte-order mark", b"\xef\xbb\xbf1,\n3,4\n", ["row 1, cell 2", "empty"]),
    ("an index column without a name", b",x,y\n0,1,2\n1,3,4\n", ["row 1, cell 1", "empty", "name"]),
    ("NA in the first row", b"NA,2\n3,4\n", ["row 1, cell 1 = 'NA'", "no finite number"]),
    ("nothing but NA in the first row", b"NA,NA\n3,4\n", ["row 1, cell 1 = 'NA'"]),
    ("nan in the first row", b"nan,nan\n3,4\n", ["row 1, cell 1 = 'nan'"]),
    ("inf", b"1,2\n3,inf\n", ["row 2, cell 2 = 'inf'", "no finite number"]),
    ("a word among numbers", b"1,two\n3,4\n", ["row 1, cell 2 = 'two'", "not a number"]),
    ("a later empty cell", b"x,y\n1,2\n,4\n", ["row 3, cell 1", "empty"]),
    ("a comma at the end of rows", b"1,2,\n3,4,\n", ["row 1, cell 3", "empty", "no comma at the end"]),
    ("a row of commas", b"1,2\n,\n3,4\n", ["row 2, cell 1", "empty"]),
    ("a blank line between", b"1,2\n\n3,4\n", ["row 2: is empty"]),
    ("a blank line first", b"\nx,y\n3,4\n", ["row 1: is empty"]),
    ("unequal rows", b"1,2\n3\n", ["row 2: has 1 cells, row 1 has 2"]),
    ("a header that is too short", b"x\n1,2\n3,4\n", ["row 2: has 2 cells, row 1 has 1"]),
    ("two lines of header", b"x,y\nmm,mm\n1,2\n", ["row 2, cell 1 = 'mm'"]),
    ("the header once more", b"x,y\n1,2\nx,y\n3,4\n", ["row 3, cell 1 = 'x'"]),
    ("a note", b"1,2\n3,4 # good\n", ["row 2, cell 2 = '4 # good'"]),
    ("semicolons", b"1;2\n3;4\n", ["row 1, cell 1 = '1;2'", "semicolons", "commas"]),
    ("semicolons below a header", b"x;y\n3;4\n", ["row 2, cell 1 = '3;4'", "semicolons"]),
    ("semicolons and decimal commas", b"1,5;2,5\n3,5;4,5\n", ["row 1, cell 2 = '5;2'", "semicolons", "point"]),
    ("tabs", b"1\t2\n3\t4\n", ["row 1, cell 1 = '1\\t2'", "tabs"]),
    ("blanks", b"1 2\n3 4\n", ["row 1, cell 1 = '1 2'", "separated by commas"]),
    ("quoted decimal commas", b'"1,5","2,5"\n"3,5","4,5"\n', ["row 1, cell 1 = '1,5'", "1234.5"]),
    ("thousands", b'"1,000","2"\n3,4\n', ["row 1, cell 1 = '1,000'"]),
    ("thousands alone in the first row", b'"1,000"\n2\n', ["row 1, cell 1 = '1,000'"]),
    ("thousands with underscores", b"1_000,2\n3,4\n", ["row 1, cell 1 = '1_000'"]),
    ("hexadecimal numbers", b"0x10,0x20\n3,4\n", ["row 1, cell 1 = '0x10'"]),
    ("percents", b"10%,20%\n3,4\n", ["row 1, cell 1 = '10%'"]),
    ("money", "5 €,$6\n3,4\n".encode(), ["row 1, cell 1 = '5 €'"]),
    ("complex numbers", b"1+2j,3-1j\n3,4\n", ["row 1, cell 1 = '1+2j'"]),
    ("dates", b"2020-01-01,2021-01-01\n3,4\n", ["row 1, cell 1 = '2020-01-01'"]),
    ("a minus sign of print", "\u22121,\u22122\n3,4\n".encode(), ["row 1, cell 1"]),
    ("the exponent of Fortran", b"1D3,2D3\n3,4\n", ["row 1, cell 1 = '1D3'"]),
    ("digits of another script", "\u0661,\u0662\n3,4\n".encode(), ["row 1, cell 1"]),
    ("a number beyond double precision", b"1e400,2\n3,4\n", ["row 1, cell 1 = '1e400'", "beyond double precision"]),
    ("a number below double precision", b"1e-400,2\n3,4\n", ["row 1, cell 1 = '1e-400'", "rescale"]),
    ("nothing", b"", ["is empty"]),
    ("blanks only", b"\n \n", ["is empty"]),
    ("a byte-order mark only", b"\xef\xbb\xbf", ["is empty"]),
    ("a header only", b"x,y\n", ["a header and no rows"]),
    ("UTF-16", "1,2\n".encode("utf-16"), ["not UTF-8"]),
    ("UTF-16 without a mark", "1,2\n".encode("utf-16-le"), ["not UTF-8"]),
    ("Latin-1", b"\xe4,b\n1,2\n", ["not UTF-8", "byte 0"]),
    ("an open quote", b'"1,2\n3,4\n', ["commas between cells"]),
    ("text behind a quote", b'"1"x,2\n', ["commas between cells"]),
    ("a cell without end", b"1" * 200_000, ["commas between cells"]),
]


@pytest.mark.parametrize(("content", "parts"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_csv_file_is_refused(content: bytes, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_table(content, PurePath("data.csv"))
    message = str(caught.value)
    assert message.startswith("data.csv: ")
    assert [part for part in parts if part not in message] == [], message
    assert len(message.splitlines()) == 1


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


ARRAYS: dict[str, Any] = {
    "float64": np.array(WANTED),
    "float16": np.array(WANTED, np.float16),
    "long double": np.array(WANTED, np.longdouble),
    "big-endian": np.array(WANTED, ">f8"),
    "Fortran order": np.asfortranarray(WANTED),
    "a view": np.repeat(np.repeat(WANTED, 2, axis=0), 2, axis=1)[::2, ::2],
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_is_read(array: np.ndarray) -> None:
    kernel = (np.array(WANTED) @ np.array(WANTED).T / 2).tolist()
    assert parse_table(npy(array), PurePath("data.npy")).tolist() == WANTED
    assert eft.InputKernel.from_data(array).array.tolist() == kernel


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int64, bool])
def test_products_of_integers_do_not_overflow(dtype: type) -> None:
    largest = 1 if dtype is bool else int(np.iinfo(dtype).max)
    matrix = eft.InputKernel.from_data(np.array([[largest, largest]], dtype)).matrix
    assert matrix == ((float(largest) ** 2,),)


@pytest.mark.parametrize(
    "data",
    [
        [[Fraction(3, 2), 2], [3, -4]],
        [[Decimal("1.5"), 2], [3, -4]],
        np.array(WANTED, dtype=object),
        pd.DataFrame(WANTED, columns=["x", "y"]),
        [np.array(WANTED[0]), tuple(WANTED[1])],
        np.asarray(WANTED).view(np.matrix),
    ],
    ids=["fractions", "decimals", "objects", "frame", "nested", "matrix"],
)
def test_other_tables_of_real_numbers_are_read(data: Any) -> None:
    assert eft.InputKernel.from_data(data) == eft.InputKernel.from_data(WANTED)


NOT_REAL: list[tuple[str, Any, list[str]]] = [
    ("complex", np.array([[1 + 2j, 0]]), ["complex", "real"]),
    ("complex without imaginary part", np.array([[1 + 0j]]), ["complex"]),
    ("nested complex", [[1.0, 2j]], ["complex"]),
    ("complex objects", np.array([[1 + 2j]], dtype=object), ["[0][0]", "complex"]),
    ("dates", np.array([["2020-01-01"]], "datetime64[D]"), ["datetime", "days since"]),
    ("date objects", [[datetime.date(2020, 1, 1)]], ["date"]),
    ("a frame of dates", pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}), ["datetime"]),
    ("time spans", np.array([[1, 2]], "timedelta64[s]"), ["timedelta", "seconds"]),
    ("records", np.array([[(1.0, 2.0)]], dtype=[("x", float), ("y", float)]), ["structured"]),
    ("a masked array", np.ma.array([[1.0, 9.0]], mask=[[False, True]]), ["masked", "filled"]),
    ("masked rows in a list", [np.ma.array([1.0, 9.0], mask=[False, True])], ["masked"]),
    ("a masked value in a list", [[1.0, np.ma.masked]], ["masked"]),
    ("text", np.array([["1.5", "2"]]), ["text", "convert"]),
    ("text in a list", [[1.5, "2"]], ["text"]),
    ("bytes", np.array([[b"1.5"]]), ["bytes"]),
    ("text objects", np.array([[1.5, "2"]], dtype=object), ["[0][1]", "'2'", "str"]),
    ("None", [[1.0, None]], ["[0][1]", "NoneType"]),
    ("a missing value of pandas", pd.DataFrame({"x": pd.array([1, None], "Int64")}), ["[1][0]"]),
    ("NaN", [[1.0, np.nan]], ["[0][1]", "NaN"]),
    ("infinity", [[1.0], [np.inf]], ["[1][0]", "infinity"]),
    ("an overflow of float16", np.array([[np.inf]], np.float16), ["[0][0]", "infinity"]),
    ("an integer beyond double precision", [[10**400]], ["[0][0]", "beyond double precision"]),
    ("a decimal that is no number", [[Decimal("NaN")]], ["[0][0]", "NaN"]),
    ("unequal rows", [[1.0, 2.0], [3.0]], ["equal rows"]),
    ("one dimension", [1.0, 2.0], ["shape (2,)", "two dimensions"]),
    ("three dimensions", np.zeros((2, 2, 2)), ["shape (2, 2, 2)"]),
    ("no rows", [], ["shape (0,)"]),
    ("no features", [[], []], ["shape (2, 0)"]),
    ("a function", len, ["shape ()"]),
    ("a dictionary", {"x": [1.0]}, ["shape ()"]),
]


@pytest.mark.parametrize(("data", "parts"), [case[1:] for case in NOT_REAL], ids=[case[0] for case in NOT_REAL])
@pytest.mark.parametrize("make", [eft.InputKernel.from_data, eft.InputKernel.explicit], ids=["data", "matrix"])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_what_is_no_table_of_real_numbers_is_refused(make: Any, data: Any, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        make(data)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
    assert len(message.splitlines()) == 1


WRONG_FILES: list[tuple[str, bytes, list[str]]] = [
    ("complex", npy(np.array([[1 + 2j]])), ["complex"]),
    ("dates", npy(np.array([["2020-01-01"]], "datetime64[D]")), ["datetime"]),
    ("records", npy(np.array([(1.0, 2)], dtype=[("x", float), ("y", int)])), ["structured"]),
    ("text", npy(np.array([["1"]])), ["text"]),
    ("pickled objects", npy(np.array([[object()]]), allow_pickle=True), ["objects", "not read"]),
    ("two arrays", npy(np.array(WANTED)) * 2, ["more than one array"]),
    ("cut short", npy(np.array(WANTED))[:-8], ["cut short", "24 bytes"]),
    ("a header that lies", npy(np.zeros((1, 1))).replace(b"(1, 1)", b"(9**9,"), [".npy"]),
    ("a header of a giant", npy(np.zeros((100000, 0))).replace(b"(100000, 0)", b"(1000000,9)"), ["cut short"]),
    ("text of Python", b"import os", [".npy"]),
    ("nothing", b"", [".npy"]),
]


@pytest.mark.parametrize(
    ("content", "parts"), [case[1:] for case in WRONG_FILES], ids=[case[0] for case in WRONG_FILES]
)
def test_a_npy_file_is_refused(content: bytes, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_table(content, PurePath("data.npy"))
    message = str(caught.value)
    assert message.startswith("data.npy")
    assert [part for part in parts if part not in message] == [], message


def test_an_archive_of_arrays_is_refused_under_either_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((1, 1)), y=np.ones((1, 1)))
    with pytest.raises(InputError, match=r"must end in \.npy or \.csv"):
        read_table(tmp_path / "data.npz")
    (tmp_path / "data.npz").rename(tmp_path / "data.NPY")
    with pytest.raises(InputError, match="several arrays"):
        read_table(tmp_path / "data.NPY")


@pytest.mark.parametrize("value", [1e200, 1e-200])
def test_squares_that_overflow_or_vanish_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=rf"data\[1\]: .* {value:.3g}".replace("+", r"\+") + ".*squares.*rescale"):
        eft.InputKernel.from_data([[0.0, 1.0], [value, 0.0]])


def test_a_kernel_of_giants_is_refused() -> None:
    with pytest.raises(InputError, match=r"entries up to 1\.7e\+308; rescale"):
        eft.InputKernel.explicit([[1.7e308]])


@pytest.mark.parametrize(
    "fields",
    [
        {"n_inputs": "2"},
        {"n_inputs": True},
        {"n_inputs": 1.5},
        {"n_inputs": np.nan},
        {"variance": "1"},
        {"variance": 1j},
        {"variance": None},
        {"correlation": "0"},
        {"correlation": [0.5]},
        {"correlation": np.ma.masked},
    ],
    ids=str,
)
def test_equicorrelated_inputs_take_numbers(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(InputError, match=f"^{name} = "):
        eft.InputKernel.equicorrelated(**{"n_inputs": 2, "variance": 1.0, "correlation": 0.0, **fields})


@pytest.mark.parametrize("value", [np.complex128(0.1 + 5j), 0.1 + 0j, True, np.bool_(True), np.timedelta64(5, "D")])
def test_a_field_takes_real_numbers(value: Any) -> None:
    with pytest.raises(InputError, match="epsilon"):
        eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=value, depth=4)
