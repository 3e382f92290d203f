"""Migrations: the newest revision is what the models say; up and down with data; several upgrades at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from db.errors import DatabaseMissing, SchemaOutdated
from db.reading import queries
from db.schema.models import Base
from db.schema.views import VIEWS
from db.session import Database
from db.upkeep import maintenance, migrate
from eftcore.errors import InputError
from tests.db import workers
from tests.db.upkeep.released import RELEASED, put_released

ROOT = Path(__file__).resolve().parents[3]


def _tables(engine: sa.Engine) -> dict[str, Any]:
    """Everything the database knows about its tables, in an order of its own."""
    inspector = sa.inspect(engine)
    described = {}
    for name in sorted(set(inspector.get_table_names()) - {migrate.VERSION_TABLE}):
        columns = {
            column["name"]: (str(column["type"]), column["nullable"], column["default"])
            for column in inspector.get_columns(name)
        }
        described[name] = {
            "columns": columns,
            "primary key": inspector.get_pk_constraint(name)["constrained_columns"],
            "foreign keys": sorted(
                (key["name"], key["constrained_columns"], key["referred_table"], str(key["options"]))
                for key in inspector.get_foreign_keys(name)
            ),
            "unique": sorted((str(key["name"]), key["column_names"]) for key in inspector.get_unique_constraints(name)),
            "checks": sorted((str(key["name"]), key["sqltext"]) for key in inspector.get_check_constraints(name)),
            "indexes": sorted((str(key["name"]), key["column_names"]) for key in inspector.get_indexes(name)),
            "options": inspector.get_table_options(name),
        }
    return described


def _create_all(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    return engine


def test_autogenerate_finds_nothing(url):
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": migrate.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_newest_revision_is_exactly_what_the_models_say(url, empty_url, backend, tmp_path, postgresql_server):
    """Also what autogenerate does not look at: checks, defaults, names, options of each table."""
    migrated = sa.create_engine(url)
    from_models = None
    try:
        if backend == "sqlite":
            from_models = _create_all(sa.URL.create("sqlite", database=str(tmp_path / "models.db")))
        else:
            from_models = _create_all(empty_url)
        assert _tables(migrated) == _tables(from_models)
    finally:
        migrated.dispose()
        if from_models is not None:
            from_models.dispose()


def test_views_have_the_columns_that_queries_expect(db):
    with db.reading() as session:
        views = sa.inspect(session.connection()).get_view_names()
        assert sorted(views) == sorted(view.name for view in VIEWS)
        for view in VIEWS:
            result = session.execute(sa.text(f"SELECT * FROM {view.name}"))
            assert list(result.keys()) == [column.name for column in view.c]


def test_states_of_a_database(empty_url, backend):
    if backend == "sqlite":
        with pytest.raises(DatabaseMissing, match="eft db upgrade"):
            migrate.require_current(empty_url)
        with pytest.raises(DatabaseMissing, match="eft db upgrade"):
            migrate.current(empty_url)
        assert not Path(str(empty_url.database)).exists(), "looking creates nothing"
    else:
        with pytest.raises(SchemaOutdated, match=r"no tables yet.*eft db upgrade"):
            migrate.require_current(empty_url)
        assert migrate.current(empty_url) is None
        assert migrate.info(empty_url)["up_to_date"] is False
    assert migrate.upgrade(empty_url) == migrate.head()
    assert migrate.current(empty_url) == migrate.head()
    migrate.require_current(empty_url)
    assert migrate.upgrade(empty_url) == migrate.head()


def test_old_and_newer_schemas_say_what_to_do(url):
    database = Database(url)
    for revision, word in ((None, "eft db upgrade"), ("9999_from_the_future", "update the program")):
        with database.session() as session:
            session.execute(sa.text(f"DELETE FROM {migrate.VERSION_TABLE}"))
            if revision is not None:
                session.execute(sa.text(f"INSERT INTO {migrate.VERSION_TABLE} VALUES ('{revision}')"))
        with pytest.raises(SchemaOutdated, match=word):
            migrate.require_current(url)
    with pytest.raises(SchemaOutdated, match="update the program"):
        migrate.upgrade(url)
    database.dispose()


def test_up_and_down_with_data(url, record_all):
    database = Database(url)
    record_all(database)
    before = queries.windows(database)
    database.dispose()
    assert migrate.info(url)["rows"]["runs"] == 4

    migrate.downgrade(url, "base")
    with pytest.raises(SchemaOutdated, match="no tables yet"):
        migrate.require_current(url)
    engine = sa.create_engine(url)
    assert sa.inspect(engine).get_table_names() == [migrate.VERSION_TABLE]
    assert sa.inspect(engine).get_view_names() == []
    engine.dispose()

    migrate.upgrade(url)
    record_all(database)
    again = queries.windows(database)
    pd.testing.assert_frame_equal(before, again)
    database.dispose()


def test_failing_migration_leaves_nothing(empty_url, monkeypatch):
    """The views come after the tables: when one is broken, the tables go too."""

    def fail(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("CREATE VIEW v_trajectories"):
            raise OSError("the machine stopped here")

    sa.event.listen(sa.Engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(OSError, match="stopped here"):
            migrate.upgrade(empty_url)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", fail)
    engine = sa.create_engine(empty_url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
    migrate.upgrade(empty_url)
    migrate.require_current(empty_url)


@pytest.mark.parametrize(
    ("backend", "start"),
    [
        ("sqlite", "empty"),
        ("postgresql", "released"),
        pytest.param("sqlite", "released", marks=pytest.mark.campaign),
        pytest.param("postgresql", "empty", marks=pytest.mark.campaign),
    ],
    indirect=["backend"],
)
def test_ten_processes_upgrade_at_once(empty_url, start):
    if start == "released":
        put_released(empty_url, RELEASED[0])
    address = empty_url.render_as_string(hide_password=False)
    answers = workers.run_together(workers.upgrade, [(address,)] * 10)
    assert answers == [(0, migrate.head())] * 10
    assert maintenance.check(empty_url) == []


def test_unknown_revision_is_named(url):
    with pytest.raises(InputError, match="0001_first_tables"):
        migrate.downgrade(url, "0000_before_time")
    migrate.require_current(url)


def test_info(url, db, record_all):
    record_all(db)
    info = migrate.info(url)
    assert info["up_to_date"] is True
    # at three tolerances: mean predicts K0, source_only also V4, g_only also K1
    assert info["rows"]["validity_windows"] == 3 * (1 + 2 + 3)
    assert info["bytes"] > 30_000
    assert info["server"].split()[0] == url.get_backend_name()


def test_revisions_are_readable_and_in_one_line():
    names = sorted(path.stem for path in (ROOT / "alembic" / "versions").glob("*.py"))
    assert names[-1] == migrate.head()
    assert [name[:4] for name in names] == [f"{number:04d}" for number in range(1, len(names) + 1)]


def test_migrations_do_not_import_the_models():
    """A revision is a frozen copy: what it creates must not change with the program."""
    for path in (ROOT / "alembic" / "versions").glob("*.py"):
        text = path.read_text()
        assert "from db" not in text, path
        assert "import db" not in text, path


def test_folder_of_migrations_does_not_hide_the_library():
    """With an __init__.py it would be imported in place of the real alembic from the root of a checkout."""
    assert not (ROOT / "alembic" / "__init__.py").exists()
    found = subprocess.run(
        [sys.executable, "-c", "import alembic.command; print(alembic.__version__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip()


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.campaign)], indirect=True)
def test_alembic_command_works_from_a_checkout(empty_url, monkeypatch):
    monkeypatch.setenv("EFT_DATABASE_URL", empty_url.render_as_string(hide_password=False))
    for arguments in (["upgrade", "head"], ["check"]):
        subprocess.run([sys.executable, "-m", "alembic", *arguments], cwd=ROOT, check=True, capture_output=True)
    migrate.require_current(empty_url)


def test_importing_opens_nothing(tmp_path):
    code = "import db.upkeep.migrate, db.schema.models, db.reading.queries, db.writing.repository, db.session"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONPATH": str(ROOT)})
    assert list(tmp_path.iterdir()) == []
