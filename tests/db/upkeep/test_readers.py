"""Readers on PostgreSQL see the results and nothing else; and `eft sql` shows no account the secrets of the server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from db.reading.user_sql import select
from db.schema.models import Base
from db.schema.views import VIEWS
from db.session import Database
from db.upkeep import migrate, readers
from db.writing.repository import record_study
from eftcore.errors import InputError
from tests.db.conftest import let_through


@pytest.fixture
def backend() -> str:
    """Accounts are PostgreSQL's; who reads an SQLite file is for the file's permissions to say."""
    return "postgresql"


@pytest.fixture
def owner(url: sa.URL) -> Iterator[sa.Connection]:
    """A superuser's connection to the database."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def role(owner: sa.Connection) -> Iterator[str]:
    """A new account whose name needs quotes, without any right."""
    name = f'Reader "{uuid.uuid4().hex[:8]}"'
    quoted = owner.dialect.identifier_preparer.quote(name)
    owner.exec_driver_sql(f"CREATE ROLE {quoted} LOGIN PASSWORD 'secret'")
    yield name
    owner.exec_driver_sql(f"DROP OWNED BY {quoted}")
    owner.exec_driver_sql(f"DROP ROLE {quoted}")


def _as(url: sa.URL, name: str) -> Database:
    return Database(url.set(username=name, password="secret"), read_only=True)


SECRETS = (
    *("SELECT * FROM pg_shadow", "SELECT passwd FROM pg_catalog.pg_shadow", "SELECT * FROM pg_authid"),
    *("SELECT 1 WHERE EXISTS (SELECT FROM pg_authid WHERE rolpassword LIKE 'SCRAM%')",),
    *("SELECT (SELECT max(passwd) FROM pg_shadow)", "WITH s AS (SELECT * FROM pg_shadow) SELECT * FROM s"),
    *("SELECT * FROM studies JOIN LATERAL (SELECT * FROM pg_authid) a ON true", "TABLE pg_shadow"),
    *("SELECT * FROM pg_hba_file_rules", "SELECT * FROM pg_hba_file_rules()", "SELECT * FROM pg_file_settings"),
    *(
        "SELECT * FROM pg_ident_file_mappings",
        "SELECT subconninfo FROM pg_subscription",
        "SELECT * FROM pg_user_mapping",
    ),
    *("SELECT * FROM pg_largeobject", "SELECT lo_get(1)", "SELECT * FROM pg_statistic"),
    *("SELECT pg_read_file('/etc/passwd')", "SELECT pg_read_binary_file('/etc/passwd')", "SELECT pg_ls_dir('/')"),
    *("SELECT pg_stat_file('/etc/passwd')", "SELECT * FROM pg_ls_logdir()", "SELECT lo_import('/etc/passwd')"),
    *("SELECT table_to_xml('pg_authid', true, true, '')", "SELECT table_to_xml('pg_shadow'::regclass, true, true, '')"),
    *("SELECT schema_to_xml('pg_catalog', true, true, '')", "SELECT database_to_xml(true, true, '')"),
    *("SELECT query_to_xml('TABLE pg_authid', true, true, '')", "SELECT pg_current_logfile()"),
)
SESSIONS_OF_OTHERS = (
    *("SELECT * FROM pg_stat_ssl", "SELECT query FROM pg_stat_activity", "SELECT * FROM pg_stat_gssapi"),
    *("SELECT * FROM pg_stat_replication", "SELECT * FROM pg_stat_get_activity(NULL)"),
)


def test_a_superuser_reads_no_secret_by_eft_sql(read_only):
    assert let_through(read_only, (*SECRETS, *SESSIONS_OF_OTHERS)) == {}


@pytest.mark.parametrize(
    "power", ["pg_read_all_data", "pg_read_server_files", "pg_monitor", "pg_execute_server_program"]
)
def test_nor_does_an_account_with_rights_on_the_whole_server(url, owner, role, power):
    quoted = owner.dialect.identifier_preparer.quote(role)
    owner.exec_driver_sql(f"GRANT {power} TO {quoted}")
    readers.grant_reader(url, role)
    reader = _as(url, role)
    try:
        assert select(reader, "SELECT count(*) AS n FROM v_runs").n.tolist() == [0]
        assert let_through(reader, (*SECRETS, *SESSIONS_OF_OTHERS)) == {}
    finally:
        reader.dispose()


def test_a_reader_sees_the_results_and_nothing_else(db, url, owner, role):
    record_study(db, name="kept", digest="a" * 64, spec={}, runs_asked=1)
    owner.exec_driver_sql("CREATE TABLE others (secret text)")
    reader = _as(url, role)
    try:
        with pytest.raises(InputError, match="permission denied"):
            select(reader, "SELECT * FROM studies")
        readers.grant_reader(url, role)
        for table in (*Base.metadata.tables, *(view.name for view in VIEWS), migrate.VERSION_TABLE):
            select(reader, f"SELECT * FROM {table}")
        migrate.require_current(reader.url)
        assert let_through(reader, (*SECRETS, "SELECT * FROM others")) == {}
        writing = Database(reader.url)
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), writing.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM studies"))
        writing.dispose()
    finally:
        reader.dispose()


def test_readers_stay_readers_when_the_tables_change(url, owner, role):
    readers.grant_reader(url, role)
    migrate.downgrade(url, "0002_lifecycle")
    migrate.upgrade(url)
    reader = _as(url, role)
    try:
        assert select(reader, "SELECT count(*) AS n FROM v_theory_windows").n.tolist() == [0]
    finally:
        reader.dispose()


def test_what_people_look_up_stays_readable(read_only):
    for lookup in (
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_name = 'v_runs'",
        "SELECT relname, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace",
        "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
        "SELECT rolname FROM pg_roles",
        "SELECT pg_size_pretty(pg_total_relation_size('runs')) AS size, current_user, version()",
    ):
        select(read_only, lookup)


def test_what_cannot_be_granted_is_said(url, sqlite_db, owner, role):
    with pytest.raises(InputError, match=r"role = 'nobody-here': there is no such role .* CREATE ROLE"):
        readers.grant_reader(url, "nobody-here")
    for wrong in ("", "a\0b", "public"):
        with pytest.raises(InputError, match="role = "):
            readers.grant_reader(url, wrong)
    with pytest.raises(InputError, match=r"SQLite .* permissions of the file"):
        readers.grant_reader(sqlite_db.url, "reader")
    assert readers.grant_reader(url, role) == []
    quoted = owner.dialect.identifier_preparer.quote(role)
    owner.exec_driver_sql(f"GRANT pg_read_all_data TO {quoted}")
    (more,) = readers.grant_reader(url, role)
    assert "pg_read_all_data" in more
    assert "REVOKE" in more
