"""Making a release of results: tables, a page to look at them, their description, and the sums of all files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from db.session import Database
from db.upkeep.crate import write_crate
from db.upkeep.release import write_release, write_sums
from flows.cli.citation import SOURCE, citation_text
from ui.reports.document import render, write_files
from ui.reports.static_explorer import write_static_explorer

DESCRIPTION = (
    "Theory and simulation of pre-activation ResNets at initialisation: kernels over depth, the errors of each theory, "
    "and how deep and from which width on each of them holds."
)


def make_release(db: Database, folder: Path, *, studies: Sequence[str] | None = None) -> dict[str, int]:
    """Write a release of studies, or of all finished results; returns the number of rows of each table.

    Raises InputError for a study that is not there or a folder that is not empty, EnvironmentProblem where a file
    cannot be written.
    """
    released = write_release(db, folder, study=studies or None)
    write_static_explorer(folder, folder / "explorer")
    shutil.copyfile(SOURCE, folder / "CITATION.cff")
    of = sorted(studies) if studies else ["all results of a database"]
    made, by = datetime.now(UTC).date(), version("resnet-eft")
    about = {
        "description": DESCRIPTION,
        "tables": [{"name": each.table.name, "row": each.table.rows, "rows": each.rows} for each in released],
        "studies": of,
        "version": by,
        "made": made.isoformat(),
        "citation": citation_text(),
    }
    write_files({folder / "README.md": render("release.md.j2", about)})
    write_crate(folder, released, version=by, studies=of, made=made, description=DESCRIPTION)
    write_sums(folder)
    return {each.table.name: each.rows for each in released}
