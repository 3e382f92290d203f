"""Archives that are damaged or forged, made of a good one."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import itertools
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.upkeep.archive import TABLES
from eftcore.identity import digest_of

Members = dict[str, bytes]


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def sealed(members: Members) -> Members:
    """With checksums and counts that fit, as a forger would make them."""
    manifest = json.loads(members["manifest.json"])
    for moved in TABLES:
        data = members[f"{moved.name}.parquet"]
        manifest["sha256"][moved.name] = hashlib.sha256(data).hexdigest()
        with contextlib.suppress(pa.ArrowException, OSError):
            manifest["rows"][moved.name] = pq.ParquetFile(io.BytesIO(data)).metadata.num_rows
    return {**members, "manifest.json": json.dumps(manifest).encode()}


def table_of(members: Members, name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(members[f"{name}.parquet"]))


def with_table(members: Members, name: str, table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return zipped(sealed({**members, f"{name}.parquet": file.getvalue()}))


def forged(name: str, column: str, value: Any, kind: pa.DataType | None = None, row: int = 0):
    """One value of one row is another one; with ``kind``, the whole column is of another type."""

    def make(members: Members) -> bytes:
        table = table_of(members, name)
        position = table.schema.get_field_index(column)
        values = table.column(column).to_pylist()
        old = values[row]
        values[row] = value(old) if callable(value) else value
        if kind is not None:
            values = [values[row]] * len(values)
        array = pa.array(values, kind or table.schema.field(position).type)
        return with_table(members, name, table.set_column(position, column, array))

    return make


def json_changed(name: str, column: str, change: Callable[[Any], Any], row: int = 0):
    def changed(text: str) -> str:
        value = copy.deepcopy(json.loads(text))
        return json.dumps(change(value))

    return forged(name, column, changed, row=row)


def rows_changed(name: str, change: Callable[[pa.Table], pa.Table]):
    return lambda members: with_table(members, name, change(table_of(members, name)))


def one_more(table: pa.Table, column: str) -> pa.Table:
    """One more in every row that has a number there."""
    position = table.schema.get_field_index(column)
    values = [None if value is None else value + 1 for value in table.column(column).to_pylist()]
    return table.set_column(position, column, pa.array(values, table.schema.field(position).type))


def by_another(table: pa.Table) -> pa.Table:
    """Widths that follow from a prediction without the next order, it says."""
    references = set(table.column("reference_run_id").to_pylist())
    other = next(run for run in table.column("prediction_run_id").to_pylist() if run not in references)
    position = table.schema.get_field_index("reference_run_id")
    return table.set_column(position, "reference_run_id", pa.array([other] * len(table), pa.string()))


def manifest_changed(change: Callable[[dict[str, Any]], Any]):
    def make(members: Members) -> bytes:
        manifest = json.loads(members["manifest.json"])
        changed = change(manifest)
        return zipped({**members, "manifest.json": json.dumps(manifest if changed is None else changed).encode()})

    return make


def said_to_be_of_format_3(members: Members) -> bytes:
    """With the tables of that format, but not its columns."""
    manifest = {**json.loads(members["manifest.json"]), "format": 3}
    later = ("kernel_quantiles", "width_windows", "module_checks", "checked_blocks")
    for part, name in itertools.product(("rows", "sha256"), later):
        del manifest[part][name]
    older = {name: data for name, data in members.items() if PurePath(name).stem not in later}
    return zipped({**older, "manifest.json": json.dumps(manifest).encode()})


def member_replaced(name: str, data: bytes | None):
    def make(members: Members) -> bytes:
        others = {key: value for key, value in members.items() if key != name}
        return zipped(others if data is None else {**others, name: data})

    return make


def garbled(offset: int):
    def make(members: Members) -> bytes:
        whole = bytearray(zipped(members))
        whole[offset : offset + 8] = b"\xff" * 8
        return bytes(whole)

    return make


def encrypted(members: Members) -> bytes:
    whole = bytearray(zipped(members))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = whole.find(mark)
        while start >= 0:
            whole[start + place] |= 1
            start = whole.find(mark, start + 4)
    return bytes(whole)


def lying_size(members: Members) -> bytes:
    """The directory says that the manifest is small; it is not."""
    whole = bytearray(zipped({**members, "manifest.json": b" " * 500_000}))
    start = whole.rfind(b"PK\x01\x02")
    whole[start + 24 : start + 28] = struct.pack("<I", 100)
    return bytes(whole)


def a_member_twice(members: Members) -> bytes:
    file = io.BytesIO(zipped(members))
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("runs.parquet", members["runs.parquet"])
    return file.getvalue()


def quantile_of_a_prediction(members: Members) -> bytes:
    kinds, digests = (table_of(members, "runs").column(name).to_pylist() for name in ("kind", "digest"))
    return forged("kernel_quantiles", "run_id", digests[kinds.index("prediction")])(members)


def check_of_a_prediction(table: str):
    def make(members: Members) -> bytes:
        kinds, digests = (table_of(members, "runs").column(name).to_pylist() for name in ("kind", "digest"))
        return forged(table, "run_id", digests[kinds.index("prediction")])(members)

    return make


def deep(text: str) -> str:
    return "{" + '"a":{' * 100_000 + "}" * 100_001


def other_kernel(members: Members) -> bytes:
    """A kernel with a digest of its own that is no kernel: not positive semi-definite."""
    matrix = [[1.0, 3.0], [3.0, 1.0]]
    table = table_of(members, "input_kernels")
    row = {**table.to_pylist()[0], "matrix": json.dumps(matrix), "digest": digest_of({"matrix": matrix})}
    return with_table(members, "input_kernels", pa.Table.from_pylist([row], schema=table.schema))
