"""Databases of released revisions are upgraded with all they hold, and taken back."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import sqlalchemy as sa

from db.errors import SchemaOutdated
from db.reading import queries
from db.reading.study_queries import study_progress
from db.session import Database
from db.upkeep import maintenance, migrate
from db.writing.repository import mark_pending
from tests.db.upkeep.released import RELEASED, contents, put_released

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


@pytest.mark.parametrize(("backend", "path"), ON_EACH_KIND, indirect=["backend"])
def test_released_databases_are_upgraded_and_taken_back(empty_url, path):
    put_released(empty_url, path)
    assert migrate.current(empty_url) == path.stem
    with pytest.raises(SchemaOutdated, match="eft db upgrade"):
        migrate.require_current(empty_url)
    engine = sa.create_engine(empty_url)
    tables = set(sa.inspect(engine).get_table_names()) - {migrate.VERSION_TABLE}
    engine.dispose()
    before = contents(empty_url, tables)
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
    assert contents(empty_url, kept) == {name: before[name] for name in kept}
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
    put_released(empty_url, path)
    database = Database(empty_url)
    with database.session() as session:
        last = session.scalar(sa.text("SELECT max(id) FROM comparisons"))
        session.execute(sa.text("DELETE FROM comparisons"))
    migrate.upgrade(empty_url)
    assert mark_pending(database, make_theory("mean", activation="cos").spec) == 41
    assert min(record_all(database, activation="erf").comparisons.values()) == last + 1
    database.dispose()


def test_large_database_is_upgraded(empty_url):
    """500 more copies of a simulation with everything below it."""
    put_released(empty_url, RELEASED[0])
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


def test_parameters_of_activations_get_their_shortest_text(empty_url):
    """Older versions wrote 17 digits of every parameter; filters by what a user writes find those rows too."""
    before = next(path for path in RELEASED if path.stem.startswith("0003"))
    put_released(empty_url, before)
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
