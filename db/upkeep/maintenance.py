"""Checks whether a results database is intact, and makes backups. Neither changes the database."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import exc

from db.addresses import redacted, shown
from db.errors import DatabaseMissing, problem_from
from db.schema.models import Base
from db.schema.views import VIEWS
from db.session import make_engine, parse_url, sqlite_path
from db.settings import default_url
from db.upkeep import migrate
from db.upkeep.readers import VERSION_TABLE
from eftcore.errors import EnvironmentProblem, InputError

_PAGES_AT_ONCE = 1000
_WITHOUT_RESULTS = sa.text(
    "SELECT count(*) FROM runs r WHERE r.status = 'succeeded'"
    " AND NOT EXISTS (SELECT 1 FROM kernel_trajectories k WHERE k.run_id = r.id)"
)
_UNFINISHED_INDEXES = sa.text(
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE NOT i.indisvalid"
    " UNION ALL SELECT conname FROM pg_constraint WHERE NOT convalidated"
)


def check(url: str | sa.URL | None = None) -> list[str]:
    """What is wrong with a database, one line each; an empty list when it is intact.

    Checks the revision, every table, column, index and view, the file (or what the server reports about its own state),
    and looks for runs that lack their results. Reads every page of an SQLite file. Raises as migrate.current().
    """
    parsed = parse_url(url or default_url())
    try:
        migrate.require_current(parsed)
    except migrate.SchemaOutdated as problem:
        return [str(problem)]
    engine = make_engine(parsed, "rw")  # nothing is written, but describing tables needs more rights than a reader has
    try:
        with engine.connect() as connection:
            return [*_schema_problems(connection), *_damage(connection), *_missing_results(connection)]
    except exc.DBAPIError as error:
        raise problem_from(error, parsed) from error
    finally:
        engine.dispose()


def _schema_problems(connection: sa.Connection) -> list[str]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
    problems = [f"schema differs: {_in_words(difference)}" for difference in compare_metadata(context, Base.metadata)]
    inspector = sa.inspect(connection)
    there = set(inspector.get_view_names())
    missing = [view.name for view in VIEWS if view.name not in there]
    problems += [f"view {name} is missing" for name in missing]
    unreadable = _with_readers(inspector, missing) if missing else set[str]()
    for view in VIEWS:
        if view.name in unreadable:
            continue
        found = list(connection.execute(sa.text(f"SELECT * FROM {view.name} LIMIT 0")).keys())
        if found != [column.name for column in view.c]:
            problems.append(f"view {view.name} has other columns than this version of the program")
    return problems


def _with_readers(inspector: sa.Inspector, views: list[str]) -> set[str]:
    """These views and all that read one of them, directly or through others, by the definitions in the database."""
    words = {name: set(re.findall(r"\w+", inspector.get_view_definition(name))) for name in inspector.get_view_names()}
    found = set(views)
    while more := {name for name, named in words.items() if named & found} - found:
        found |= more
    return found


def _in_words(difference: object) -> str:
    return " ".join(str(part) for part in difference) if isinstance(difference, tuple) else str(difference)


def _damage(connection: sa.Connection) -> list[str]:
    if connection.dialect.name == "sqlite":
        pages = connection.execute(sa.text("PRAGMA integrity_check")).scalars().all()
        orphans = connection.execute(sa.text("PRAGMA foreign_key_check")).all()
        return [
            *(f"file is damaged: {line}" for line in pages if line != "ok"),
            *(f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there" for row in orphans),
        ]
    unfinished = connection.execute(_UNFINISHED_INDEXES).scalars().all()
    return [f"index or constraint {name} is not valid; REINDEX or VALIDATE it" for name in unfinished]


def _missing_results(connection: sa.Connection) -> list[str]:
    count = connection.scalar(_WITHOUT_RESULTS)
    return [f"{count} runs succeeded but have no trajectories"] if count else []


def backup(path: Path, url: str | sa.URL | None = None) -> Path:
    """Copy the database to ``path`` while others may use it. The copy is checked, and never left incomplete.

    The copy of an SQLite file is another SQLite file; that of a PostgreSQL database is an archive of pg_dump, which
    pg_restore reads.

    Raises:
        InputError: ``path`` exists already.
        DatabaseMissing: there is nothing to copy.
        EnvironmentProblem: the copy cannot be written, or there is no pg_dump of the server's version.
    """
    parsed = parse_url(url or default_url())
    if path.exists():
        raise InputError("is there already", place=path, remedy="choose another name")
    source = sqlite_path(parsed)
    if source is not None and not source.exists():
        raise DatabaseMissing("there is no database, and nothing to back up", place=source)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if source is not None:
            _copy_sqlite(source, part)
        else:
            _dump_postgresql(parsed, part)
        part.replace(path)
    except (OSError, sqlite3.Error) as error:
        said = getattr(error, "strerror", None) or error
        raise EnvironmentProblem(
            f"cannot be written ({said})", place=path, remedy="free some space, or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _copy_sqlite(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.touch()  # the umask says who may write it; SQLite would let its owner alone
    address = f"file:{quote(str(source))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy, pages=_PAGES_AT_ONCE)
        copy.execute("PRAGMA journal_mode = DELETE")  # no write-ahead log beside the file
        found = copy.execute("PRAGMA quick_check").fetchone()[0]
    if found != "ok":
        raise EnvironmentProblem(f"its copy is not sound ({found})", place=source, remedy="run `eft db check`")


def _dump_postgresql(url: sa.URL, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise EnvironmentProblem(
            "a backup of PostgreSQL needs pg_dump of the server's version",
            place="database",
            value=shown(url),
            remedy="install PostgreSQL's client programs, or use `eft export`",
        )
    password = url.query.get("password") or url.password
    without = url.set(drivername="postgresql", password=None).difference_update_query(["password"])
    address = without.render_as_string()  # other users can see arguments, so the address has no password
    environment = dict(os.environ) | ({"PGPASSWORD": str(password)} if password else {})
    arguments = [program, "--format=custom", "--no-owner", f"--file={target}", f"--dbname={address}"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = "; ".join(redacted(done.stderr, url).strip().splitlines()) or f"exit code {done.returncode}"
        raise EnvironmentProblem(f"pg_dump could not copy it ({said})", place="database", value=shown(url))
