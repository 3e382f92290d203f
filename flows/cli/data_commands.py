"""``eft export``, ``eft release``, ``eft import``, ``eft delete`` and ``eft gc``: results that move, or go."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from eftcore.errors import InputError
from flows.cli.options import DatabaseOption, YesOption, reading_database, writable_database

data_app = typer.Typer()


@data_app.command("export", epilog="Example: eft export quick.zip --study quick")
def export_(
    path: Annotated[Path, typer.Argument(help="A new file: .zip for an archive; with --view, .csv or .parquet.")],
    study: Annotated[list[str] | None, typer.Option(help="Only this study; may be repeated.")] = None,
    run: Annotated[list[int] | None, typer.Option(help="Only this run; may be repeated.")] = None,
    view: Annotated[str | None, typer.Option(help="Write this view, such as v_windows, as a table.")] = None,
    keep_formulas: Annotated[
        bool, typer.Option("--keep-formulas", help="In CSV, leave texts that a spreadsheet would take for formulas.")
    ] = False,
    db: DatabaseOption = None,
) -> None:
    """Write results to a file: an archive that `eft import` reads, or one view as CSV or Parquet.

    Titles, notes and tags of studies and saved views of the explorer are not in it; `eft db backup` copies everything.
    """
    database = reading_database(db)
    if view is None and path.suffix in (".csv", ".parquet"):
        from db.schema.views import VIEWS

        names = ", ".join(sorted(known.name for known in VIEWS))
        raise InputError(
            "may hold any view",
            place=path,
            remedy=f"say which view with --view, one of {names}, or name a .zip for an archive of everything",
        )
    if view is None:
        from db.upkeep.exporting import export_archive

        _print_counts(export_archive(database, path, study=study or None, run_ids=run))
        with path.open("rb") as file:
            print(f"sha256: {hashlib.file_digest(file, 'sha256').hexdigest()}")
        return
    from db.reading.files import export_view

    if study or run:
        raise InputError(
            "writes the whole view",
            place="--view",
            value=view,
            remedy="leave out --study and --run, or filter with `eft sql`",
        )
    print(f"{export_view(database, path, view, formulas=keep_formulas)} rows")


@data_app.command(epilog="Example: eft release atlas-release --study atlas --study plane")
def release(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    study: Annotated[list[str] | None, typer.Option(help="Only this study; may be repeated.")] = None,
    db: DatabaseOption = None,
) -> None:
    """Write results as a folder that others can use without this program: tables, their dictionary, a page to look at.

    The tables are Parquet files for DuckDB, pandas and the like; the page is explorer/index.html, for a browser. `eft
    import FOLDER` adds the results to a database.
    """
    from flows.cli.releasing import make_release

    for table, rows in make_release(reading_database(db), folder, studies=study).items():
        print(f"{table}: {rows} rows")


@data_app.command("import", epilog="Example: eft import quick.zip")
def import_(
    path: Annotated[Path, typer.Argument(help="An archive of `eft export`, or the folder of a release.")],
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="Import it only if this is its sha256, as `eft export` printed it.")
    ] = None,
    db: DatabaseOption = None,
) -> None:
    """Add the results of an archive or a release to the database; what is there already stays as it is."""
    from db.upkeep.importing import import_archive

    if path.is_dir():
        from db.upkeep.release import archive_of

        path = archive_of(path)
    _print_counts(import_archive(writable_database(db), path, sha256=sha256), "nothing new")


@data_app.command(epilog="Example: eft delete --study quick --dry-run")
def delete(
    study: Annotated[str | None, typer.Option(help="This study, and its runs that no other study uses.")] = None,
    run: Annotated[list[int] | None, typer.Option(help="This run, with its comparisons; may be repeated.")] = None,
    db: DatabaseOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: YesOption = False,
) -> None:
    """Delete a study or runs from the database; refused while a study runs."""
    from db.upkeep import removal

    if (study is None) == (not run):
        raise InputError("one of two is needed", place="--study", remedy="give either --study NAME or --run ID")
    database = writable_database(db)

    def remove(dry_run: bool) -> dict[str, int]:
        if study is not None:
            return removal.delete_study(database, study, dry_run=dry_run)
        return removal.delete_runs(database, run or [], dry_run=dry_run)

    _print_counts(remove(dry_run=True))
    if not dry_run and (yes or typer.confirm("Delete these rows?", abort=True)):
        remove(dry_run=False)
        print("deleted")


@data_app.command(epilog="Example: eft gc --unsuccessful --dry-run")
def gc(
    db: DatabaseOption = None,
    unsuccessful: Annotated[
        bool, typer.Option("--unsuccessful", help="Also runs that failed, are stale or long pending.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Tidy up: mark dead runs as stale; delete what nothing needs and give free space back, unless a study runs."""
    from db.upkeep import removal
    from db.writing import claims

    database = writable_database(db)
    if not dry_run:
        print(f"{len(claims.sweep_stale(database))} runs were running without a sign of life and are stale now")
    _print_counts(removal.collect_garbage(database, unsuccessful=unsuccessful, dry_run=dry_run), "nothing to delete")


def _print_counts(counts: dict[str, int], none: str = "no rows") -> None:
    rows = [f"{table}: {count} rows" for table, count in counts.items() if count]
    print("\n".join(rows) or none)
