"""Recording checks of modules: exact, beside theory, idempotent; the same contract on both databases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.reading.restriction import RestrictedDatabase, Restriction
from db.reading.stored_results import stored_results, stored_specs
from db.schema.components import QUANTILES
from db.schema.models import CheckedBlockRow, ModuleCheck
from db.writing.checks import record_check
from db.writing.repository import find_run
from eftcore.errors import InputError
from eftcore.measure.kernels import measured_kernels


def test_a_check_comes_back_exactly(db, make_check, provenance, started_at):
    found = make_check()
    run_id = record_check(db, found, provenance=provenance)
    kernels = measured_kernels(found)
    stored = queries.arrays(db, run_id)
    assert stored.keys() == {"depth", "time", "K0", "K0_se", "V4", "V4_se"}
    for name in ("mean", "mean_se", "covariance", "covariance_se"):
        column = name.replace("mean", "K0").replace("covariance", "V4")
        np.testing.assert_array_equal(stored[column], getattr(kernels, name))
    run = find_run(db, found.recorded_as.digest)
    assert run is not None
    assert (run.id, run.kind, run.status, run.closure) == (run_id, "check", "succeeded", None)
    assert (run.width, run.samples, run.seed, run.dtype) == (32, 60, 0, "float32")
    assert (run.started_at, run.versions, run.device) == (started_at, provenance["versions"], "cpu")
    assert stored_specs(db, [run_id])[run_id].digest == run.digest
    assert stored_results(db, [run_id]) == {}, "neither a prediction nor a simulation"


def test_what_was_found_of_each_block_is_a_row(db, make_check, provenance):
    found = make_check()
    run_id = record_check(db, found, provenance=provenance)
    rows = queries.checks(db, check_run_id=run_id)
    assert rows.block_name.tolist() == [f"blocks.{index}" for index in range(4)]
    assert rows.deviates.tolist() == [False, True, False, False]
    assert rows.layer.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(rows.time, 0.25 * rows.layer.astype(float))
    bad = found.blocks[1]
    (row,) = rows[rows.layer == 2].to_dict("records")
    assert (row["p_value"], row["largest_z"]) == (bad.p_value, bad.largest_z)
    assert (row["fitted_weight_variance"], row["fitted_weight_variance_se"]) == (
        bad.weight_variance.value,
        bad.weight_variance.se,
    )
    assert row["fitted_bias_variance"] == bad.bias_variance.value
    assert (row["weight_variance"], row["epsilon"]) == (2.0, 0.5), "what they should be"
    # 1.66 times the variance is sqrt(1.66) times the scale
    assert abs(row["fitted_epsilon"] - 0.5 * 1.66**0.5) < 4.5 * row["fitted_epsilon_se"] < 0.1
    assert (row["module"], row["factory"]) == ("Network", "checked.py:make_model")
    assert len(row["factory_digest"]) == len(row["module_digest"]) == 64
    assert (row["module_p_value"], row["first_deviating_layer"]) == (found.p_value, 2)
    assert row["verdict"] == found.sentence()
    assert not row["guessed"]
    assert not row["superseded"]
    assert queries.checks(db, module="Other").empty


def test_its_kernels_stand_beside_theory(db, record_checked, record_all):
    record_all(db)
    check, prediction = record_checked(db)
    rows = queries.trajectories(db, reference_run_id=check)
    assert set(rows.reference_kind) == {"check"}
    assert rows.simulation_run_id.isna().all()
    assert set(rows.prediction_run_id) == {prediction}
    assert set(rows[rows.simulated.notna()].quantity) == {"K0", "V4"}
    assert "K1" in set(rows[rows.simulated.isna()].quantity), "what theory alone has"
    at_start = rows[(rows.quantity == "K0") & (rows.layer == 0)]
    np.testing.assert_allclose(at_start.simulated, at_start.predicted, rtol=1e-12)
    errors = queries.errors(db, reference_kind="check")
    assert set(errors.quantity) == {"K0", "V4"}
    assert set(errors.reference_run_id) == {check}
    assert errors.simulation_run_id.isna().all()
    assert set(errors.width) == {32}
    windows = queries.windows(db, reference_kind="check")
    assert (set(windows.samples), set(windows.closure)) == ({60}, {"exact"})
    assert not windows.superseded.any()
    assert queries.best_closures(db).simulation_run_id.notna().all(), "of simulations alone"
    assert check not in set(queries.trajectories(db).simulation_run_id.dropna())
    assert queries.checks(RestrictedDatabase(db, Restriction(studies=("0" * 64,)))).empty, "of no study"


def test_quantiles_of_its_kernel_are_those_of_the_networks(db, make_check, record_all, provenance):
    record_all(db)
    found = make_check()
    run_id = record_check(db, found, provenance=provenance)
    rows = queries.quantiles(db, reference_run_id=run_id)
    assert len(rows) == 5 * 2 * len(QUANTILES)
    assert set(rows.reference_kind) == {"check"}
    assert not rows.superseded.any(), "by the version of checks and not of simulations"
    (median,) = rows[(rows.component == "11") & (rows.layer == 3) & (rows.probability == 0.5)].to_dict("records")
    assert median["value"] == np.median(found.kernel[:, 3, 1, 1])
    assert median["low"] < median["value"] < median["high"]


def test_the_same_check_is_recorded_once_and_a_changed_one_again(db, make_check, provenance, count_rows):
    """Code that the factory imports may have changed without a trace in its file, its name or the module's text."""
    found = make_check()
    run_id = record_check(db, found, provenance=provenance)
    before = count_rows(db)
    assert record_check(db, found, provenance=provenance) == run_id
    assert count_rows(db) == before
    kernel = found.kernel.copy()
    kernel[:, 3] *= 1.1
    assert record_check(db, replace(found, kernel=kernel), provenance=provenance) != run_id
    assert count_rows(db)["module_checks"] == 2


def test_a_check_that_cannot_be_recorded_leaves_nothing(db, make_check, provenance, count_rows):
    found = make_check()
    many = np.broadcast_to(np.eye(200), (60, 5, 200, 200))
    before = count_rows(db)
    with pytest.raises(InputError, match="inputs"):
        record_check(db, replace(found, kernel=many), provenance=provenance)
    assert count_rows(db) == before


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (ModuleCheck, {"p_value": 1.5}),
        (ModuleCheck, {"first_deviating_layer": 0}),
        (ModuleCheck, {"factory": None}),
        (CheckedBlockRow, {"p_value": -0.1}),
        (CheckedBlockRow, {"largest_z": float("inf")}),
    ],
)
def test_schema_refuses_what_no_check_finds(db, make_check, provenance, model, change):
    record_check(db, make_check(), provenance=provenance)
    with pytest.raises(sa.exc.IntegrityError), db.session() as session:
        session.execute(sa.update(model).values(**change))


def test_one_input_and_a_guess_have_what_they_have(db, provenance):
    from tests.eftcore.measure.corpus import CORRECT, FEATURES

    inputs = np.random.default_rng(1).normal(size=(1, FEATURES))
    found = eft.check(CORRECT["one matrix, tanh"].make, inputs, networks=60)
    rows = queries.checks(db, check_run_id=record_check(db, found, provenance=provenance))
    assert rows.fitted_bias_variance.isna().all()
    assert rows.guessed.all()
    assert set(rows.activation) == {found.spec.activation}
