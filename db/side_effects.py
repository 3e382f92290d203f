"""PostgreSQL: which functions a statement calls, and a refusal where one of them does more than compute.

An account with every right stays what it is whatever role it takes on: one call of set_config gives it back. So no
statement of such an account may call a function with side effects. The server says which functions it would call: it
parses the statement without running it, resolves names, operators and casts, and shows the tree that it made.
"""

from __future__ import annotations

import re
from typing import Any

READER = "pg_read_all_data"
"""The role that an account with every right takes on: it reads every table, and nothing else."""

_HARMLESS = ["random"]
"""Volatile, since they give another value each time, and no more than that."""

_FUNCTION = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)")

_SHOW_TREES = """
    SELECT set_config('role', 'none', true), set_config('log_min_messages', 'fatal', true),
           set_config('client_min_messages', 'log', true), set_config('debug_print_parse', 'on', true),
           set_config('role', %s, true)
"""

_HIDE_TREES = "SELECT set_config('debug_print_parse', 'off', true), set_config('client_min_messages', 'notice', true)"

_WITH_SIDE_EFFECTS = """
    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc WHERE oid = ANY(%s)
    AND (pronamespace <> 'pg_catalog'::regnamespace OR provolatile = 'v' AND proname <> ALL(%s)) ORDER BY 1
"""


def has_every_right(driver: Any) -> bool:
    """Whether the account of this psycopg connection is a superuser, whatever role it has now."""
    found = driver.execute("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user").fetchone()
    return bool(found and found[0])


def functions_with_side_effects(driver: Any, sql: str) -> list[str]:
    """Functions that ``sql`` would call and that are volatile or no part of PostgreSQL itself; nothing is run.

    Args:
        driver: a psycopg connection of an account with every right, within a transaction; it has the role READER then.
        sql: the statement, its parameters as $1, $2, ...

    Raises psycopg.Error where that is not one statement, or not one that the server understands.
    """
    from psycopg import errors, pq

    trees: list[str] = []

    def note(said: Any) -> None:
        trees.append(said.message_detail or "")

    driver.execute(_SHOW_TREES, [READER])
    driver.add_notice_handler(note)
    try:
        parsed = driver.pgconn.prepare(b"", sql.encode(driver.info.encoding))
    finally:
        driver.remove_notice_handler(note)
    if parsed.status != pq.ExecStatus.COMMAND_OK:
        raise errors.error_from_result(parsed, encoding=driver.info.encoding)
    driver.execute(_HIDE_TREES)
    if not any("QUERY" in tree for tree in trees):
        raise errors.FeatureNotSupported("the server does not show how it understands the statement")
    called = {int(oid) for tree in trees for oid in _FUNCTION.findall(tree)}
    return [name for (name,) in driver.execute(_WITH_SIDE_EFFECTS, [sorted(called), _HARMLESS])]
