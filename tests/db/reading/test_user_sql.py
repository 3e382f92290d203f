"""SQL written by people reads, and nothing they can write changes anything."""

from __future__ import annotations

import re
import sqlite3
import uuid

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from db.errors import DatabaseReadOnly
from db.reading.user_sql import select
from db.schema.models import Study
from db.session import Database
from db.upkeep.readers import grant_reader
from db.writing.repository import record_study
from eftcore.errors import InputError
from tests.db.conftest import let_through


@pytest.fixture
def rows(db: Database, count_rows):
    """One study in the database; called after the test it proves that nothing changed."""
    record_study(db, name="kept", digest="a" * 64, spec={}, runs_asked=1)
    before = count_rows(db)
    yield
    assert count_rows(db) == before
    with db.reading() as session:
        assert session.scalars(sa.select(Study.name)).all() == ["kept"]


def test_reads(rows, read_only):
    frame = select(read_only, "SELECT id, name FROM studies")
    assert frame.to_dict("records") == [{"id": 1, "name": "kept"}]
    assert frame.attrs["truncated"] is False


def test_a_writable_database_is_read_the_same_way(rows, db):
    assert select(db, "-- how many\nWITH s AS (SELECT * FROM studies) SELECT count(*) AS n FROM s").n.tolist() == [1]
    with pytest.raises(InputError):
        select(db, "DELETE FROM studies")


def test_parameters_and_odd_characters(rows, read_only):
    frame = select(read_only, "SELECT name FROM studies WHERE name = :name", {"name": "kept"})
    assert frame.name.tolist() == ["kept"]
    injected = select(read_only, "SELECT name FROM studies WHERE name = :name", {"name": "x' OR '1' = '1"})
    assert injected.empty
    assert select(read_only, "SELECT '100% :not_a_parameter' AS text").text.tolist() == ["100% :not_a_parameter"]


def test_numbers_are_numbers_and_times_are_utc(rows, read_only):
    frame = select(
        read_only, "SELECT avg(i) AS mean, round(CAST(0.12345 AS numeric), 2) AS short FROM (SELECT 1 AS i) t"
    )
    assert frame.to_dict("records") == [{"mean": 1.0, "short": 0.12}]
    assert {type(value) for value in frame.iloc[0]} <= {float, np.float64}
    created = pd.to_datetime(select(read_only, "SELECT created_at FROM studies").created_at, utc=True)
    assert abs(created.iloc[0] - pd.Timestamp.now("UTC")) < pd.Timedelta(hours=1)


def test_missing_parameter_is_a_clear_error(rows, read_only):
    with pytest.raises(InputError, match="name"):
        select(read_only, "SELECT * FROM studies WHERE name = :name", {"other": 1})


def test_rows_are_capped_and_say_so(rows, read_only):
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT i FROM n"
    capped = select(read_only, many, max_rows=20)
    assert (len(capped), capped.attrs["truncated"]) == (20, True)
    exact = select(read_only, many, max_rows=500)
    assert (len(exact), exact.attrs["truncated"]) == (500, False)


def test_every_row_is_read_on_request(rows, read_only):
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000) SELECT i FROM n"
    whole = select(read_only, many, max_rows=None)
    assert (len(whole), whole.attrs["truncated"]) == (12000, False)


def test_columns_of_one_name_are_all_kept(rows, read_only):
    frame = select(read_only, "SELECT a.id, b.id, a.name AS id, b.name FROM studies a JOIN studies b ON a.id = b.id")
    assert frame.to_dict("records") == [{"id": 1, "id_2": 1, "id_3": "kept", "name": "kept"}]


def test_whole_numbers_keep_their_digits(rows, read_only):
    long = 2**62 + 1
    union = f"SELECT CAST({long} AS bigint) AS n, 0.5 AS x UNION ALL SELECT NULL, NULL UNION ALL SELECT 3, 2"
    frame = select(read_only, f"SELECT n, x FROM ({union}) t ORDER BY n IS NULL, n DESC")
    assert frame["n"].tolist() == [long, 3, pd.NA]
    assert frame["x"].tolist()[:2] == [0.5, 2.0]
    assert frame["x"].dtype == "float64"
    summed = select(read_only, f"SELECT sum(n) AS n FROM (SELECT CAST({long} AS bigint) AS n) t")
    assert summed["n"].tolist() == [long]


def test_an_endless_query_is_stopped(rows, read_only):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(InputError, match=r"took longer than 0\.2 s"):
        select(read_only, endless, timeout_seconds=0.2)
    assert select(read_only, "SELECT 1 AS one").one.tolist() == [1], "the next query is not affected"


ATTEMPTS = (
    "DELETE FROM studies",
    "  insert into studies (name, digest, spec) values ('x', 'y', '{}')",
    "UPDATE studies SET name = 'x'",
    "DROP TABLE studies",
    "CREATE TABLE other (i integer)",
    "CREATE TEMP TABLE other (i integer)",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "ATTACH DATABASE 'other.db' AS other",
    "VACUUM INTO 'copy.db'",
    "COMMIT",
    "BEGIN",
    "SET TRANSACTION READ WRITE",
    "COPY studies TO PROGRAM 'cat'",
    "COPY studies FROM '/etc/passwd'",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT set_config('role', 'none', false), pg_read_file('/etc/passwd')",
    "SELECT readfile('/etc/passwd')",
    "DO $$ BEGIN DELETE FROM studies; END $$",
    "EXPLAIN ANALYZE DELETE FROM studies",
    "SELECT 1; DELETE FROM studies",
    "SELECT 1; COMMIT; DELETE FROM studies",
    "SELECT ';'; DELETE FROM studies; --",
    "SELECT set_config('default_transaction_read_only', 'off', false); COMMIT; DELETE FROM studies",
    "SELECT E'\\''; COMMIT; DELETE FROM studies; SELECT '",
    "SELECT $$'$$; COMMIT; DELETE FROM studies; SELECT '",
    "/* SELECT */ DELETE FROM studies",
    "-- SELECT\nDELETE FROM studies",
    "WITH gone AS (DELETE FROM studies RETURNING id) SELECT * FROM gone",
    "WITH gone AS (SELECT 1) DELETE FROM studies",
    "WITH gone AS (SELECT 1) INSERT INTO studies (name, digest, spec) SELECT 'x', 'y', '{}'",
    "SELECT * INTO other FROM studies",
    "SELECT * FROM studies FOR UPDATE",
    "SELECT * FROM pragma_query_only(0)",
    "SELECT load_extension('other')",
    "SELECT nextval('studies_id_seq')",
    "SELECT lo_create(4711)",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT query_to_xml('DELETE FROM studies', true, true, '')",
    "SET ROLE NONE",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET default_transaction_read_only = off",
    "UPDATE pg_settings SET setting = 'none' WHERE name = 'role'",
    "WITH gone AS (UPDATE pg_settings SET setting = 'none' WHERE name = 'role' RETURNING 1) SELECT * FROM gone",
    "SELECT lo_export(1, 'other')",
    "SELECT * FROM dblink('host=/tmp', 'DELETE FROM studies') AS t (i integer)",
    "CALL set_config('role', 'none', false)",
    "PREPARE other AS DELETE FROM studies",
    "EXECUTE other",
    "LISTEN other",
    "LOCK TABLE studies",
    "EXPLAIN ANALYZE SELECT 1",
    "SELECT 1\0; DELETE FROM studies",
    "",
    "   ",
    "SELECTED",
    "SELECT",
)


def test_breaking_out_is_refused(rows, read_only, backend):
    harmless = {"SELECT"} if backend == "postgresql" else set()  # a row without columns
    assert let_through(read_only, ATTEMPTS).keys() == harmless


def test_even_without_our_first_look_the_database_refuses(rows, read_only, monkeypatch, backend):
    """The check of the first word only makes a better message: the database itself holds."""
    monkeypatch.setattr("db.reading.user_sql.READS", re.compile(""))
    for attempt in ATTEMPTS:
        if attempt.strip(" ") in ("", "SELECT"):
            continue
        with pytest.raises(InputError):
            select(read_only, attempt)


def test_each_lock_of_sqlite_holds_alone(sqlite_db, tmp_path):
    """Refused when compiled; and with that gone, by the connection; and with that gone too, by the open file."""
    record_study(sqlite_db, name="kept", digest="a" * 64, spec={}, runs_asked=1)
    other = tmp_path / "other.db"
    database = Database(sqlite_db.url, read_only=True)
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        for statement in ("DELETE FROM studies", "PRAGMA query_only = OFF", f"ATTACH '{other}' AS other"):
            with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
                driver.execute(statement)
        driver.set_authorizer(None)
        assert driver.execute("PRAGMA query_only").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            driver.execute("DELETE FROM studies")
        driver.execute("PRAGMA query_only = OFF")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            driver.execute("DELETE FROM studies")
        connection.invalidate()
    database.dispose()
    assert not other.exists()


SUPERUSERS_ATTEMPTS = (
    *("SELECT set_config('role', 'none', false)", "SELECT pg_catalog.set_config('role', 'none', true) FROM studies"),
    "SELECT U&\"set\\005fconfig\"('session_authorization', 'postgres', false)",
    "SELECT set_config('role', 'none', false), query_to_xml('SELECT pg_read_file(''/etc/passwd'')', true, true, '')",
    "SELECT set_config('role', 'none', true), (SELECT pg_terminate_backend(pg_backend_pid()))",
    "SELECT 1 WHERE set_config('role', 'none', false) = 'none'",
    "SELECT 1 ORDER BY (SELECT set_config('role', 'none', false))",
    "SELECT 1 LIMIT length(set_config('role', 'none', false))",
    "SELECT count(*) FILTER (WHERE set_config('role', 'none', false) = 'none') OVER () FROM studies",
    "SELECT * FROM set_config('role', 'none', false)",
    "SELECT * FROM ROWS FROM (set_config('role', 'none', false)) WITH ORDINALITY",
    "SELECT * FROM studies JOIN LATERAL set_config('role', 'none', false) ON true",
    "SELECT ARRAY[set_config('role', 'none', false)] || ARRAY['']",
    "WITH x AS (SELECT set_config('role', 'none', false)) SELECT 1 FROM x",
    "WITH RECURSIVE x AS (SELECT 'a' UNION SELECT set_config('role', 'none', false) FROM x) SELECT * FROM x",
    "SELECT * FROM XMLTABLE('/a' PASSING CAST(set_config('role', 'none', false) AS xml) COLUMNS a text)",
    "SELECT * FROM JSON_TABLE(jsonb '1', '$' COLUMNS (a text PATH '$' DEFAULT set_config('a.b', 'c', false) ON EMPTY))",
    *("SELECT pg_sleep(1)", "SELECT pg_advisory_lock(1)", "SELECT pg_cancel_backend(1)", "SELECT pg_reload_conf()"),
    *("SELECT pg_notify('a', 'b')", "SELECT pg_stat_reset()", "SELECT setseed(0.5)", "SELECT ours()", "SELECT 1 <+> 2"),
    *(
        "SELECT ts_rewrite('a'::tsquery, 'SELECT 1')",
        "SELECT * FROM ts_stat('SELECT set_config(''role'', ''x'', true)')",
    ),
)
"""Takes up rights that were laid down, by every place of a SELECT that can hold a call; and other side effects."""


@pytest.fixture
def server_functions(db, backend):
    """A function and an operator that somebody added, which count as free of side effects and are not."""
    if backend == "postgresql":
        with db.session() as session:
            session.execute(
                sa.text("CREATE FUNCTION ours() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'x'; END $$")
            )
            session.execute(
                sa.text(
                    "CREATE FUNCTION added(a int, b int) RETURNS int IMMUTABLE LANGUAGE plpgsql"
                    " AS $$ BEGIN RETURN a + b; END $$"
                )
            )
            session.execute(sa.text("CREATE OPERATOR <+> (LEFTARG = int, RIGHTARG = int, FUNCTION = added)"))


@pytest.mark.usefixtures("server_functions")
def test_every_right_once_laid_down_is_not_taken_up_again(rows, read_only, backend):
    refusal = "may have side effects, and .* has every right" if backend == "postgresql" else "^sql: "
    for attempt in SUPERUSERS_ATTEMPTS:
        with pytest.raises(InputError, match=refusal):
            select(read_only, attempt)


def test_what_people_compute_with_is_no_side_effect(rows, read_only, backend):
    select(read_only, "SELECT count(*), sum(id), min(name), max(length(name)), abs(-1), coalesce(NULL, 2) FROM studies")
    select(
        read_only, "SELECT random(), row_number() OVER (ORDER BY id), upper(name) || 'x' FROM studies ORDER BY random()"
    )
    if backend == "postgresql":
        select(read_only, "SELECT now(), percentile_cont(0.5) WITHIN GROUP (ORDER BY id), stddev(id) FROM studies")
        select(
            read_only, "SELECT i::text ~ '1', to_char(now(), 'YYYY'), i::regclass FROM generate_series(1, 3) AS t (i)"
        )
        select(read_only, "SELECT jsonb_agg(s), array_agg(id), string_agg(name, ',') FROM studies AS s")
        select(read_only, "SELECT id, :a || name FROM studies WHERE name LIKE '%' AND id > :b", {"a": "x", "b": 0})


@pytest.fixture
def ordinary(url, backend):
    """The database opened by an account that reads the tables and has no other right."""
    if backend == "sqlite":
        yield Database(url, read_only=True)
        return
    name = f"reader_{uuid.uuid4().hex[:8]}"
    owner = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    grant_reader(url, name)
    database = Database(sa.make_url(url).set(username=name, password="secret"), read_only=True)
    yield database
    database.dispose()
    with owner.connect() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
        connection.exec_driver_sql(f"DROP ROLE {name}")
    owner.dispose()


def test_an_ordinary_account_cannot_break_out_either(rows, ordinary):
    for attempt in ATTEMPTS:
        if attempt == "SELECT":
            continue  # a row without columns is legal on PostgreSQL, and harmless
        with pytest.raises(InputError, match=r"^sql: "):
            select(ordinary, attempt)


def test_settings_changed_by_a_query_do_not_open_the_next_one(rows, ordinary, backend):
    if backend == "postgresql":
        select(ordinary, "SELECT set_config('default_transaction_read_only', 'off', false)")
        select(ordinary, "SELECT set_config('statement_timeout', '0', false)")
        with pytest.raises(InputError, match="took longer"):
            select(ordinary, "SELECT pg_sleep(5)", timeout_seconds=0.2)
    with pytest.raises(InputError, match="took longer"):
        select(
            ordinary,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
            None,
            1,
            0.2,
        )
    with pytest.raises(DatabaseReadOnly), ordinary.session() as session:
        session.execute(sa.delete(Study))


def test_a_mistake_is_told_in_one_line(rows, read_only):
    for mistake, word in (("SELECT nme FROM studies", "nme"), ("SELECT * FROM study", "study")):
        with pytest.raises(InputError, match=word) as caught:
            select(read_only, mistake)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="max_rows"):
        select(read_only, "SELECT 1", max_rows=0)
