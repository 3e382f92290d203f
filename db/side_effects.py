"""PostgreSQL: which functions and catalogues a statement uses, and a refusal where they do more than show results.

A superuser who takes on a role with fewer rights can leave it by one call of set_config. So no statement of such an
account may call a function with side effects, or read what the server hides from ordinary accounts: passwords, its
configuration and files, the sessions of others. The same holds for an account that has some right on the whole server.
The server itself tells what a statement would use: it parses the statement without running it, resolves names,
operators and casts, and prints the resulting tree.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

READER = "pg_read_all_data"
"""The role that a superuser takes on for reading: it can read every table, and do nothing else."""

EVERY_RIGHT = "every right"

_HARMLESS = ["random", "pg_relation_size", "pg_table_size", "pg_total_relation_size", "pg_database_size"]
"""Functions that are volatile only because they return another value each time; they have no side effects."""

_FUNCTION = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)")
_RELATION = re.compile(r":relid (\d+)")

_RIGHTS = f"""
    SELECT '{EVERY_RIGHT}' FROM pg_catalog.pg_roles WHERE rolname = session_user AND rolsuper
    UNION ALL
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname LIKE 'pg\\_%' AND rolname <> 'pg_database_owner'
    AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER')
    UNION ALL
    SELECT 'the right to read pg_authid' WHERE has_table_privilege(session_user, 'pg_catalog.pg_authid', 'SELECT')
"""

_SHOW_TREES = "SELECT set_config('client_min_messages', 'log', true), set_config('debug_print_parse', 'on', true)"

_SHOW_TREES_IN_PRIVATE = """
    SELECT set_config('role', 'none', true), set_config('log_min_messages', 'fatal', true),
           set_config('client_min_messages', 'log', true), set_config('debug_print_parse', 'on', true),
           set_config('role', %s, true)
"""
"""Keeps the printed trees out of the server's log, which only a superuser may do."""

_HIDE_TREES = "SELECT set_config('debug_print_parse', 'off', true), set_config('client_min_messages', 'notice', true)"

_WITH_SIDE_EFFECTS = """
    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc WHERE oid = ANY(%s)
    AND (pronamespace <> 'pg_catalog'::regnamespace OR provolatile = 'v' AND proname <> ALL(%s)) ORDER BY 1
"""

_SECRET = """
    SELECT oid::regclass::text FROM pg_catalog.pg_class WHERE oid = ANY(%s)
    AND relnamespace IN (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^(pg_|information_schema$)')
    AND (NOT has_table_privilege('public', oid, 'SELECT') OR relname ~ '^pg_stat')
    UNION ALL
    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc WHERE oid = ANY(%s)
    AND (NOT has_function_privilege('public', oid, 'EXECUTE')
         OR proname ~ '^pg_stat_get_|^pg_show_all_|(table|schema|database|cursor|query)_to_xml')
    ORDER BY 1
"""
"""Catalogues and functions that are refused: those that ordinary accounts may not read, that read tables named in a
text, or that show more to privileged accounts."""


class Used(NamedTuple):
    """What is refused in a statement: functions with side effects, and catalogues and functions that show secrets."""

    side_effects: list[str]
    secrets: list[str]


def rights_on_the_server(driver: Any) -> list[str]:
    """Rights of the account of this psycopg connection on the whole server, whatever role it has taken on."""
    return [right for (right,) in driver.execute(_RIGHTS)]


def used(driver: Any, sql: str, *, every_right: bool) -> Used:
    """What a statement would call and read that is refused to an account with rights on the server; it is not run.

    Args:
        driver: a psycopg connection of such an account, within a transaction.
        sql: the statement, its parameters as $1, $2, ...
        every_right: whether the account is a superuser, which has taken on the role READER.

    Raises psycopg.Error where ``sql`` is not exactly one statement, or the server does not understand it.
    """
    from psycopg import errors, pq

    trees: list[str] = []

    def note(said: Any) -> None:
        trees.append(said.message_detail or "")

    if every_right:
        driver.execute(_SHOW_TREES_IN_PRIVATE, [READER])
    else:
        driver.execute(_SHOW_TREES)
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
    functions, relations = (
        sorted({int(oid) for tree in trees for oid in kind.findall(tree)}) for kind in (_FUNCTION, _RELATION)
    )
    with_side_effects = [name for (name,) in driver.execute(_WITH_SIDE_EFFECTS, [functions, _HARMLESS])]
    return Used(with_side_effects, [name for (name,) in driver.execute(_SECRET, [relations, functions])])
