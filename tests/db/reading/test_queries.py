"""Reading as pandas: tidy, complete, filtered in SQL, one statement each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from db.reading import queries
from db.reading.window_queries import window_counts, window_ends, window_page
from db.schema.models import AlgorithmVersion, Run
from db.schema.views import v_errors, v_runs, v_trajectories, v_windows
from db.writing.repository import mark_failed, record_simulation
from eftcore import compare
from eftcore.errors import InputError
from eftcore.specs import ALGORITHM_VERSION

QUANTITIES = {"K0", "V4", "K1"}


def _columns(view) -> list[str]:
    return [column.name for column in view.c if not column.name.endswith("_nonfinite")]


def test_empty_database_gives_empty_frames_with_columns(read_only):
    for frame, view in (
        (queries.runs(read_only), v_runs),
        (queries.windows(read_only), v_windows),
        (queries.errors(read_only), v_errors),
        (queries.trajectories(read_only, simulation_run_id=1), v_trajectories),
    ):
        assert frame.empty
        assert list(frame.columns) == _columns(view)
    assert queries.studies(read_only).empty


def test_types_are_pandas_own(db, record_all, read_only):
    record_all(db)
    frame = queries.runs(read_only)
    kinds = {name: str(frame[name].dtype) for name in ("run_id", "width", "epsilon", "converged", "worker_seconds")}
    assert kinds == {
        "run_id": "Int64",
        "width": "Int64",
        "epsilon": "float64",
        "converged": "boolean",
        "worker_seconds": "float64",
    }
    for name in ("created_at", "started_at"):
        assert isinstance(frame[name].dtype, pd.DatetimeTZDtype)
    assert frame.started_at.iloc[0] == pd.Timestamp("2026-01-31 10:00", tz="UTC")


def test_runs_by_every_filter(db, record_all, read_only, make_theory, provenance):
    tanh = record_all(db, "tanh study")
    erf = record_all(db, "erf study", activation="erf", width=32)
    failed = mark_failed(db, make_theory("mean", activation="relu").spec, error="no", provenance=provenance)

    def found(**filters) -> set[int]:
        return set(queries.runs(read_only, **filters).run_id)

    everything = found()
    assert len(everything) == 9
    assert found(study="erf study") == {erf.simulation, *erf.predictions.values()}
    assert found(kind="simulation") == {tanh.simulation, erf.simulation}
    assert found(status="failed") == {failed}
    assert found(activation=["erf", "relu"]) == found(study="erf study") | {failed}
    assert found(closure="g_only", activation="tanh") == {tanh.predictions["g_only"]}
    assert found(width=np.int64(32)) == {erf.simulation}
    assert found(run_id=[failed, tanh.simulation]) == {failed, tanh.simulation}
    assert found(activation=[]) == set()
    digest = queries.studies(read_only).set_index("name").digest["tanh study"]
    assert found(study=digest) == {tanh.simulation, *tanh.predictions.values()}


def test_runs_come_in_pages_newest_first(db, record_all, read_only):
    record_all(db)
    whole = queries.runs(read_only).run_id.tolist()
    assert whole == sorted(whole, reverse=True)
    pages = [queries.runs(read_only, limit=3, offset=offset).run_id.tolist() for offset in (0, 3)]
    assert sum(pages, []) == whole  # noqa: RUF017 - two short lists


def test_windows_by_every_filter(db, record_all, read_only):
    tanh = record_all(db, "tanh study")
    record_all(db, "erf study", activation="erf", width=32)
    frame = queries.windows(read_only, study="tanh study", closure="g_only", quantity="V4", tolerance=0.05)
    assert len(frame) == 1
    row = frame.iloc[0]
    assert (row.activation, row.n_inputs, row.kernel_variance, row.width, row.samples) == ("tanh", 2, 2.0, 16, 128)
    assert (row.prediction_run_id, row.reference_run_id) == (tanh.predictions["g_only"], tanh.simulation)
    assert (row.reference_kind, row.simulation_run_id) == ("simulation", tanh.simulation)
    assert pd.isna(row.reference_closure)
    assert set(queries.windows(read_only, reference_run_id=tanh.simulation).activation) == {"tanh"}
    assert row.status in ("bounded", "beyond", "undecided", "too_noisy")
    assert set(queries.windows(read_only, activation="erf").width) == {32}
    assert set(queries.windows(read_only, width=16).activation) == {"tanh"}
    assert set(queries.windows(read_only, tolerance=[0.01, 0.1]).tolerance) == {0.01, 0.1}
    status = row.status
    assert set(queries.windows(read_only, status=status).status) == {status}
    assert len(queries.windows(read_only, limit=4, offset=2)) == 4


@pytest.mark.parametrize("written", ["leaky_relu(slope=0.2)", "leaky_relu( slope = .2 )", "leaky_relu(slope=2e-1)"])
def test_an_activation_is_found_however_it_is_written(db, record_all, read_only, written: str):
    recorded = record_all(db, "leaky study", activation="leaky_relu(slope=.2)", closures=("g_only",))
    record_all(db, "tanh study", closures=("g_only",))
    for frame in (queries.runs(read_only, activation=written), queries.windows(read_only, activation=[written, "sin"])):
        assert set(frame.activation) == {"leaky_relu(slope=0.2)"}
    assert set(queries.runs(read_only, activation=written).run_id) == {
        recorded.simulation,
        recorded.predictions["g_only"],
    }
    assert set(queries.runs(read_only, activation="leaky_relu(slope=0.3)").run_id) == set()


def test_windows_of_a_study_need_both_runs_in_it(db, record_all, read_only, make_sample, provenance):
    """A prediction shared with another study does not bring that study's simulations along."""
    record_all(db, "narrow", width=16)
    record_all(db, "wide", width=32)
    assert set(queries.windows(read_only, study="wide").width) == {32}


def test_errors_by_filter(db, record_all, read_only):
    recorded = record_all(db)
    frame = queries.errors(read_only, reference_run_id=recorded.simulation, closure="g_only", quantity="K1")
    assert frame.layer.tolist() == list(range(9))
    assert frame.time.tolist() == [0.0625 * layer for layer in range(9)]
    assert frame.defined.tolist()[0] is False
    assert np.isnan(frame.error.iloc[0])
    assert np.isfinite(frame.absolute_error).all()
    assert set(queries.errors(read_only, prediction_run_id=recorded.predictions["mean"]).quantity) == {"K0"}


def test_references_of_either_kind(db, record_all, record_reference, read_only, make_theory):
    """One view holds both; only simulations count for the best closure."""
    recorded = record_all(db)
    simulated, best = queries.windows(read_only), queries.best_closures(read_only)
    reference = record_reference(db, recorded.study_id)
    pd.testing.assert_frame_equal(queries.best_closures(read_only), best)
    pd.testing.assert_frame_equal(queries.windows(read_only, reference_kind="simulation"), simulated)
    for read in (queries.windows, queries.errors):
        kinds = [read(read_only, study="first", reference_kind=kind) for kind in ("simulation", "theory")]
        assert [set(frame.reference_run_id) for frame in kinds] == [{recorded.simulation}, {reference}]
        assert len(read(read_only)) == len(read(read_only, study="first")) == sum(map(len, kinds))
        assert len(read(read_only, reference_kind=["theory", "simulation"])) == sum(map(len, kinds))
        assert [frame.width.isna().all() for frame in kinds] == [False, True]
        assert [frame.simulation_run_id.isna().all() for frame in kinds] == [False, True]
        assert [frame.reference_closure.isna().all() for frame in kinds] == [True, False]

    exact = make_theory("wick", order="auto")
    frame = queries.windows(
        read_only, study="first", reference_kind="theory", closure="g_only", quantity="V4", tolerance=0.05
    )
    assert len(frame) == 1
    row = frame.iloc[0]
    assert (row.prediction_run_id, row.reference_run_id) == (recorded.predictions["g_only"], reference)
    assert (row.reference_closure, row.reference_order) == ("wick", exact.details["wick_order"])
    assert (row.activation, row.kernel_variance, bool(row.superseded)) == ("tanh", 2.0, False)
    expected = compare(make_theory("g_only"), exact)
    window = expected.windows.query("quantity == 'V4' and tolerance == 0.05").iloc[0]
    assert (row.status, row.certified_until) == (window.status, window.certified_until)
    assert queries.windows(read_only, reference_closure="sigma").empty
    assert queries.windows(read_only, reference_closure="wick", reference_kind="simulation").empty
    assert set(queries.windows(read_only, reference_run_id=reference, limit=4, offset=2).closure) <= {
        "mean",
        "source_only",
        "g_only",
    }
    assert len(queries.windows(read_only, reference_closure="wick")) == 3 * (1 + 2 + 3)

    frame = queries.errors(read_only, reference_run_id=reference, closure="g_only", quantity="K1")
    stored = expected.errors.query("quantity == 'K1'").reset_index(drop=True)
    for name in ("error", "error_se", "absolute_error", "absolute_error_se"):
        np.testing.assert_array_equal(frame[name], stored[name])
    assert frame.defined.tolist() == stored.defined.tolist()


@pytest.mark.parametrize("name", ["windows", "errors"])
@pytest.mark.parametrize("study", ["", "study_"])
def test_the_views_of_theories_are_the_rows_of_that_kind(db, record_all, record_reference, read_only, name, study):
    recorded = record_all(db)
    reference = record_reference(db, recorded.study_id)
    alias = queries.select(read_only, f"SELECT * FROM v_{study}theory_{name}")
    assert set(alias.reference_run_id) == {reference}
    columns = ", ".join(alias)
    rows = queries.select(read_only, f"SELECT {columns} FROM v_{study}{name} WHERE reference_kind = 'theory'")
    order = ["prediction_run_id", "quantity", "tolerance" if name == "windows" else "layer"]
    ours, theirs = (frame.sort_values(order, ignore_index=True) for frame in (alias, rows))
    pd.testing.assert_frame_equal(ours, theirs)


def test_windows_are_counted_listed_and_paged_for_either_reference(db, record_all, record_reference, read_only):
    recorded = record_all(db)
    reference = record_reference(db)
    for kind, run, simulation in (
        ("simulation", recorded.simulation, recorded.simulation),
        ("theory", reference, None),
    ):
        chosen = {"reference_kind": [kind], "quantity": ["V4"], "tolerance": [0.05]}
        counts = window_counts(read_only, ["closure"], chosen)
        assert dict(zip(counts.closure, counts.windows, strict=True)) == {"g_only": 1, "source_only": 1}
        ends = window_ends(read_only, ["closure"], chosen)
        assert sorted(ends.closure) == ["g_only", "source_only"]
        assert [None if pd.isna(found) else found for found in ends.simulation_run_id] == [simulation] * 2
        page = window_page(read_only, chosen, order="closure", descending=True)
        assert page.closure.tolist() == ["source_only", "g_only"]
        assert set(page.reference_run_id) == {run}
        assert len(window_page(read_only, {"reference_kind": [kind]}, limit=5)) == 5


def test_superseded_against_either_reference(db, record_all, record_reference, read_only):
    """Whichever of the two runs is of an older version of its own algorithm."""
    record_all(db)
    reference = record_reference(db)
    everything, now = {"mean", "source_only", "g_only"}, ALGORITHM_VERSION["prediction"]

    def superseded(kind: str) -> set[str]:
        frame = queries.windows(read_only, reference_kind=kind)
        return set(frame[frame.superseded].closure)

    assert superseded("theory") == superseded("simulation") == set()
    with db.session() as session:
        session.execute(sa.update(Run).where(Run.id == reference).values(algorithm_version=0))
    assert (superseded("theory"), superseded("simulation")) == (everything, set())
    mean_alone = sa.case((Run.closure == "mean", 0), else_=now)
    with db.session() as session:
        session.execute(sa.update(Run).where(Run.kind == "prediction").values(algorithm_version=mean_alone))
    assert superseded("theory") == superseded("simulation") == {"mean"}
    newer = sa.update(AlgorithmVersion).where(AlgorithmVersion.algorithm == "simulation")
    with db.session() as session:
        session.execute(newer.values(version=AlgorithmVersion.version + 1))
    assert (superseded("theory"), superseded("simulation")) == ({"mean"}, everything)


def test_trajectories_put_theory_beside_simulation(db, record_all, read_only, make_theory, make_sample):
    recorded = record_all(db)
    theory, sample = make_theory("g_only"), make_sample()
    frame = queries.trajectories(
        read_only, simulation_run_id=recorded.simulation, quantity="V4", component="11,01", closure="g_only"
    )
    np.testing.assert_array_equal(frame.layer, theory.depth)
    np.testing.assert_array_equal(frame.predicted, theory.covariance[:, 1, 2])
    np.testing.assert_array_equal(frame.simulated, sample.covariance[:, 1, 2])
    np.testing.assert_array_equal(frame.simulated_se, sample.covariance_se[:, 1, 2])
    assert set(frame.component) == {"01,11"}


def test_a_closure_without_the_quantity_predicts_nothing(db, record_all, read_only):
    recorded = record_all(db)
    frame = queries.trajectories(read_only, simulation_run_id=recorded.simulation, quantity="V4", component="00,00")
    by_closure = frame.groupby("closure").predicted.apply(lambda values: int(values.notna().sum()))
    assert by_closure.to_dict() == {"mean": 0, "source_only": 9, "g_only": 9}


def test_sigma_is_simulated_and_predicted(db, record_all, read_only, make_theory, make_sample):
    """The source of V4, by the closures whose equation has it."""
    recorded = record_all(db)
    frame = queries.trajectories(read_only, simulation_run_id=recorded.simulation, quantity="Sigma", component="00,11")
    sample, theory = make_sample(), make_theory("g_only")
    for closure, expected in (("g_only", theory.increment_covariance[:, 0, 2]), ("mean", np.full(9, np.nan))):
        rows = frame[frame.closure == closure]
        np.testing.assert_array_equal(rows.predicted, expected)
        np.testing.assert_array_equal(rows.simulated, sample.increment_covariance[:, 0, 2])
        np.testing.assert_array_equal(rows.simulated_se, sample.increment_covariance_se[:, 0, 2])
    assert set(queries.precision(read_only).quantity) == {"K0", "V4", "K1", "U1"}


def test_simulation_without_any_theory_is_still_there(db, make_sample, provenance, read_only):
    run_id = record_simulation(db, make_sample(), provenance=provenance)
    frame = queries.trajectories(read_only, simulation_run_id=run_id, quantity="K0", component="00")
    assert len(frame) == 9
    assert frame.closure.isna().all()
    assert frame.predicted.isna().all()


@pytest.mark.parametrize("wrong", ["", "0", "00,11,22,33", "ab", "0,1", "1-", "001"])
def test_wrong_component_is_named(sqlite_db, wrong):
    with pytest.raises(InputError, match="component"):
        queries.trajectories(sqlite_db, simulation_run_id=1, component=wrong)


def test_arrays_of_a_run_that_is_not_there(sqlite_db):
    with pytest.raises(InputError, match="run_id = 5"):
        queries.arrays(sqlite_db, 5)


def test_each_query_is_one_statement_whatever_the_number_of_rows(
    db, record_all, record_reference, read_only, statements
):
    recorded = record_all(db)
    record_reference(db, recorded.study_id)
    with read_only.reading() as session:
        session.connection()  # what a new connection asks the server is not ours
    seen = statements(read_only)
    calls = (
        lambda: queries.studies(read_only),
        lambda: queries.runs(read_only, study="first"),
        lambda: queries.windows(read_only, study="first"),
        lambda: queries.errors(read_only),
        lambda: queries.trajectories(read_only, simulation_run_id=recorded.simulation),
    )
    for call in calls:
        seen.clear()
        assert len(call()) > 0
        assert len(seen) == 1, seen
    seen.clear()
    queries.arrays(read_only, recorded.simulation)
    assert len(seen) == 3
