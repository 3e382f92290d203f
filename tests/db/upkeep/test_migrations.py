"""Migrations: the newest revision is what the models say; up and down with data; several upgrades at once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import eftcore as eft
from db.errors import DatabaseMissing, SchemaOutdated
from db.reading import queries
from db.reading.stored_results import stored_results
from db.reading.study_queries import study_progress
from db.schema.models import Base
from db.schema.views import VIEWS
from db.session import Database
from db.upkeep import maintenance, migrate
from db.writing import care, claims
from db.writing.repository import mark_pending, mark_running, record_comparison, record_prediction
from eftcore.errors import InputError
from tests.db import workers

ROOT = Path(__file__).resolve().parents[3]
OF_BLOCKS = [
    f"column model_configurations.{name}"
    for name in ("block", "normalisation", "hidden_ratio", "hidden_weight_variance", "hidden_bias_variance")
]
"""What a downgrade below 0013 says it drops."""

OF_CHECKS = ["table checked_blocks with 0 rows"], ["table module_checks with 0 rows"]
"""What one below 0015 says it drops, before and after what belongs to models."""

OF_CARE = [f"table {name} with 0 rows" for name in ("saved_views", "study_annotations", "study_tags")]
"""What a downgrade below 0014 says it drops, where users wrote nothing."""

RELEASED = sorted((Path(__file__).parents[1] / "released").glob("*.db"))
"""A database as each released revision left it: one study, two simulations of real networks, a failed run; the later
runs up to number 40 were deleted. From 0002 on also a top-up, a Wick prediction that chose its order, a pending run;
from 0003 on a closure held against that prediction; from 0004 on windows that say from where they are resolved; from
0005 on elapsed times; from 0008 on a prediction with the next order in 1/n; from 0009 on from which widths on its
predictions hold; from 0010 on its third cumulant; from 0011 on a measurement of it; from 0014 on what users wrote.
None says how many runs its study asks for, and its simulations are of a version without histograms."""

ON_EACH_KIND = [
    pytest.param(
        backend,
        path,
        id=f"{backend}-{path.stem}",
        marks=[pytest.mark.campaign] if backend == "postgresql" and path not in (RELEASED[0], RELEASED[-1]) else [],
    )
    for backend in ("sqlite", "postgresql")
    for path in RELEASED
]
"""All of them in SQLite; the oldest, which takes every revision, and the newest also in PostgreSQL, and there as a
campaign those between."""


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


@pytest.mark.parametrize("start", ["empty", "released"])
def test_ten_processes_upgrade_at_once(empty_url, start):
    if start == "released":
        _put_released(empty_url, RELEASED[0])
    address = empty_url.render_as_string(hide_password=False)
    answers = workers.run_together(workers.upgrade, [(address,)] * 10)
    assert answers == [(0, migrate.head())] * 10
    assert maintenance.check(empty_url) == []


def _put_released(url: sa.URL, path: Path) -> None:
    """The database of a released revision as it was: the file itself, or its rows on PostgreSQL."""
    if url.get_backend_name() == "sqlite":
        shutil.copy(path, str(url.database))
        return
    migrate.upgrade(url, path.stem)
    old, new = sa.create_engine(f"sqlite:///{path}"), sa.create_engine(url)
    tables = sa.MetaData()
    tables.reflect(new, only=lambda name, _: name != migrate.VERSION_TABLE)
    with old.connect() as source, new.begin() as target:
        for table in tables.sorted_tables:
            rows = source.execute(sa.select(table)).mappings().all()
            if rows:
                target.execute(table.insert(), [dict(row) for row in rows])
            if "id" in table.c:
                last = source.scalar(sa.text(f"SELECT seq FROM sqlite_sequence WHERE name = '{table.name}'"))
                target.execute(sa.select(sa.func.setval(f"{table.name}_id_seq", last)))
    old.dispose()
    new.dispose()


def _contents(url: sa.URL, tables: set[str]) -> dict[str, list[str]]:
    """Every row of some tables, as text."""
    engine = sa.create_engine(url)
    stored = sa.MetaData()
    stored.reflect(engine, only=sorted(tables))
    with engine.connect() as connection:
        found = {
            table.name: sorted(str(sorted(row.items())) for row in connection.execute(sa.select(table)).mappings())
            for table in stored.sorted_tables
        }
    engine.dispose()
    return found


LOST = {
    "error_metrics": ("error_low", "error_high", "resolution"),
    "validity_windows": ("resolved_from", "numerical_error", "confidence", "certified_until"),
}
"""Columns that the way back to revision 0003 empties, or fills with what it knew."""


def _without(rows: list[str], columns: tuple[str, ...]) -> list[str]:
    """Rows as _contents gives them, without the values of some columns."""
    return sorted(re.sub(rf"\('({'|'.join(columns)})', [^()]*\)", "", row) for row in rows)


@pytest.mark.parametrize(("backend", "path"), ON_EACH_KIND, indirect=["backend"])
def test_released_databases_are_upgraded_and_taken_back(empty_url, path):
    _put_released(empty_url, path)
    assert migrate.current(empty_url) == path.stem
    with pytest.raises(SchemaOutdated, match="eft db upgrade"):
        migrate.require_current(empty_url)
    engine = sa.create_engine(empty_url)
    tables = set(sa.inspect(engine).get_table_names()) - {migrate.VERSION_TABLE}
    engine.dispose()
    before = _contents(empty_url, tables)
    assert len(before["trajectory_values"]) > 200

    migrate.upgrade(empty_url)
    assert maintenance.check(empty_url) == []
    database = Database(empty_url)
    runs = queries.runs(database)
    assert runs.status.value_counts().to_dict() == Counter(re.findall("'status', '(.*?)'", str(before["runs"])))
    wick = runs[runs.closure == "wick"]
    assert wick.closure_order.tolist() == [56] * len(wick), "the order that the numerics chose"
    compared = queries.windows(database, reference_kind="theory")
    assert len(compared) == (9 if path.stem >= "0003" else 0)
    with_simulation = queries.windows(database, study="released", reference_kind="simulation")
    measured = queries.windows(database, reference_kind="measurement")
    assert len(measured) == (6 if path.stem >= "0011" else 0)
    assert len(with_simulation) + len(compared) + len(measured) == len(before["validity_windows"])
    assert queries.quantiles(database).empty, "nothing to make them of"
    assert len(queries.errors(database)) == len(before["error_metrics"])
    assert runs.next_order.sum() == (path.stem >= "0008"), "as its spec says"
    widths = queries.width_windows(database)
    assert set(widths.reference_kind) == ({"simulation", "theory"} if path.stem >= "0009" else {"simulation"})
    assert (widths.status == "unknown").all() == (path.stem < "0004"), "without bounds of the errors"
    windows = queries.windows(database)
    assert windows.confidence.isna().all() == (path.stem < "0004"), "judged by an older version"
    assert set(runs.worker_seconds.dropna()) == {1.25}
    assert set(runs.elapsed_seconds.dropna()) == ({0.5} if path.stem >= "0005" else set())
    assert study_progress(database).runs_asked.isna().all()
    precise = queries.precision(database)
    assert set(precise.simulation_run_id) == set(runs.run_id[runs.kind == "simulation"])
    arrays = queries.arrays(database, int(precise.simulation_run_id.iloc[0]))
    ratio = np.linalg.norm(arrays["V4_se"][-1]) / np.linalg.norm(arrays["V4"][-1])
    assert precise[precise.quantity == "V4"].relative_se.iloc[0] == pytest.approx(ratio, rel=1e-12)
    database.dispose()

    migrate.downgrade(empty_url, path.stem)
    kept = tables - {"algorithm_versions"}  # this program's are newer, and were here
    assert _contents(empty_url, kept) == {name: before[name] for name in kept}
    migrate.upgrade(empty_url)
    assert maintenance.check(empty_url) == []


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.campaign] * (path not in (RELEASED[0], RELEASED[-1])))
        for path in RELEASED
    ],
)
def test_ids_of_deleted_rows_are_not_used_again_after_an_upgrade(empty_url, make_theory, record_all, path):
    _put_released(empty_url, path)
    database = Database(empty_url)
    with database.session() as session:
        last = session.scalar(sa.text("SELECT max(id) FROM comparisons"))
        session.execute(sa.text("DELETE FROM comparisons"))
    migrate.upgrade(empty_url)
    assert mark_pending(database, make_theory("mean", activation="cos").spec) == 41
    assert min(record_all(database, activation="erf").comparisons.values()) == last + 1
    database.dispose()


def test_rows_below_a_comparison_survive_its_rebuilding(url, record_all, make_theory, provenance):
    """Up and down: comparisons with simulations stay to the last row; those with theories and Sigma go on the way."""
    database = Database(url)
    recorded = record_all(database)
    tables = {"comparisons", "error_metrics", "validity_windows", "trajectory_values", "kernel_trajectories"}
    before = _contents(url, tables)
    closure, better = make_theory("g_only"), make_theory("wick", order="auto")
    reference = record_prediction(database, better, provenance=provenance)
    pair = {"prediction_run_id": recorded.predictions["g_only"], "reference_run_id": reference}
    record_comparison(database, **pair, comparison=eft.compare(closure, better))
    assert len(queries.windows(database, reference_kind="theory")) == 9
    database.dispose()
    migrate.downgrade(url, "0002_lifecycle")
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        comparisons = connection.execute(sa.text("SELECT id, simulation_run_id FROM comparisons ORDER BY id")).all()
        errors = connection.scalar(sa.text("SELECT count(*) FROM error_metrics"))
        assert connection.scalar(sa.text("SELECT count(*) FROM kernel_trajectories WHERE quantity = 'Sigma'")) == 0
    engine.dispose()
    assert comparisons == [(number, recorded.simulation) for number in sorted(recorded.comparisons.values())]
    assert errors == len(before["error_metrics"])
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    after = _contents(url, tables)
    assert after["comparisons"] == before["comparisons"]
    for table, lost in LOST.items():
        assert _without(after[table], lost) == _without(before[table], lost)
    for table in ("trajectory_values", "kernel_trajectories"):
        kept = [row for row in before[table] if "'Sigma'" not in row]
        assert len(kept) < len(before[table])
        assert set(kept) < set(after[table])  # and what the reference predicts


def test_predictions_with_the_next_order_are_made_again_after_the_way_back(url, make_theory, provenance):
    database = Database(url)
    run_id = record_prediction(database, make_theory("exact", next_order=True), provenance=provenance)
    other = record_prediction(database, make_theory("g_only"), provenance=provenance)
    tables = {"trajectory_values", "kernel_trajectories"}
    before = _contents(url, tables)
    database.dispose()
    migrate.downgrade(url, "0007_runs_asked")
    after = _contents(url, tables)
    for table in tables:
        assert 0 < len(after[table]) < len(before[table])
        assert set(after[table]) < set(before[table])
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    assert queries.runs(database, run_id=other).status.tolist() == ["succeeded"]
    (run,) = queries.runs(database, run_id=run_id).itertuples()
    assert run.next_order, "as its spec says"
    assert run.status == "stale"
    assert record_prediction(database, make_theory("exact", next_order=True), provenance=provenance) == run_id
    assert queries.runs(database, run_id=run_id).status.tolist() == ["succeeded"]
    again = _contents(url, tables)
    for table in tables:
        assert sorted(again[table]) == sorted(before[table])
    database.dispose()


def test_third_cumulants_go_on_the_way_back(url, make_theory, provenance, count_rows):
    """D and K2 stay, and so does the prediction."""
    database = Database(url)
    run_id = record_prediction(database, make_theory("exact", next_order=True), provenance=provenance)
    rows, arrays = count_rows(database), queries.arrays(database, run_id)
    assert arrays.pop("T").shape == (9, 3, 3, 3)
    database.dispose()
    migrate.downgrade(url, "0009_width_windows")
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    assert queries.arrays(database, run_id).keys() == arrays.keys()
    assert queries.runs(database).status.tolist() == ["succeeded"]
    lost = {"kernel_trajectories": 1, "trajectory_values": 3 * 9}
    assert count_rows(database) == {name: count - lost.get(name, 0) for name, count in rows.items()}
    database.dispose()


def test_measurements_go_on_the_way_back(url, record_all, record_measured, make_measured, provenance, count_rows):
    """With their comparisons; what a later upgrade finds again is the same."""
    database = Database(url)
    study_id = record_all(database).study_id
    prediction, _ = record_measured(database, study_id)
    rows, windows = count_rows(database), queries.windows(database)
    measured = queries.measurements(database)
    database.dispose()
    migrate.downgrade(url, "0010_third_cumulant")
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    assert queries.measurements(database).empty
    kept = windows[windows.reference_kind == "simulation"].reset_index(drop=True)
    pd.testing.assert_frame_equal(queries.windows(database), kept, check_dtype=False)
    again, measurement = record_measured(database, study_id)
    assert again == prediction
    assert measurement > measured.measurement_run_id.max(), "ids of deleted runs are not used again"
    assert count_rows(database) == {**rows, "kernel_quantiles": 0}, "these come with the simulation"
    values = ["quantity", "component", "layer", "measured", "measured_se", "predicted"]
    pd.testing.assert_frame_equal(queries.measurements(database)[values], measured[values])
    database.dispose()


@pytest.mark.parametrize(
    ("branch", "columns"),
    [
        ({"block": "two_matrix", "normalisation": "rms", "hidden_ratio": 4.0}, ["two_matrix", "rms", 4.0, 0.0]),
        ({"normalisation": "layer"}, ["one_matrix", "layer", None, None]),
    ],
    ids=["two matrices", "normalised"],
)
def test_networks_of_other_blocks_go_on_the_way_back(url, record_all, count_rows, branch, columns):
    """With all their results, since an earlier program would take them for those of the paper; the others stay."""
    database = Database(url)
    record_all(database)
    rows, kept = count_rows(database), queries.windows(database)
    second = record_all(database, name="second", closures=("mean", "g_only"), branch=branch)
    models = queries.runs(database).drop_duplicates("configuration_id").sort_values("configuration_id")
    found = models[["block", "normalisation", "hidden_ratio", "hidden_bias_variance"]].astype(object)
    assert found.where(found.notna(), None).values.tolist()[-1] == columns
    stored = stored_results(database, [second.predictions["g_only"]])[second.predictions["g_only"]]
    for name, value in branch.items():
        assert getattr(stored.spec.model, name) == value
    database.dispose()
    migrate.downgrade(url, "0012_kernel_quantiles")
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    assert count_rows(database) == {**rows, "studies": rows["studies"] + 1, "input_kernels": rows["input_kernels"]}
    pd.testing.assert_frame_equal(queries.windows(database), kept)
    database.dispose()


def test_what_users_wrote_goes_on_the_way_back(url, record_all, count_rows):
    """And every result stays."""
    database = Database(url)
    study = record_all(database).study_id
    rows = count_rows(database)
    care.annotate(database, study, title="First", notes="a note", tags=["good", "paper"], archived=True)
    care.save_view(database, name="mine", page="windows", query="study=first")
    database.dispose()
    lost = {"study_annotations": 1, "study_tags": 2, "saved_views": 1}
    first, second = OF_CHECKS
    said = [*first, *second, *(f"table {name} with {count} rows" for name, count in sorted(lost.items()))]
    assert migrate.dropped_by_downgrade(url, "0013_blocks") == said
    migrate.downgrade(url, "0013_blocks")
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    assert count_rows(database) == rows
    database.dispose()


def test_checks_go_on_the_way_back(url, record_all, record_checked, count_rows):
    """With what was held against them, and nothing else; the prediction of what the module should be stays."""
    database = Database(url)
    record_all(database)
    windows = queries.windows(database)
    check, prediction = record_checked(database)
    rows, checks = count_rows(database), queries.checks(database)
    database.dispose()
    migrate.downgrade(url, "0014_care_of_studies")
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    assert queries.checks(database).empty
    assert queries.runs(database, run_id=[check, prediction]).run_id.tolist() == [prediction]
    pd.testing.assert_frame_equal(queries.windows(database), windows, check_dtype=False)
    again, same = record_checked(database)
    assert same == prediction
    assert again > check, "ids of deleted runs are not used again"
    assert count_rows(database) == rows
    pd.testing.assert_frame_equal(queries.checks(database).assign(check_run_id=check), checks, check_dtype=False)
    database.dispose()


def test_quantiles_go_on_the_way_back(url, record_all, count_rows):
    """And nothing else; recording the same simulation again brings them back."""
    database = Database(url)
    recorded = record_all(database)
    rows, before = count_rows(database), queries.quantiles(database)
    assert rows["kernel_quantiles"] == len(before) == 2 * 9 * 7
    database.dispose()
    first, second = OF_CHECKS
    lost = [*first, f"table kernel_quantiles with {len(before)} rows", *OF_BLOCKS, *second, *OF_CARE]
    assert migrate.dropped_by_downgrade(url, "0011_measured_next_order") == lost
    migrate.downgrade(url, "0011_measured_next_order")
    engine = sa.create_engine(url)
    names = {*sa.inspect(engine).get_table_names(), *sa.inspect(engine).get_view_names()}
    engine.dispose()
    assert {"v_measurements", "v_study_measurements"} < names
    assert not [name for name in names if "quantiles" in name]
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    assert count_rows(database) == {**rows, "kernel_quantiles": 0}
    assert record_all(database) == recorded
    assert count_rows(database) == rows
    pd.testing.assert_frame_equal(queries.quantiles(database), before)
    database.dispose()


def test_widths_from_theory_go_on_the_way_back(url, record_all, record_next_order, count_rows):
    """What simulations show of widths stays, since it follows from the errors."""
    database = Database(url)
    record_all(database)
    record_next_order(database)
    before = queries.width_windows(database)
    rows = count_rows(database)
    assert set(before.reference_kind) == {"simulation", "theory"}
    database.dispose()
    first, second = OF_CHECKS
    assert migrate.dropped_by_downgrade(url, "0008_next_order") == [
        *first,
        f"table kernel_quantiles with {rows['kernel_quantiles']} rows",
        *OF_BLOCKS,
        *second,
        "column runs.widths",
        *OF_CARE,
        f"table width_windows with {rows['width_windows']} rows",
    ]
    migrate.downgrade(url, "0008_next_order")
    migrate.upgrade(url)
    assert maintenance.check(url) == []
    after = queries.width_windows(database)
    simulated = before[before.reference_kind == "simulation"].reset_index(drop=True)
    pd.testing.assert_frame_equal(after, simulated, check_dtype=False)
    assert count_rows(database) == {**rows, "width_windows": 0, "kernel_quantiles": 0}
    record_next_order(database)
    assert count_rows(database) == {**rows, "kernel_quantiles": 0}
    database.dispose()


def test_unfinished_runs_survive_the_way_back_as_failures(url, make_theory, provenance):
    database = Database(url)
    mark_pending(database, make_theory("mean").spec)
    mark_running(database, make_theory("g_only").spec, holder="me", provenance=provenance)
    claims.release(database, "me")  # a process that was killed: while it lives nothing is taken back
    database.dispose()
    migrate.downgrade(url, "0001_first_tables")
    migrate.upgrade(url)
    frame = queries.runs(database)
    assert set(frame.error_message) == {"not finished: pending", "not finished: running"}
    assert set(frame.status) == {"failed"}
    database.dispose()


def test_large_database_is_upgraded(empty_url):
    """500 more copies of a simulation with everything below it."""
    _put_released(empty_url, RELEASED[0])
    engine = sa.create_engine(empty_url)
    with engine.begin() as connection:
        names = [column["name"] for column in sa.inspect(connection).get_columns("runs")]
        copied = ", ".join(
            {"id": "1000 + n", "digest": "CAST(1000 + n AS text)"}.get(name, f"r.{name}") for name in names
        )
        numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500)"
        connection.execute(
            sa.text(f"INSERT INTO runs ({', '.join(names)}) {numbers} SELECT {copied} FROM runs r, c WHERE r.id = 4")
        )
        for name in ("kernel_trajectories", "trajectory_values"):
            columns = [column["name"] for column in sa.inspect(connection).get_columns(name)]
            copied = ", ".join("1000 + n" if column == "run_id" else f"t.{column}" for column in columns)
            connection.execute(
                sa.text(
                    f"INSERT INTO {name} ({', '.join(columns)}) {numbers}"
                    f" SELECT {copied} FROM {name} t, c WHERE t.run_id = 4"
                )
            )
    engine.dispose()
    migrate.upgrade(empty_url)
    assert maintenance.check(empty_url) == []
    rows = migrate.info(empty_url)["rows"]
    assert rows["simulation_precision"] == 4 * 502
    assert rows["trajectory_values"] > 30_000


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


def test_alembic_command_works_from_a_checkout(empty_url, monkeypatch):
    monkeypatch.setenv("EFT_DATABASE_URL", empty_url.render_as_string(hide_password=False))
    for arguments in (["upgrade", "head"], ["check"]):
        subprocess.run([sys.executable, "-m", "alembic", *arguments], cwd=ROOT, check=True, capture_output=True)
    migrate.require_current(empty_url)


def test_importing_opens_nothing(tmp_path):
    code = "import db.upkeep.migrate, db.schema.models, db.reading.queries, db.writing.repository, db.session"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONPATH": str(ROOT)})
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_activations_get_their_shortest_text(empty_url):
    """Older versions wrote 17 digits of every parameter; filters by what a user writes find those rows too."""
    before = next(path for path in RELEASED if path.stem.startswith("0003"))
    _put_released(empty_url, before)
    engine = sa.create_engine(empty_url)
    written, kept = "leaky_relu(slope=0.20000000000000001)", "softplus(beta=2)"
    change = sa.text("UPDATE model_configurations SET activation = :name WHERE id = :id")
    with engine.begin() as connection:
        ids = connection.execute(sa.text("SELECT id FROM model_configurations ORDER BY id")).scalars().all()
        for number, name in zip(ids[:2], (written, kept), strict=True):
            connection.execute(change, {"name": name, "id": number})
    migrate.upgrade(empty_url)
    database = Database(empty_url)
    names = set(queries.runs(database).activation)
    assert {"leaky_relu(slope=0.2)", kept} <= names
    assert len(queries.runs(database, activation="leaky_relu( slope = 2e-1 )")) > 0
    database.dispose()
    migrate.downgrade(empty_url, before.stem)
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT activation FROM model_configurations ORDER BY id")).scalars().all()
    engine.dispose()
    assert found[:2] == [written, kept]
