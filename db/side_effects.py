"""PostgreSQL: which functions and catalogues a statement uses, and a refusal where they do more than show results.

An account with every right stays what it is whatever role it takes on: one call of set_config gives it back. So no
statement of such an account may call a function with side effects, or read what the server keeps from its ordinary
accounts: passwords, its configuration and files, the sessions of others. The same holds for an account that has some
right on the whole server. The server says what a statement would use: it parses the statement without running it,
resolves names, operators and casts, and shows the tree that it made.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

READER = "pg_read_all_data"
"""The role that an account with every right takes on: it reads every table, and nothing else."""

EVERY_RIGHT = "every right"

_HARMLESS = ["random", "pg_relation_size", "pg_table_size", "pg_total_relation_size", "pg_database_size"]
"""Volatile, since they give another value each time, and no more than that."""

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
"""Only an account with every right can keep the trees out of the server's log."""

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
"""What ordinary accounts may not read, what reads tables named in a text, what shows more to some than to others."""


class Used(NamedTuple):
    """What of a statement is refused: functions with side effects, and catalogues and functions that tell secrets."""

    side_effects: list[str]
    secrets: list[str]


def rights_on_the_server(driver: Any) -> list[str]:
    """What the account of this psycopg connection may do beyond a database of its own, whatever role it has now."""
    return [right for (right,) in driver.execute(_RIGHTS)]


def used(driver: Any, sql: str, *, every_right: bool) -> Used:
    """What ``sql`` would call and read that is refused to an account with rights on the server; nothing is run.

    Args:
        driver: a psycopg connection of such an account, within a transaction.
        sql: the statement, its parameters as $1, $2, ...
        every_right: the account is a superuser; it has the role READER then.

    Raises psycopg.Error where that is not one statement, or not one that the server understands.
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
