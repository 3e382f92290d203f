"""Quantiles of the kernel of one network, recorded with its simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.schema.components import QUANTILES
from db.schema.models import (
    KernelQuantile,
)
from db.writing.repository import (
    lacking_quantiles,
    record_simulation,
)


@pytest.fixture(scope="module")
def simulated() -> eft.Sample:
    """Real networks."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=8)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3)
    return eft.simulate(model, kernel, width=16, samples=64, device="cpu")


def test_quantiles_of_one_networks_kernel_are_those_of_the_sample(db, simulated, provenance):
    """Rows and frame, at every layer; with 64 networks the outermost quantiles have a bound on one side only."""
    run_id = record_simulation(db, simulated, provenance=provenance)
    found, sample = queries.quantiles(db), simulated.quantiles(QUANTILES)
    assert set(found.simulation_run_id) == {run_id}
    assert list(found.component.unique()) == ["00", "11"]
    shape = (2, 9, len(QUANTILES))
    for name in ("value", "low", "high"):
        np.testing.assert_array_equal(found[name].to_numpy().reshape(shape), getattr(sample, name).swapaxes(0, 1))
    assert found.low.notna().equals(found.probability > 0.025)
    assert found.high.notna().equals(found.probability < 0.975)
    np.testing.assert_allclose(found.time.to_numpy().reshape(shape)[0, :, 0], simulated.time, rtol=1e-15)
    assert found.layer.to_numpy().reshape(shape)[1, :, 3].tolist() == simulated.depth.tolist()
    assert found.probability.to_numpy().reshape(shape)[1, 2].tolist() == list(QUANTILES)
    described = queries.runs(db, run_id=run_id).iloc[0]
    shared = [name for name in found if name in described.index and name != "superseded"]
    assert {"activation", "width", "samples", "seed", "estimator", "sampler", "dtype"} < set(shared)
    assert found[shared].drop_duplicates().iloc[0].equals(described[shared].rename(0).infer_objects())
    part = queries.quantiles(db, component="11", probability=[0.16, 0.84], width=16)
    assert (len(part), set(part.component), set(part.probability)) == (18, {"11"}, {0.16, 0.84})
    assert queries.quantiles(db, width=17).empty


def test_an_input_that_is_zero_has_no_quantiles_and_lacks_none(db, provenance):
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.5, depth=2)
    for matrix in ([[1.0, 0.0], [0.0, 0.0]], [[0.0]]):
        sample = eft.simulate(model, eft.InputKernel.explicit(matrix), width=8, samples=32, device="cpu")
        assert not lacking_quantiles(db, [record_simulation(db, sample, provenance=provenance)])
    found = queries.quantiles(db)
    assert set(found.component) == {"00"}
    assert set(found.n_inputs) == {2}


def test_quantiles_are_of_the_first_inputs(db, make_sample, provenance):
    record_simulation(db, make_sample(n_inputs=18, depth=2), provenance=provenance)
    found = queries.quantiles(db)
    assert set(found.component) == {*(f"{a}{a}" for a in range(10)), *(f"{a}-{a}" for a in range(10, 16))}


def test_a_sample_without_histograms_has_no_quantiles(db, simulated, provenance):
    sums = {name: counts for name, counts in simulated.sums.items() if name != "histogram"}
    older = replace(simulated, sums=sums, spec=simulated.spec.model_copy(update={"version": 3}))
    assert not lacking_quantiles(db, [record_simulation(db, older, provenance=provenance)])
    assert queries.quantiles(db).empty
    assert len(queries.runs(db)) == 1


def test_a_run_that_was_recorded_without_quantiles_gets_them(db, simulated, provenance, count_rows):
    run_id = record_simulation(db, simulated, provenance=provenance)
    rows, before = count_rows(db), queries.quantiles(db)
    assert rows["kernel_quantiles"] == 2 * 9 * 7
    assert not lacking_quantiles(db, [run_id])
    with db.session() as session:
        session.execute(sa.delete(KernelQuantile))
    assert lacking_quantiles(db, [run_id]) == {run_id}
    assert record_simulation(db, simulated, provenance=provenance) == run_id
    assert count_rows(db) == rows
    assert queries.quantiles(db).equals(before)
    assert not lacking_quantiles(db, [run_id])


@pytest.mark.parametrize("change", [{"probability": 1.0}, {"low": 3.0}, {"high": 1.0}, {"value": float("inf")}])
def test_schema_refuses_what_is_no_quantile(db, make_sample, provenance, change):
    run_id = record_simulation(db, make_sample(), provenance=provenance)
    row = {"run_id": run_id, "component": "55", "layer": 0, "probability": 0.3, "value": 2.0, "low": 1.5, "high": None}
    with db.session() as session:
        session.execute(sa.insert(KernelQuantile).values(row))
    wrong = {**row, "component": "66", **change}
    with pytest.raises(sa.exc.IntegrityError), db.session() as session:
        session.execute(sa.insert(KernelQuantile).values(wrong))
