"""Rows of the database in one file, CSV or Parquet by the ending of its name, written in pieces."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import sqlalchemy as sa

from db.reading.spreadsheets import harmless
from db.schema.types import UTCDateTime
from db.schema.views import VIEWS
from db.session import Database
from eftcore.errors import EnvironmentProblem, InputError

_ROWS_AT_ONCE = 20_000
_WRITERS = {".csv": pa_csv.CSVWriter, ".parquet": pq.ParquetWriter}


def export_view(db: Database, path: Path, view: str, *, formulas: bool = False) -> int:
    """Write every row of a view to a file; returns the number of rows.

    Columns are those of docs/data-dictionary.md; flags are booleans and times have a time type.

    Args:
        formulas: write texts to CSV unchanged. Otherwise a text that a spreadsheet would take for a formula gets an
            apostrophe before it.

    Raises:
        InputError: no such view, another ending than .csv or .parquet, or the file exists already.
        EnvironmentProblem: the file cannot be written.
    """
    known = {item.name: item for item in VIEWS}
    if view not in known:
        raise InputError("there is no such view", place="view", value=view, remedy=f"use one of {', '.join(known)}")
    if path.suffix not in _WRITERS:
        raise InputError("must end in .csv or .parquet, as which a view is written", place=path)
    if path.exists():
        raise InputError("is there already", place=path, remedy="choose another name")
    return write_rows(db, sa.select(known[view]), path, formulas=formulas)


def write_rows(db: Database, query: sa.Select[Any], path: Path, *, formulas: bool = False) -> int:
    """Write the rows of a query to a new file, CSV or Parquet by its ending; returns their number.

    ``formulas`` as for export_view. Raises EnvironmentProblem where the file cannot be written.
    """
    schema = pa.schema([(column.name, arrow_type(column.type)) for column in query.selected_columns])
    as_it_is = formulas or path.suffix != ".csv"
    part, count = path.with_name(f"{path.name}.part"), 0
    try:
        with db.reading() as session, _WRITERS[path.suffix](part, schema) as writer:
            rows = session.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
            for batch in rows.mappings().partitions():
                written = [
                    dict(row) if as_it_is else {name: harmless(value) for name, value in row.items()} for row in batch
                ]
                writer.write_table(pa.Table.from_pylist(written, schema=schema))
                count += len(batch)
        part.replace(path)
    except OSError as error:
        said = error.strerror or error
        raise EnvironmentProblem(
            f"cannot be written ({said})", place=path, remedy="choose a folder that can be written"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return count


def arrow_type(kind: sa.types.TypeEngine[object]) -> pa.DataType:
    """The type of a column in Arrow: flags are booleans, times have a time type."""
    if isinstance(kind, UTCDateTime):
        return pa.timestamp("us", tz="UTC")
    if isinstance(kind, sa.Boolean):
        return pa.bool_()
    if isinstance(kind, sa.Integer):
        return pa.int64()
    return pa.float64() if isinstance(kind, sa.Double) else pa.string()
