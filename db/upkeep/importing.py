"""Importing an archive of results into a database, in one transaction; rows that exist already are kept."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.orm import Session

from db.schema.models import Base, ComparisonRow, Configuration, KernelQuantile, Run, StudyRun, WidthWindow
from db.schema.statements import insert, table_of
from db.session import Database
from db.upkeep.archive import TABLES, Manifest, Moved, read_rows, verified_manifest
from db.upkeep.arriving import Arriving
from db.writing.lifecycle import register_version
from eftcore.activations import canonical_name
from eftcore.errors import EnvironmentProblem, InputError


def import_archive(db: Database, path: Path, *, sha256: str | None = None) -> dict[str, int]:
    """Add the contents of an archive, in one transaction; returns the number of rows added to each table.

    Rows that exist already are kept. A run that failed or is not finished in the database is replaced by the same run
    that succeeded in the archive.

    Args:
        sha256: checksum of the whole archive, received from its author by a separate way. The checksums inside the
            archive reveal damage, but not a deliberate change.

    Raises:
        InputError: not an archive of this program, damaged, recognised as forged, or made by a newer version of the
            program; nothing was changed.
        EnvironmentProblem: the database cannot be written.
    """
    try:
        if not path.is_file():
            raise InputError("there is no such file", remedy="give an archive of `eft export`")
        with path.open("rb") as file:
            if sha256 is not None:
                _require_digest(file, sha256)
            with zipfile.ZipFile(file) as archive:
                manifest = verified_manifest(archive, path.stat().st_size)
                with db.session() as session:
                    return _Import(session, archive, manifest).run()
    except InputError as error:
        raise error.within(path) from None
    except EnvironmentProblem:
        raise
    except OSError as error:
        raise InputError(error.strerror or str(error), place=path, remedy="give an archive of `eft export`") from None
    except exc.DBAPIError as error:
        said = str(error.orig).strip().splitlines() or ["refused"]
        raise InputError(f"the database does not take its rows ({said[0][:200]})", place=path) from None
    except Exception as error:  # readers of zip, Parquet and JSON may raise anything for bytes that somebody chose
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"is not an archive of `eft export`, or damaged ({said[0][:200]})", place=path, remedy="copy it again"
        ) from None


def _require_digest(file: BufferedReader, expected: str) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.strip().lower():
        raise InputError(f"its sha256 is {found}, not {expected[:100]}", remedy="nothing was read")


class _Import:
    """One import. It keeps the ids that the digests of the archive have in this database, and the ids of new rows."""

    def __init__(self, session: Session, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self.session = session
        self.archive = archive
        self.manifest = manifest
        self.arriving = Arriving()
        self.ids: dict[type[Base], dict[str, int]] = {}
        self.new: dict[type[Base], set[int]] = {}

    def run(self) -> dict[str, int]:
        added = {}
        for moved in TABLES:
            owner = next(iter(moved.references.values()), None)
            if not self.manifest.holds(moved):
                added[moved.name] = 0
            elif moved.model is ComparisonRow:
                added[moved.name] = self._comparisons(moved)
            elif "id" in table_of(moved.model).c:
                added[moved.name] = self._named(moved)
            elif moved.model in (StudyRun, WidthWindow, KernelQuantile):  # those that are missing of any run
                added[moved.name] = self._plain(moved, None)
            else:
                added[moved.name] = self._plain(moved, owner)
        known = sa.select(Run.kind, sa.func.max(Run.algorithm_version)).group_by(Run.kind)
        for kind, version in self.session.execute(known).all():
            register_version(self.session, kind, version)
        return added

    def _read(self, moved: Moved) -> Iterator[list[dict[str, Any]]]:
        """The rows of a table of the archive, checked. Raises InputError for a row this project would not write."""
        for rows in read_rows(self.archive, moved, self.manifest):
            for row in rows:
                self.arriving.check(moved, row)
                if moved.model is Configuration:  # older archives spell the same activation differently
                    row["activation"] = canonical_name(row["activation"])
            yield rows

    def _here(self, moved: Moved, row: dict[str, Any]) -> dict[str, Any]:
        """The row with ids of this database in place of digests.

        ``extends_run_id`` keeps its digest, since the run that is extended may stand later in the archive.
        """
        for name, model in moved.references.items():
            if name != "extends_run_id":
                row[name] = self.ids[model][row[name]]
        return row

    def _named(self, moved: Moved) -> int:
        """Import a table whose rows have a digest: studies, kernels, configurations or runs. The number of new rows."""
        table = table_of(moved.model)
        ids, new = self.ids.setdefault(moved.model, {}), self.new.setdefault(moved.model, set())
        extended = {}
        for rows in self._read(moved):
            for given in rows:
                row = self._here(moved, given)
                extended[row["digest"]] = row.pop("extends_run_id", None)
                statement = insert(self.session, moved.model).values(row)
                if moved.model is Run:
                    better = sa.and_(table.c.status != "succeeded", statement.excluded.status == "succeeded")
                    replaced = {name: statement.excluded[name] for name in row if name != "digest"}
                    statement = statement.on_conflict_do_update(index_elements=["digest"], set_=replaced, where=better)
                else:
                    statement = statement.on_conflict_do_nothing(index_elements=["digest"])
                row_id = self.session.execute(statement.returning(table.c.id)).scalar()
                if row_id is not None:
                    new.add(row_id)
                else:
                    row_id = self.session.execute(
                        sa.select(table.c.id).where(table.c.digest == row["digest"])
                    ).scalar_one()
                ids[row["digest"]] = row_id
        for digest, base in extended.items():
            if base is not None and base not in ids:
                raise InputError(
                    "the archive has no such row", place=(f"runs {digest[:12]}", "extends_run_id"), value=base[:12]
                )
            if base is not None and ids[digest] in new:
                link = sa.update(Run).where(Run.id == ids[digest]).values(extends_run_id=ids[base])
                self.session.execute(link)
        return len(new)

    def _comparisons(self, moved: Moved) -> int:
        names = {run_id: digest for digest, run_id in self.ids[Run].items()}
        ids, new = self.ids.setdefault(ComparisonRow, {}), self.new.setdefault(ComparisonRow, set())
        pair = ["prediction_run_id", "reference_run_id"]
        for rows in self._read(moved):
            for given in rows:
                row = self._here(moved, given)
                statement = insert(self.session, ComparisonRow).values(row).on_conflict_do_nothing(index_elements=pair)
                row_id = self.session.execute(statement.returning(ComparisonRow.id)).scalar()
                if row_id is not None:
                    new.add(row_id)
                else:
                    same = (getattr(ComparisonRow, name) == row[name] for name in pair)
                    row_id = self.session.execute(sa.select(ComparisonRow.id).where(*same)).scalar_one()
                ids[f"{names[row[pair[0]]]} {names[row[pair[1]]]}"] = row_id
        return len(new)

    def _plain(self, moved: Moved, owner: type[Base] | None) -> int:
        """Import a table whose rows belong to others; returns the number of new rows.

        Rows of a run (``owner``) are imported only if the run itself is new; otherwise they exist already.
        """
        added = 0
        (first, *_) = moved.references
        keys = [column.name for column in table_of(moved.model).primary_key]
        for rows in self._read(moved):
            ours = [self._here(moved, row) for row in rows]
            if owner is Run:
                ours = [row for row in ours if row[first] in self.new[Run]]
            if not ours:
                continue
            count = sa.select(sa.func.count()).select_from(table_of(moved.model))
            before = self.session.scalar(count) if owner is not Run else 0
            statement = insert(self.session, moved.model).on_conflict_do_nothing(index_elements=keys)
            self.session.execute(statement, ours)
            added += len(ours) if owner is Run else (self.session.scalar(count) or 0) - (before or 0)
        return added
