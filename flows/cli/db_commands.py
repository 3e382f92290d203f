"""``eft db``: the results database itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DatabaseOption, JsonOption, YesOption, use_database

db_app = typer.Typer(
    help="The results database: create it, bring it up to date, describe it.",
    epilog="Example: eft db upgrade",
    no_args_is_help=True,
)


@db_app.command("upgrade", epilog="Example: eft db upgrade")
def db_upgrade(db: DatabaseOption = None) -> None:
    """Create the database, or bring its tables up to date."""
    from db.upkeep import migrate

    url = use_database(db)
    before = _revision(url)
    migrate.upgrade(url)
    done = "is up to date" if before == migrate.head() else "created" if before is None else "upgraded"
    print(f"database {migrate.info(url)['url']} {done}, revision {migrate.head()}")


@db_app.command("downgrade", epilog="Example: eft db downgrade 0004_calibrated_verdicts --backup before.db")
def db_downgrade(
    revision: Annotated[str, typer.Argument(help="Such as 0001_first_tables; base removes every table.")],
    db: DatabaseOption = None,
    backup: Annotated[
        Path | None, typer.Option(help="Copy the database into this new file before, as `eft db backup` does.")
    ] = None,
    yes: YesOption = False,
) -> None:
    """Take the database back to an older revision. What the older tables cannot hold is lost; it is listed before."""
    from db.upkeep import maintenance, migrate

    url = use_database(db)
    shown = f"{migrate.info(url)['url']} from {migrate.current(url)} to {revision}"
    lost = migrate.dropped_by_downgrade(url, revision)
    print("\n".join([f"drops {what}" for what in lost]) or "drops nothing")
    if backup is None:
        print("`--backup FILE` keeps a copy of the database as it is now", file=sys.stderr)
    if not yes:
        typer.confirm(f"Take database {shown}?", abort=True)
    if backup is not None:
        print(f"backup {maintenance.backup(backup, url)}")
    migrate.downgrade(url, revision)
    print(f"database {shown}: done")


@db_app.command("current", epilog="Example: eft db current")
def db_current(db: DatabaseOption = None) -> None:
    """Print the revision of the database, and whether this version of the program uses it."""
    from db.upkeep import migrate

    url = use_database(db)
    print(f"{migrate.current(url) or 'no tables yet'} (this program: {migrate.head()})")


@db_app.command("check", epilog="Example: eft db check")
def db_check(db: DatabaseOption = None) -> None:
    """Look for damage: revision, tables, views, the file itself, runs without results. Changes nothing."""
    from db.upkeep import maintenance

    problems = maintenance.check(use_database(db))
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print("the database is sound")


@db_app.command("backup", epilog="Example: eft db backup monday.db")
def db_backup(
    path: Annotated[Path, typer.Argument(help="A new file: SQLite, or for PostgreSQL an archive of pg_dump.")],
    db: DatabaseOption = None,
) -> None:
    """Copy the database while it may be in use."""
    from db.upkeep import maintenance

    written = maintenance.backup(path, use_database(db))
    print(f"backup {written}, {written.stat().st_size / 1e6:.1f} MB")


@db_app.command("grant-reader", epilog="Example: eft db grant-reader reader --db postgresql://eft@db.example/eft")
def db_grant_reader(
    name: Annotated[str, typer.Argument(help="An existing role of the PostgreSQL server.")], db: DatabaseOption = None
) -> None:
    """Let a PostgreSQL role read the results: the tables and views of this project and nothing else."""
    from db.upkeep import migrate, readers

    url = use_database(db)
    migrate.require_current(url)
    more = readers.grant_reader(url, name)
    print(f"{name} may read database {migrate.info(url)['url']}")
    for line in more:
        print(line, file=sys.stderr)


@db_app.command("info", epilog="Example: eft db info --json")
def db_info(db: DatabaseOption = None, json: JsonOption = False) -> None:
    """Describe the database: where it is, its revision and what it holds."""
    from db.upkeep import migrate
    from flows import tables

    described = migrate.info(use_database(db))
    if json:
        tables.print_json(described)
    else:
        for name, value in described.items():
            print(f"{name}: {value}")


def _revision(url: str) -> str | None:
    from db.errors import DatabaseMissing
    from db.upkeep import migrate

    try:
        return migrate.current(url)
    except DatabaseMissing:
        return None
