"""The archive in which results move between databases: a zip file of one Parquet file for each table and a manifest.

Rows refer to each other by digests, since ids belong to one database; so the archives of equal contents are equal,
whatever database they come from. The manifest holds the sha256 and the number of rows of each table.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from db.models import (
    Base,
    ComparisonRow,
    Configuration,
    ErrorMetric,
    Kernel,
    KernelTrajectory,
    Run,
    SimulationPrecision,
    Study,
    StudyRun,
    TrajectoryValue,
    ValidityWindow,
)
from db.statements import table_of
from db.types import UTCDateTime
from eftcore.errors import InputError
from eftcore.specs import canonical_json

FORMAT = 3
RENAMED: Mapping[int, Mapping[str, str]] = {1: {"simulation_run_id": "reference_run_id"}, 2: {}}
"""Columns that older formats call otherwise; every table that has such a column calls it so now."""
MANIFEST = "manifest.json"
ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Moved:
    """A table in an archive: its references (column: model) become digests, its own id goes."""

    model: type[Base]
    references: Mapping[str, type[Base]]

    @property
    def name(self) -> str:
        return table_of(self.model).name

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
    Moved(ComparisonRow, {"prediction_run_id": Run, "reference_run_id": Run}),
    Moved(ErrorMetric, _COMPARED),
    Moved(ValidityWindow, _COMPARED),
)
"""In the order in which they can be read back."""


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


def read_rows(archive: zipfile.ZipFile, moved: Moved, format_: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of one table of an archive of this format, in batches, with the columns of today.

    Raises InputError when it has columns that this version of the program does not know.
    """
    with tempfile.TemporaryFile() as copy:  # Parquet is read from its end
        with archive.open(f"{moved.name}.parquet") as file:
            while block := file.read(1 << 20):
                copy.write(block)
        stored = pq.ParquetFile(copy)
        renamed = RENAMED.get(format_, {})
        names = [renamed.get(name, name) for name in stored.schema_arrow.names]
        unknown = set(names) - {column.name for column in moved.columns}
        if unknown:
            raise InputError(
                f"{moved.name}.parquet has columns that this version of the program does not know"
                f" ({', '.join(sorted(unknown))}); update the program"
            )
        as_json = _json_columns(moved)
        for batch in stored.iter_batches(ROWS_AT_ONCE):
            rows = batch.rename_columns(names).to_pylist()
            for row in rows:
                row.update({name: json.loads(row[name]) for name in as_json if row.get(name) is not None})
            yield rows


def verified_format(archive: zipfile.ZipFile, path: Path) -> int:
    """The format of an archive, which may be an older one. Raises InputError for a newer one, and for damage."""
    manifest = json.loads(archive.read(MANIFEST))
    if manifest["format"] not in (*RENAMED, FORMAT):
        raise InputError(f"import of {path}: archive format {manifest['format']} is not known; update the program")
    for moved in TABLES:
        name = f"{moved.name}.parquet"
        if sha256(archive, name) != manifest["sha256"][moved.name]:
            raise InputError(f"import of {path}: {name} is damaged (its checksum differs); copy the archive again")
    return int(manifest["format"])
