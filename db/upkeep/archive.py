"""The archive by which results move between databases: a zip file of one Parquet file for each table and a manifest.

Rows refer to each other by digests, since ids belong to one database; so archives with equal contents are equal,
whatever database they come from. The manifest holds the sha256 and the number of rows of each table. These reveal
damage, but not a deliberate change (db/upkeep/arriving.py). Nothing in an archive is compressed by zip, so that
reading it cannot take more memory than its size; sizes are checked before anything is read.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from db.schema.models import (
    Base,
    CheckedBlockRow,
    ComparisonRow,
    Configuration,
    ErrorMetric,
    Kernel,
    KernelQuantile,
    KernelTrajectory,
    ModuleCheck,
    Run,
    SimulationPrecision,
    Study,
    StudyRun,
    TrajectoryValue,
    ValidityWindow,
    WidthWindow,
)
from db.schema.statements import table_of
from db.schema.types import UTCDateTime
from eftcore.errors import InputError
from eftcore.identity import canonical_json

FORMAT = 11
_UNTIL_3 = {"wall_seconds": "worker_seconds"}
RENAMED: Mapping[int, Mapping[str, str]] = {
    1: {"simulation_run_id": "reference_run_id", **_UNTIL_3},
    2: _UNTIL_3,
    3: _UNTIL_3,
    4: {},
    5: {},
    6: {},
    7: {},
    8: {},
    9: {},
    10: {},
}
"""Present names of columns by the name that each older format has for them, for every table with such a column."""
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 100_000
"""Most bytes of a manifest; one written by this program has about 1500."""
ROWS_LIMIT = 1_000_000_000
"""Most rows of one table."""
ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Moved:
    """A table in an archive: ids in ``references`` (column: model) are replaced by digests, its own id is left out.

    Archives of formats before ``since`` do not have it.
    """

    model: type[Base]
    references: Mapping[str, type[Base]]
    since: int = 1

    @property
    def name(self) -> str:
        return table_of(self.model).name

    @property
    def file(self) -> PurePath:
        """The name of its file in the archive."""
        return PurePath(f"{self.name}.parquet")

    @property
    def columns(self) -> list[sa.Column[Any]]:
        return [column for column in table_of(self.model).c if column.name != "id"]


_COMPARED: Mapping[str, type[Base]] = {"comparison_id": ComparisonRow}
_OF_RUN: Mapping[str, type[Base]] = {"run_id": Run}
TABLES = (
    Moved(Study, {}),
    Moved(Kernel, {}),
    Moved(Configuration, {"kernel_id": Kernel}),
    Moved(Run, {"configuration_id": Configuration, "extends_run_id": Run}),
    Moved(StudyRun, {"study_id": Study, **_OF_RUN}),
    Moved(KernelTrajectory, _OF_RUN),
    Moved(TrajectoryValue, _OF_RUN),
    Moved(SimulationPrecision, _OF_RUN),
    Moved(KernelQuantile, _OF_RUN, since=10),
    Moved(ModuleCheck, _OF_RUN, since=11),
    Moved(CheckedBlockRow, _OF_RUN, since=11),
    Moved(ComparisonRow, {"prediction_run_id": Run, "reference_run_id": Run}),
    Moved(ErrorMetric, _COMPARED),
    Moved(ValidityWindow, _COMPARED),
    Moved(WidthWindow, {"prediction_run_id": Run, "reference_run_id": Run}, since=7),
)
"""The tables of an archive, in the order in which they can be imported."""


def _schema(moved: Moved) -> pa.Schema:
    return pa.schema([(column.name, _arrow_type(moved, column)) for column in moved.columns])


def _arrow_type(moved: Moved, column: sa.Column[Any]) -> pa.DataType:
    kind = column.type
    if column.name in moved.references or isinstance(kind, sa.JSON | sa.String):
        return pa.string()
    for type_, arrow in (
        (sa.Boolean, pa.bool_()),
        (sa.Integer, pa.int64()),
        (sa.Double, pa.float64()),
        (sa.LargeBinary, pa.binary()),
        (UTCDateTime, pa.timestamp("us", tz="UTC")),
    ):
        if isinstance(kind, type_):
            return arrow
    raise AssertionError(f"{moved.name}.{column.name} has a type that archives do not know")


def _json_columns(moved: Moved) -> list[str]:
    return [column.name for column in moved.columns if isinstance(column.type, sa.JSON)]


def write_rows(file: Any, moved: Moved, rows: Iterator[dict[str, Any]]) -> int:
    schema, count = _schema(moved), 0
    as_text = _json_columns(moved)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            for row in batch:
                row.update({name: canonical_json(row[name]) for name in as_text if row[name] is not None})
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def sha256(archive: zipfile.ZipFile, name: str) -> str:
    summed = hashlib.sha256()
    with archive.open(name) as file:
        while block := file.read(1 << 20):
            summed.update(block)
    return summed.hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What the manifest of an archive says: its format, and the number of rows of each table."""

    format: int
    rows: Mapping[str, int]

    def holds(self, moved: Moved) -> bool:
        """Whether archives of this format have this table."""
        return moved.since <= self.format


def read_rows(archive: zipfile.ZipFile, moved: Moved, manifest: Manifest) -> Iterator[list[dict[str, Any]]]:
    """The rows of one table of an archive, in batches, with the present column names; their values are not checked yet.

    Raises InputError when this version of the program does not know the columns.
    """
    format_, rows = manifest.format, manifest.rows[moved.name]
    with tempfile.TemporaryFile() as copy:  # Parquet is read from its end
        with archive.open(str(moved.file)) as file:
            while block := file.read(1 << 20):
                copy.write(block)
        stored = pq.ParquetFile(copy)
        names = _todays_names(moved, stored.schema_arrow, RENAMED.get(format_, {}))
        if stored.metadata.num_rows != rows:
            raise InputError(f"has {stored.metadata.num_rows} rows, its manifest says {rows}", place=moved.file)
        as_json = _json_columns(moved)
        for batch in stored.iter_batches(ROWS_AT_ONCE):
            found = batch.rename_columns(names).to_pylist()
            for row in found:
                row.update({name: json.loads(row[name]) for name in as_json if row.get(name) is not None})
            yield found


def _todays_names(moved: Moved, schema: pa.Schema, renamed: Mapping[str, str]) -> list[str]:
    """Present names of the columns of a stored table. Raises InputError for an unknown column or another type."""
    names = [
        renamed.get(name, f"{name}, of a later format" if name in renamed.values() else name) for name in schema.names
    ]
    types = {column.name: _arrow_type(moved, column) for column in moved.columns}
    unknown = sorted(set(names) - set(types))
    if unknown:
        raise InputError(
            f"has columns that this version of the program does not know ({', '.join(unknown)[:200]})",
            place=moved.file,
            remedy="update the program",
        )
    if len(set(names)) < len(names):
        raise InputError("has a column twice", place=moved.file)
    needed = {column.name for column in moved.columns if not column.nullable and column.server_default is None}
    if missing := sorted(needed - set(names)):
        raise InputError(f"lacks {', '.join(missing)}", place=moved.file)
    for name, kind in zip(names, schema.types, strict=True):
        if kind != types[name]:
            raise InputError(f"is of type {str(kind)[:100]}, not {types[name]}", place=(moved.file, name))
    return names


def verified_manifest(archive: zipfile.ZipFile, size: int) -> Manifest:
    """The manifest of an archive of ``size`` bytes, which may be of an older format.

    Raises InputError for a newer format, for a file that is not an archive of this program, and for damage.
    """
    _check_members(archive, size)
    with archive.open(MANIFEST) as file:
        read = json.loads(file.read(MANIFEST_LIMIT).decode())
    if not isinstance(read, dict) or type(read.get("format")) is not int:
        raise InputError("is not an archive of `eft export`, its manifest names no format")
    if read["format"] > FORMAT:
        raise InputError(
            f"has archive format {read['format']}, newer than this program's ({FORMAT})", remedy="update the program"
        )
    if read["format"] not in (*RENAMED, FORMAT):
        raise InputError(f"is not an archive of `eft export`, there is no archive format {read['format']}")
    held = [moved for moved in TABLES if moved.since <= read["format"]]
    _check_names(archive, held)
    rows, sums = read.get("rows"), read.get("sha256")
    tables = [moved.name for moved in held]
    if not (isinstance(rows, dict) and isinstance(sums, dict)) or not set(rows) == set(sums) == set(tables):
        raise InputError("is not an archive of `eft export`, its manifest does not list our tables")
    for moved in held:
        name = moved.name
        if type(rows[name]) is not int or not 0 <= rows[name] <= ROWS_LIMIT:
            raise InputError(f"its manifest says that {name} has {str(rows[name])[:50]} rows")
        if sha256(archive, str(moved.file)) != sums[name]:
            raise InputError("is damaged (its checksum differs)", place=moved.file, remedy="copy the archive again")
    return Manifest(read["format"], rows)


def _check_names(archive: zipfile.ZipFile, held: Iterable[Moved]) -> None:
    """Raises InputError unless the zip holds exactly the manifest and these tables, once each."""
    names = archive.namelist()
    wanted = {MANIFEST, *(str(moved.file) for moved in held)}
    if missing := sorted(wanted - set(names)):
        raise InputError(f"is not an archive of `eft export`, or damaged: {missing[0]} is missing")
    if len(names) > len(wanted):
        extra = next((name for name in names if name not in wanted), "a name twice")
        raise InputError(f"is not an archive of `eft export`: it holds {extra[:100]!r}")


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Raises InputError unless, by its directory, the zip holds a manifest, and no more than its own size."""
    members = archive.infolist()
    if MANIFEST not in archive.namelist():
        raise InputError(f"is not an archive of `eft export`, or damaged: {MANIFEST} is missing")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise InputError(
                "is compressed or encrypted, which `eft export` never does", place=PurePath(member.filename)
            )
        if member.file_size != member.compress_size:
            raise InputError("is damaged: it does not have the size that it should", place=PurePath(member.filename))
    if sum(member.file_size for member in members) > size:
        raise InputError("its files are larger than itself")
    if archive.getinfo(MANIFEST).file_size > MANIFEST_LIMIT:
        raise InputError(f"its manifest has {archive.getinfo(MANIFEST).file_size} bytes, of at most {MANIFEST_LIMIT}")
