"""A release: finished results as a folder of Parquet tables that needs no database, with all that describes them.

The folder has the tables of ``TABLES``, their columns in ``dictionary.csv``, the same results as an archive that ``eft
import`` reads, and ``SHA256SUMS``, as the program sha256sum writes and checks it. docs/how-to/release.md says how to
query it; ``db.upkeep.crate`` describes it as an RO-Crate.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from db.reading import queries
from db.reading.files import arrow_type, write_rows
from db.reading.kernel_laws import quantiles_beside_law
from db.schema.models import Configuration, Kernel, Run, TrajectoryValue
from db.schema.views import OF_CONFIGURATION, v_errors, v_measurements, v_quantiles, v_runs, v_width_windows, v_windows
from db.session import Database
from db.upkeep.dictionary import meaning_of
from db.upkeep.exporting import chosen_rows, export_archive
from eftcore.errors import InputError

ARCHIVE = "results.zip"
DICTIONARY = "dictionary.csv"
SUMS = "SHA256SUMS"

_LAW = ("law", "law_probability")
_OF_THE_MACHINE = ("error_message", "host", "flow_run_id", "task_run_id", "heartbeat_at")
"""Columns of v_runs that say nothing of the results."""

Select = sa.Select[Any]


@dataclass(frozen=True)
class Table:
    """One table of a release: its name, what its rows are, and the query of its rows among chosen runs.

    ``documented`` is the view, or the table of a release, whose columns docs/data-dictionary.md explains.
    """

    name: str
    rows: str
    documented: str
    query: Callable[[Select], Select]

    @property
    def file(self) -> str:
        return f"{self.name}.parquet"


def _configurations(runs: Select) -> Select:
    used = sa.select(Run.configuration_id).where(Run.id.in_(runs))
    own = sa.select(*(v_runs.c[name] for name in OF_CONFIGURATION)).distinct()
    known = own.where(v_runs.c.configuration_id.in_(used)).subquery()
    return (
        sa.select(*known.c, sa.cast(Kernel.matrix, sa.Text).label("kernel"))
        .join(Configuration, Configuration.id == known.c.configuration_id)
        .join(Kernel, Kernel.id == Configuration.kernel_id)
        .order_by(known.c.configuration_id)
    )


def _runs(runs: Select) -> Select:
    kept = (column for column in v_runs.c if column.name not in _OF_THE_MACHINE)
    return sa.select(*kept).where(v_runs.c.run_id.in_(runs)).order_by(v_runs.c.run_id)


def _trajectories(runs: Select) -> Select:
    value = TrajectoryValue
    time = value.layer * Configuration.epsilon * Configuration.epsilon
    key = (value.run_id, value.quantity, value.component, value.layer)
    columns: list[Any] = [*key, time.label("time"), value.value, value.se]
    query: Select = sa.select(*columns)
    of_run = query.join(Run, Run.id == value.run_id)
    return (
        of_run.join(Configuration, Configuration.id == Run.configuration_id)
        .where(value.run_id.in_(runs))
        .order_by(*key)
    )


def _between(view: sa.TableClause, *run_ids: str) -> Callable[[Select], Select]:
    """The rows of a view all of whose runs are chosen."""

    def query(runs: Select) -> Select:
        among = (sa.or_(view.c[name].is_(None), view.c[name].in_(runs)) for name in run_ids)
        return sa.select(view).where(*among)

    return query


TABLES = (
    Table("configurations", "a model at one input kernel", "release configurations", _configurations),
    Table("runs", "a prediction, simulation, measurement or check", "v_runs", _runs),
    Table("trajectories", "a number of a run over depth", "release trajectories", _trajectories),
    Table(
        "errors",
        "the error of a prediction against a reference at one layer",
        "v_errors",
        _between(v_errors, "prediction_run_id", "reference_run_id"),
    ),
    Table(
        "windows",
        "how deep a prediction holds",
        "v_windows",
        _between(v_windows, "prediction_run_id", "reference_run_id"),
    ),
    Table(
        "widths",
        "from which width on a prediction holds at one layer",
        "v_width_windows",
        _between(v_width_windows, "prediction_run_id", "reference_run_id"),
    ),
    Table(
        "next_order",
        "the coefficient of 1/n as measured and as predicted",
        "v_measurements",
        _between(v_measurements, "prediction_run_id", "measurement_run_id"),
    ),
)

LAW = Table(
    "law",
    "a quantile of the kernel of one network, as simulated and by the law from theory",
    "release law",
    _between(v_quantiles, "reference_run_id"),
)
"""The table whose columns ``law`` and ``law_probability`` are computed, not asked of the database."""


@dataclass(frozen=True)
class Column:
    """A column of a table of a release, its type in Parquet, and its meaning as plain text."""

    name: str
    kind: str
    meaning: str


@dataclass(frozen=True)
class Released:
    """A table that was written, with its columns and its number of rows."""

    table: Table
    columns: tuple[Column, ...]
    rows: int


def write_release(db: Database, folder: Path, *, study: Sequence[str] | None = None) -> list[Released]:
    """Write the finished results of studies (names or digests), or all, into a new or empty folder.

    Raises:
        InputError: no such study, or there is something in the folder.
        EnvironmentProblem: a file cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("is there already and not empty", place=folder, remedy="choose a new folder")
    with db.reading() as session:
        runs = chosen_rows(session, study)[Run]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in TABLES:
        path = folder / table.file
        count = write_rows(db, table.query(runs), path)
        written.append(_released(table, path, count))
    path = folder / LAW.file
    written.append(_released(LAW, path, _write_law(db, LAW.query(runs), path)))
    _write_dictionary(folder / DICTIONARY, written)
    export_archive(db, folder / ARCHIVE, study=study)
    return written


def write_sums(folder: Path) -> None:
    """Write the sha256 of every file of a folder, but the sums themselves."""
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder)]
    (folder / SUMS).write_text("".join(lines))


def archive_of(folder: Path) -> Path:
    """The archive of a release, after its files were checked.

    Raises InputError where the folder is no release, or a file of it is missing or was changed.
    """
    sums = folder / SUMS
    if not sums.is_file() or not (folder / ARCHIVE).is_file():
        raise InputError("is no release", place=folder, remedy=f"a release has the files {SUMS} and {ARCHIVE}")
    for line in sums.read_text().splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise InputError(
                "is missing or not what it was when the release was made",
                place=path,
                remedy="copy the release again",
            )
    return folder / ARCHIVE


def _released(table: Table, path: Path, rows: int) -> Released:
    columns = tuple(
        Column(field.name, str(field.type), meaning_of(table.documented, field.name)) for field in pq.read_schema(path)
    )
    return Released(table, columns, rows)


def _write_law(db: Database, query: Select, path: Path) -> int:
    """Write the quantiles of simulations with the law beside them, one simulation at a time; returns the rows."""
    fields = [(column.name, arrow_type(column.type)) for column in query.selected_columns]
    schema = pa.schema([*fields, *((name, pa.float64()) for name in _LAW)])
    with db.reading() as session:
        ids = session.scalars(query.with_only_columns(v_quantiles.c.reference_run_id).distinct()).all()
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for run_id in sorted(ids):
            rows = quantiles_beside_law(db, queries.quantiles(db, reference_run_id=run_id)).rows
            writer.write_table(pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False))
            count += len(rows)
    return count


def _write_dictionary(path: Path, written: Sequence[Released]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["table", "column", "type", "meaning"])
        for released in written:
            rows.writerows([released.table.name, c.name, c.kind, c.meaning] for c in released.columns)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SUMS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
