"""Recording: exact, complete, idempotent, all or nothing; the same contract on both databases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.reading.stored_results import numerical_errors, stored_results
from db.schema.components import row_components
from db.schema.models import (
    ErrorMetric,
    KernelTrajectory,
    Run,
    TrajectoryValue,
    ValidityWindow,
)
from db.writing.repository import (
    find_run,
    mark_failed,
    record_comparison,
    record_prediction,
    record_simulation,
)


def test_prediction_comes_back_exactly(db, make_theory, provenance, started_at):
    theory = make_theory(n_inputs=3)
    run_id = record_prediction(db, theory, provenance=provenance)

    stored = queries.arrays(db, run_id)
    for name, array in (
        ("K0", theory.mean),
        ("V4", theory.covariance),
        ("K1", theory.correction),
        ("U1", theory.source),
        ("Sigma", theory.increment_covariance),
    ):
        np.testing.assert_array_equal(stored[name], array)
    np.testing.assert_array_equal(stored["depth"], theory.depth)
    np.testing.assert_allclose(stored["time"], theory.time, rtol=1e-15)

    run = find_run(db, theory.spec.digest)
    assert run is not None
    assert (run.id, run.kind, run.status, run.closure, run.width) == (run_id, "prediction", "succeeded", "g_only", None)
    assert run.started_at == started_at
    assert run.versions == provenance["versions"]
    assert run.created_at.utcoffset() is not None
    respec = eft.PredictionSpec(model=theory.spec.model, kernel=theory.spec.kernel, **run.spec)
    assert respec.digest == theory.spec.digest


def test_simulation_comes_back_exactly_with_errors(db, make_sample, provenance):
    sample = make_sample()
    run_id = record_simulation(db, sample, provenance=provenance)
    stored = queries.arrays(db, run_id)
    np.testing.assert_array_equal(stored["V4"], sample.covariance)
    np.testing.assert_array_equal(stored["V4_se"], sample.covariance_se)
    np.testing.assert_array_equal(stored["K1_se"], sample.correction_se)
    run = find_run(db, sample.digest)
    assert run is not None
    assert (run.width, run.samples, run.shards, run.seed) == (16, 128, [[0, 64], [1, 64]], 0)
    assert run.ensemble_digest == sample.spec.digest


@pytest.fixture(scope="module")
def simulated() -> eft.Sample:
    """Real networks."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=8)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3)
    return eft.simulate(model, kernel, width=16, samples=64, device="cpu")


def test_real_simulation_and_its_comparison(db, simulated, provenance):
    simulation = record_simulation(db, simulated, provenance=provenance)
    stored = queries.arrays(db, simulation)
    for name, array in (("K0", simulated.mean), ("V4_se", simulated.covariance_se), ("K1", simulated.correction)):
        np.testing.assert_array_equal(stored[name], array)
    run = find_run(db, simulated.digest)
    assert run is not None
    assert (run.samples, run.shards) == (64, [[0, 64]])

    theory = eft.predict(simulated.spec.model, simulated.spec.kernel)
    prediction = record_prediction(db, theory, provenance=provenance)
    comparison = eft.compare(theory, simulated)
    record_comparison(db, prediction_run_id=prediction, reference_run_id=simulation, comparison=comparison)
    assert len(queries.windows(db)) == len(comparison.windows)
    assert len(queries.errors(db)) == len(comparison.errors)


@pytest.mark.parametrize("n_inputs", [1, 2, 5])
def test_rows_for_sql_are_the_arrays(db, make_sample, provenance, n_inputs):
    sample = make_sample(n_inputs=n_inputs)
    run_id = record_simulation(db, sample, provenance=provenance)
    arrays = {"K0": "mean", "V4": "covariance", "K1": "correction", "U1": "source", "Sigma": "increment_covariance"}
    with db.reading() as session:
        rows = session.scalars(sa.select(TrajectoryValue).where(TrajectoryValue.run_id == run_id)).all()
    found = {(row.quantity, row.component, row.layer): (row.value, row.se) for row in rows}
    expected = {}
    for quantity, attribute in arrays.items():
        values, errors = getattr(sample, attribute), getattr(sample, f"{attribute}_se")
        names, index = row_components(quantity, n_inputs)
        for name, a, b in zip(names, *index, strict=True):
            for r, layer in enumerate(sample.depth.tolist()):
                expected[quantity, name, layer] = (values[r, a, b], errors[r, a, b])
    assert found == expected


def test_wick_order_chosen_by_the_numerics_is_recorded(db, make_theory, provenance):
    theory = make_theory()
    spec = eft.PredictionSpec(model=theory.spec.model, kernel=theory.spec.kernel, closure="wick", order="auto")
    run_id = record_prediction(db, replace(theory, spec=spec, details={"wick_order": 32}), provenance=provenance)
    assert queries.runs(db, run_id=run_id).closure_order.tolist() == [32]


def test_non_finite_numbers_have_a_stored_form(db, make_theory, make_sample, provenance):
    theory, sample = make_theory(), make_sample()
    mean = theory.mean.copy()
    mean[1, 0, 0], mean[2, 0, 0], mean[3, 0, 1], mean[3, 1, 0] = np.nan, np.inf, -np.inf, -np.inf
    theory = replace(
        theory, mean=mean, numerical_error={"K0": float("inf"), "V4": 1e-9}, details={"remaining": float("nan")}
    )
    broken = sample.mean_se.copy()
    broken[4] = np.nan
    sample = replace(sample, mean_se=broken)
    prediction = record_prediction(db, theory, provenance=provenance)
    simulation = record_simulation(db, sample, provenance=provenance)

    np.testing.assert_array_equal(queries.arrays(db, prediction)["K0"], mean)
    frame = queries.trajectories(db, simulation_run_id=simulation, quantity="K0")
    diagonal = frame[frame.component == "00"].sort_values("layer")
    np.testing.assert_array_equal(diagonal.predicted, mean[:, 0, 0])
    np.testing.assert_array_equal(diagonal.simulated_se, broken[:, 0, 0])
    assert frame[frame.component == "01"].predicted[lambda s: np.isneginf(s)].size == 1

    counts = queries.select(
        db, "SELECT value_nonfinite AS form, count(*) AS n FROM trajectory_values WHERE value IS NULL GROUP BY 1"
    )
    assert dict(zip(counts.form, counts.n, strict=True)) == {"-inf": 1, "inf": 1, "nan": 1}
    with db.reading() as session:
        errors = session.execute(
            sa.select(KernelTrajectory.quantity, KernelTrajectory.numerical_error_nonfinite).where(
                KernelTrajectory.run_id == prediction, KernelTrajectory.numerical_error_nonfinite.is_not(None)
            )
        ).all()
        assert errors == [("K0", "inf")]
        assert session.scalar(sa.select(Run.details).where(Run.id == prediction)) == {"remaining": "nan"}


def test_the_next_order_is_stored_with_its_error_and_without_rows_for_what_is_not_known(
    db, make_theory, make_sample, provenance
):
    """The entries of two inputs did not converge."""
    exact = make_theory("exact", next_order=True)
    d, k2 = exact.covariance_next.copy(), exact.correction_next.copy()
    d[:, 1], d[:, :, 1], k2[:, 0, 1], k2[:, 1, 0] = np.nan, np.nan, np.nan, np.nan
    d[:, 0, 2] = d[:, 2, 0] = np.nan
    third = exact.third_cumulant.copy()
    third[:, 1, 1, 1] = np.nan
    exact = replace(exact, covariance_next=d, correction_next=k2, third_cumulant=third)
    run_id = record_prediction(db, exact, provenance=provenance)

    arrays = queries.arrays(db, run_id)
    np.testing.assert_array_equal(arrays["D"], d)
    np.testing.assert_array_equal(arrays["K2"], k2)
    np.testing.assert_array_equal(arrays["T"], third)
    again = stored_results(db, [run_id])[run_id]
    assert isinstance(again, eft.Theory)
    np.testing.assert_array_equal(again.covariance_next, d)
    np.testing.assert_array_equal(again.third_cumulant, third)
    errors = numerical_errors(db, [run_id])
    for quantity, least in {"D": 1e-4, "K2": 1e-4, "T": 0.0}.items():
        assert errors[run_id, quantity] == again.relative_error(quantity) == exact.relative_error(quantity) > least
    assert again.numerical_error == exact.numerical_error

    rows = "SELECT quantity, component, layer, value FROM trajectory_values WHERE quantity IN ('D', 'K2', 'T')"
    found = queries.select(db, rows + " ORDER BY quantity, component, layer")
    assert len(found) == 3 * 2 * 9
    assert found.component.unique().tolist() == ["00,00", "11,11", "00", "11", "00,00,00", "11,11,11"]
    np.testing.assert_array_equal(found.value[found.component == "00,00"], d[:, 0, 0])
    np.testing.assert_array_equal(found.value[found.component == "11,11,11"], third[:, 2, 2, 2])

    simulation = record_simulation(db, make_sample(), provenance=provenance)
    components = ["00,00", "01,01", "00,00,00"]
    beside = queries.trajectories(db, simulation_run_id=simulation, quantity=["V4", "D", "T"], component=components)
    counts = beside.groupby(["quantity", "component"])[["simulated", "predicted"]].count()
    assert counts.to_dict("index") == {
        ("D", "00,00"): {"simulated": 0, "predicted": 9},
        ("T", "00,00,00"): {"simulated": 0, "predicted": 9},
        ("V4", "00,00"): {"simulated": 9, "predicted": 9},
        ("V4", "01,01"): {"simulated": 9, "predicted": 9},
    }
    assert set(beside.next_order) == {True}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_schema_refuses_an_unmarked_non_finite_number(db, make_theory, provenance, value):
    run_id = record_prediction(db, make_theory(), provenance=provenance)
    row = {"run_id": run_id, "quantity": "K0", "component": "99", "layer": 0, "value": value}
    with pytest.raises(sa.exc.IntegrityError), db.session() as session:
        session.execute(sa.insert(TrajectoryValue).values(row))


def test_comparison_is_stored_as_computed(db, make_theory, make_sample, provenance):
    theory, sample = make_theory(), make_sample()
    prediction = record_prediction(db, theory, provenance=provenance)
    simulation = record_simulation(db, sample, provenance=provenance)
    comparison = eft.compare(theory, sample)
    record_comparison(db, prediction_run_id=prediction, reference_run_id=simulation, comparison=comparison)

    keys = ["quantity", "layer"]
    stored = queries.errors(db, reference_run_id=simulation).sort_values(keys, ignore_index=True)
    expected = comparison.errors.rename(columns={"depth": "layer"}).sort_values(keys, ignore_index=True)
    assert not expected.defined.all(), "K1 starts at 0, where its relative error has no meaning"
    for name in ("error", "error_se", "absolute_error", "absolute_error_se"):
        np.testing.assert_array_equal(stored[name], expected[name])
    np.testing.assert_allclose(stored.time, expected.time, rtol=1e-15)
    assert stored.defined.tolist() == expected.defined.tolist()

    keys = ["quantity", "tolerance"]
    windows = queries.windows(db, reference_run_id=simulation).sort_values(keys, ignore_index=True)
    expected = comparison.windows.sort_values(keys, ignore_index=True)
    assert windows.status.tolist() == expected.status.tolist()
    np.testing.assert_array_equal(windows.certified_until, expected.certified_until)
    np.testing.assert_array_equal(windows.refuted_from, expected.refuted_from)


def test_comparison_with_more_tolerances_adds_windows_and_renews_the_rest(db, make_theory, make_sample, provenance):
    theory, sample = make_theory(), make_sample()
    ids = {
        "prediction_run_id": record_prediction(db, theory, provenance=provenance),
        "reference_run_id": record_simulation(db, sample, provenance=provenance),
    }
    first = record_comparison(db, **ids, comparison=eft.compare(theory, sample, [0.05]))
    changed = eft.compare(theory, sample, [0.05, 0.2])
    changed.errors.loc[0, "absolute_error"] = 123.0
    as_in_a_frame = {name: np.int64(run_id) for name, run_id in ids.items()}
    assert record_comparison(db, **as_in_a_frame, comparison=changed) == first
    with db.reading() as session:
        tolerances = session.scalars(sa.select(ValidityWindow.tolerance).distinct().order_by("tolerance")).all()
        assert tolerances == [0.05, 0.2]
        assert session.scalar(sa.select(sa.func.max(ErrorMetric.absolute_error))) == 123.0


def test_diverged_theory_is_compared_and_stored(db, make_theory, make_sample, provenance):
    sample = make_sample()
    theory = make_theory()
    covariance = theory.covariance.copy()
    covariance[-1] = np.inf
    theory = replace(theory, covariance=covariance)
    prediction = record_prediction(db, theory, provenance=provenance)
    simulation = record_simulation(db, sample, provenance=provenance)
    record_comparison(
        db, prediction_run_id=prediction, reference_run_id=simulation, comparison=eft.compare(theory, sample)
    )
    frame = queries.errors(db, reference_run_id=simulation, quantity="V4")
    assert np.isposinf(frame.error.iloc[-1])


def test_only_like_is_compared_with_like(db, make_theory, make_sample, provenance):
    theory, sample = make_theory(), make_sample()
    comparison = eft.compare(theory, sample)
    prediction = record_prediction(db, theory, provenance=provenance)
    simulation = record_simulation(db, sample, provenance=provenance)
    other = record_prediction(db, make_theory(activation="erf"), provenance=provenance)
    broken = mark_failed(db, make_theory("mean").spec, error="no", provenance=provenance)
    for wrong in (other, broken, simulation, 10_000):
        with pytest.raises(eft.InputError, match=str(wrong)):
            record_comparison(db, prediction_run_id=wrong, reference_run_id=simulation, comparison=comparison)
    for wrong in (prediction, other, broken, 10_000):
        with pytest.raises(eft.InputError, match=str(wrong)):
            record_comparison(db, prediction_run_id=prediction, reference_run_id=wrong, comparison=comparison)


def test_bad_provenance_and_study_are_refused_before_anything_is_written(db, make_theory, provenance, count_rows):
    theory, before = make_theory(), count_rows(db)
    for wrong, message in (
        ({"colour": "red"}, "colour"),
        ({"started_at": "2026-01-31T12:00:00"}, "time zone"),
        ({"started_at": "yesterday"}, "ISO"),
    ):
        with pytest.raises(eft.InputError, match=message):
            record_prediction(db, theory, provenance={**provenance, **wrong})
    with pytest.raises(eft.InputError, match="study_id = 77"):
        record_prediction(db, theory, provenance=provenance, study_id=77)
    assert count_rows(db) == before
    assert before["runs"] == before["input_kernels"] == 0
