"""Database problems that callers are meant to catch; each message says what to do next."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from db.addresses import redacted, shown
from eftcore.errors import EnvironmentProblem

UPGRADE_HINT = "run `eft db upgrade`"


class DatabaseMissing(EnvironmentProblem):
    """There is no database yet at this address."""


class SchemaOutdated(EnvironmentProblem):
    """The database exists, but its tables belong to another version of the program."""


class DatabaseUnreachable(EnvironmentProblem):
    """The database does not answer, or the file is not a results database."""


class DatabaseReadOnly(EnvironmentProblem):
    """The database exists but cannot be written."""


_NO_TABLE = ("no such table", "undefinedtable")
_READ_ONLY = ("readonly database", "not authorized", "read-only transaction", "read-only file")
_FULL = ("disk is full", "no space left")
_BUSY = ("locked", "busy")
_FORBIDDEN = "insufficientprivilege"


def problem_from(error: exc.DBAPIError, url: sa.URL) -> EnvironmentProblem:
    """Translate the driver's message into one sentence that names the database and the remedy."""
    lines = redacted(str(error.orig), url).strip().splitlines()
    said = lines[0] if lines else type(error.orig).__name__
    low = f"{said} {type(error.orig).__name__}".lower()
    at: dict[str, Any] = {"place": "database", "value": shown(url)}
    if any(words in low for words in _NO_TABLE):
        return SchemaOutdated(f"lacks a table of this version ({said})", **at, remedy=UPGRADE_HINT)
    if _FORBIDDEN in low:
        return DatabaseUnreachable(
            f"this account lacks a right ({said})",
            **at,
            remedy="ask the database's owner for it, such as GRANT CREATE ON SCHEMA public for `eft db upgrade`, or"
            " `eft db grant-reader` for reading",
        )
    if any(words in low for words in _READ_ONLY):
        return DatabaseReadOnly("is read-only", **at, remedy="make it writable or set EFT_DATABASE_URL to another one")
    if any(words in low for words in _FULL):
        return EnvironmentProblem(said, **at, remedy="free some disk space, nothing was half-written")
    if any(words in low for words in _BUSY):
        return EnvironmentProblem(f"stayed busy with another writer ({said})", **at, remedy="try again when it is done")
    on_disk = url.get_backend_name() == "sqlite"
    check = "the file and its disk" if on_disk else "EFT_DATABASE_URL and that the server runs"
    return DatabaseUnreachable(f"cannot be used: {said}", **at, remedy=f"check {check}")
