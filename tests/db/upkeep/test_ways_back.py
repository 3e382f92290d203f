"""What a downgrade loses and keeps, and what a later upgrade finds."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.reading.stored_results import stored_results
from db.session import Database
from db.upkeep import maintenance, migrate
from db.writing import care, claims
from db.writing.repository import mark_pending, mark_running, record_comparison, record_prediction
from tests.db.upkeep.released import contents

OF_BLOCKS = [
    f"column model_configurations.{name}"
    for name in ("block", "normalisation", "hidden_ratio", "hidden_weight_variance", "hidden_bias_variance")
]
"""What a downgrade below 0013 says it drops."""


OF_CHECKS = ["table checked_blocks with 0 rows"], ["table module_checks with 0 rows"]
"""What one below 0015 says it drops, before and after what belongs to models."""


OF_CARE = [f"table {name} with 0 rows" for name in ("saved_views", "study_annotations", "study_tags")]
"""What a downgrade below 0014 says it drops, where users wrote nothing."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.campaign)])
def backend(request: pytest.FixtureRequest) -> str:
    """On PostgreSQL make test takes the oldest released database down through all revisions (test_released.py)."""
    return str(request.param)


LOST = {
    "error_metrics": ("error_low", "error_high", "resolution"),
    "validity_windows": ("resolved_from", "numerical_error", "confidence", "certified_until"),
}
"""Columns that the way back to revision 0003 empties, or fills with what it knew."""


def _without(rows: list[str], columns: tuple[str, ...]) -> list[str]:
    """Rows as contents gives them, without the values of some columns."""
    return sorted(re.sub(rf"\('({'|'.join(columns)})', [^()]*\)", "", row) for row in rows)


def test_rows_below_a_comparison_survive_its_rebuilding(url, record_all, make_theory, provenance):
    """Up and down: comparisons with simulations stay to the last row; those with theories and Sigma go on the way."""
    database = Database(url)
    recorded = record_all(database)
    tables = {"comparisons", "error_metrics", "validity_windows", "trajectory_values", "kernel_trajectories"}
    before = contents(url, tables)
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
    after = contents(url, tables)
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
    before = contents(url, tables)
    database.dispose()
    migrate.downgrade(url, "0007_runs_asked")
    after = contents(url, tables)
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
    again = contents(url, tables)
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
