"""Writing an archive of results: a study, some runs, or everything that is finished."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.reading.queries import OneOrMany
from db.schema.models import Base, ComparisonRow, Configuration, Kernel, Run, Study, StudyRun
from db.schema.statements import table_of
from db.session import Database
from db.upkeep.archive import FORMAT, MANIFEST, ROWS_AT_ONCE, TABLES, Moved, sha256, write_rows
from eftcore.errors import EnvironmentProblem, InputError

ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def export_archive(
    db: Database, path: Path, *, study: OneOrMany[str] = None, run_ids: Sequence[int] | None = None
) -> dict[str, int]:
    """Write the runs of studies (names or digests), or some runs, or all; returns the number of rows of each table.

    The archive also contains the configurations and kernels of these runs, the comparisons between them, and the
    studies that they belong to (for the runs of studies: these alone). Left out are unfinished runs and what users
    wrote about studies.

    Raises:
        InputError: no such study or run, or the file exists already.
        EnvironmentProblem: the file cannot be written.
    """
    if path.exists():
        raise InputError("is there already", place=path, remedy="choose another name")
    part = path.with_name(f"{path.name}.part")
    try:
        with db.reading() as session, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            chosen = chosen_rows(session, study, run_ids)
            digests = _digests(session)
            counts, sums = {}, {}
            for moved in TABLES:
                with archive.open(zipfile.ZipInfo(str(moved.file), ZIP_DATE), "w", force_zip64=True) as file:
                    counts[moved.name] = write_rows(file, moved, _rows(session, moved, chosen, digests))
            for moved in TABLES:
                sums[moved.name] = sha256(archive, str(moved.file))
            manifest = {"format": FORMAT, "rows": counts, "sha256": sums}
            archive.writestr(zipfile.ZipInfo(MANIFEST, ZIP_DATE), json.dumps(manifest, indent=2))
        part.replace(path)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot be written ({error.strerror})", place=path, remedy="choose a folder that can be written"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return counts


def chosen_rows(
    session: Session, study: OneOrMany[str] = None, run_ids: Sequence[int] | None = None
) -> dict[type[Base], sa.Select[Any]]:
    """For each table with an id, a query for the ids of the rows to export: finished runs and what belongs to them.

    Raises InputError for a study or run that is not there.
    """
    runs = sa.select(Run.id).where(Run.status.in_(("succeeded", "failed")))
    studies = sa.select(Study.id)
    if study is not None:
        names = [study] if isinstance(study, str) else list(study)
        for name in names:
            if session.scalar(studies.where(_named([name])).limit(1)) is None:
                raise InputError("there is no such study in the database", place="study", value=name)
        studies = studies.where(_named(names))
        runs = runs.where(Run.id.in_(sa.select(StudyRun.run_id).where(StudyRun.study_id.in_(studies))))
    if run_ids is not None:
        wanted = {int(run_id) for run_id in run_ids}
        missing = wanted - set(session.scalars(runs.where(Run.id.in_(wanted))))
        if missing:
            raise InputError("no such finished run", place="run_id", value=sorted(missing))
        runs = runs.where(Run.id.in_(wanted))
        studies = studies.where(Study.id.in_(sa.select(StudyRun.study_id).where(StudyRun.run_id.in_(runs))))
    configurations = sa.select(Run.configuration_id).where(Run.id.in_(runs))
    return {
        Study: studies,
        Run: runs,
        Configuration: configurations,
        Kernel: sa.select(Configuration.kernel_id).where(Configuration.id.in_(configurations)),
        ComparisonRow: sa.select(ComparisonRow.id).where(
            ComparisonRow.prediction_run_id.in_(runs), ComparisonRow.reference_run_id.in_(runs)
        ),
    }


def _named(names: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.or_(Study.name.in_(names), Study.digest.in_(names))


def _digests(session: Session) -> dict[type[Base], dict[int, str]]:
    """The digest of each row that others refer to, by id; for a comparison, the digests of its two runs."""
    found: dict[type[Base], dict[int, str]] = {}
    for model in (Study, Kernel, Configuration, Run):
        columns = table_of(model).c
        found[model] = {row.id: row.digest for row in session.execute(sa.select(columns.id, columns.digest))}
    runs = found[Run]
    pairs = sa.select(ComparisonRow.id, ComparisonRow.prediction_run_id, ComparisonRow.reference_run_id)
    found[ComparisonRow] = {row_id: f"{runs[p]} {runs[r]}" for row_id, p, r in session.execute(pairs)}
    return found


def _rows(
    session: Session,
    moved: Moved,
    chosen: dict[type[Base], sa.Select[Any]],
    digests: dict[type[Base], dict[int, str]],
) -> Iterator[dict[str, Any]]:
    """The rows of one table, in an order that does not depend on ids."""
    table = table_of(moved.model)
    query = sa.select(*moved.columns)
    if moved.model in chosen:
        query = query.where(table.c.id.in_(chosen[moved.model]))
    owners = {name: model for name, model in moved.references.items() if not table.c[name].nullable}
    for name, model in owners.items():
        query = query.where(table.c[name].in_(chosen[model]))
        named = table_of(model).alias()
        query = query.join(named, named.c.id == table.c[name])
        if model is ComparisonRow:
            for run_id in (named.c.prediction_run_id, named.c.reference_run_id):
                run = table_of(Run).alias()
                query = query.join(run, run.c.id == run_id).order_by(run.c.digest)
        else:
            query = query.order_by(named.c.digest)
    own = [column for column in moved.columns if column.primary_key or column.name == "digest"]
    query = query.order_by(*(column for column in own if column.name not in moved.references))
    kept = set(session.scalars(chosen[Run])) if "extends_run_id" in moved.references else set()
    for row in session.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}).mappings():
        values = dict(row)
        for name, model in moved.references.items():
            row_id = values[name]
            leaves = row_id is None or (name == "extends_run_id" and row_id not in kept)
            values[name] = None if leaves else digests[model][row_id]
        yield values
