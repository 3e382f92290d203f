"""SQL written by users: one SELECT, on a database opened read-only, with a limit on rows and time.

The database itself decides what is allowed; this module contains no SQL parser. SQLite takes one statement only and
refuses everything but reading when it compiles the statement. PostgreSQL runs the statement as a cursor (one SELECT by
its grammar) in a read-only transaction. For an account with rights on the whole server the statement is also refused if
a function that it calls has side effects, or if it reads a secret of the server.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql

from db.reading.answers import answer_frame
from db.session import STATEMENT_TIMEOUT_SECONDS, Database
from db.side_effects import EVERY_RIGHT, rights_on_the_server, used
from eftcore.errors import InputError

MAX_ROWS = 10_000
LARGEST_VALUE = 64 * 10**6
"""Most bytes of one value of an answer."""

LARGEST_ANSWER = 256 * 10**6
"""Most bytes of all texts and blobs of an answer, which is held in memory."""

_STEPS_BETWEEN_LOOKS = 100_000
READS = re.compile(r"(\s|--[^\n]*\n|/\*.*?\*/)*(select|with)\b", re.DOTALL | re.IGNORECASE)


def select(
    db: Database,
    sql: str,
    params: Mapping[str, Any] | None = None,
    max_rows: int | None = MAX_ROWS,
    timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS,
) -> pd.DataFrame:
    """Run one SELECT (or WITH ... SELECT) and return at most ``max_rows`` rows, or all rows if that is None.

    Columns are as answer_frame makes them. ``frame.attrs["truncated"]`` says whether there were more rows. ``params``
    fill ``:name`` places in the text.

    Raises:
        InputError: not a single SELECT, refused or not understood by the database, or too slow.
        EnvironmentProblem: the database cannot be used.
    """
    if not READS.match(sql):
        shown = sql.strip()[:40] or "nothing"
        raise InputError(f"only one SELECT or WITH ... SELECT is allowed, not: {shown}", place="sql")
    if "\0" in sql:
        raise InputError(
            "contains a NUL character, where PostgreSQL would stop reading", place="sql", remedy="remove it"
        )
    if max_rows is not None and max_rows < 1:
        raise InputError("must be at least 1, or None for all", place="max_rows", value=max_rows)
    reader = db if db.read_only else Database(db.url, read_only=True)
    try:
        return _run(reader, sql, params, max_rows, timeout_seconds)
    finally:
        if reader is not db:
            reader.dispose()


def _run(
    db: Database, sql: str, params: Mapping[str, Any] | None, max_rows: int | None, timeout_seconds: float
) -> pd.DataFrame:
    with db.reading() as session:
        connection = session.connection()
        driver = connection.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            deadline = time.monotonic() + timeout_seconds
            driver.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
            usual = driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        else:
            limit = sa.func.set_config("statement_timeout", str(int(timeout_seconds * 1000)), True)
            connection.execute(sa.select(limit))
            _refuse_more_than_results(driver, sql, params)
        # a PostgreSQL server-side cursor takes one SELECT only, and sends no more rows than are fetched
        reading = connection.execution_options(stream_results=True, max_row_buffer=100, no_parameters=not params)
        try:
            result = reading.execute(sa.text(sql), dict(params)) if params else reading.exec_driver_sql(sql)
            with closing(result):
                columns = list(result.keys())
                rows = _fetched(result, None if max_rows is None else max_rows + 1)
        except exc.DBAPIError as error:
            raise _refusal(error, timeout_seconds) from None
        except exc.ResourceClosedError:
            raise InputError(
                "the statement returns no rows", place="sql", remedy="only one that reads is allowed here"
            ) from None
        except exc.StatementError as error:
            raise InputError(str(error.orig or error), place="sql") from None
        finally:
            if isinstance(driver, sqlite3.Connection):
                driver.set_progress_handler(None, 0)
                driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, usual)
    frame = answer_frame(columns, [tuple(row) for row in rows[:max_rows]])
    frame.attrs["truncated"] = max_rows is not None and len(rows) > max_rows
    return frame


def _fetched(result: sa.CursorResult[Any], most: int | None) -> list[sa.Row[Any]]:
    """The first ``most`` rows. Raises InputError where they exceed LARGEST_ANSWER."""
    rows, size = [], 0
    for row in itertools.islice(result, most):
        lengths = [len(value) for value in row if isinstance(value, str | bytes)]
        size += sum(lengths)
        if max(lengths, default=0) > LARGEST_VALUE:
            raise _too_large()
        if size > LARGEST_ANSWER:
            raise InputError(
                f"the texts and blobs of the answer are more than {LARGEST_ANSWER / 1e6:g} MB",
                place="sql",
                remedy="select fewer",
            )
        rows.append(row)
    return rows


def _refuse_more_than_results(driver: Any, sql: str, params: Mapping[str, Any] | None) -> None:
    """Raises InputError where the account has rights on the whole server and the statement would use them."""
    rights = rights_on_the_server(driver)
    if not rights:
        return
    import psycopg

    numbered = postgresql.dialect(paramstyle="numeric_dollar")
    text = str(sa.text(sql).compile(dialect=numbered)) if params else sql
    try:
        found = used(driver, text, every_right=rights[0] == EVERY_RIGHT)
    except psycopg.Error as error:
        raise _statement_error(str(error)) from None
    account = f"{driver.info.user} has {rights[0]} on this server"
    remedy = "leave it out, or connect as an account that only reads the results (`eft db grant-reader`)"
    if found.side_effects:
        raise InputError(
            f"{', '.join(found.side_effects)} may have side effects, and {account}", place="sql", remedy=remedy
        )
    if found.secrets:
        raise InputError(
            f"{', '.join(found.secrets)} may tell what is no result but the server's own, and {account}",
            place="sql",
            remedy=remedy,
        )


def _refusal(error: exc.DBAPIError, timeout_seconds: float) -> Exception:
    """The error to raise for what the database reported: InputError, or a database problem for a lost connection."""
    if error.connection_invalidated:
        return error
    said = str(error.orig).strip() or type(error.orig).__name__
    low = said.lower()
    if "interrupted" in low or "statement timeout" in low:
        return InputError(
            f"took longer than {timeout_seconds:g} s and was stopped", place="sql", remedy="add a filter or a LIMIT"
        )
    return _statement_error(said)


def _too_large() -> InputError:
    return InputError(
        f"a value has more than {LARGEST_VALUE / 1e6:g} MB",
        place="sql",
        remedy="select a part of it, as substr does",
    )


def _statement_error(said: str) -> InputError:
    said = said.strip().splitlines()[0]
    low = said.lower()
    if "not authorized" in low or "one statement" in low or "multiple commands" in low or "read-only" in low:
        return InputError(f"only one statement that reads is allowed here ({said})", place="sql")
    if "too big" in low:
        return _too_large()
    return InputError(said, place="sql")
