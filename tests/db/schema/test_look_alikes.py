"""No two rows of a view look alike: whatever decides the numbers of a run is a column, not only in its id."""

from __future__ import annotations

from dataclasses import replace

import pytest

import eftcore as eft
from db.reading import queries
from db.schema.views import VIEWS
from db.writing.repository import (
    record_comparison,
    record_measurement,
    record_prediction,
    record_simulation,
    record_study,
)

THEORIES = [
    {},
    {"step": "exact"},
    {"continuous": True},
    {"numerics": eft.Numerics(rtol=1e-6)},
    {"numerics": eft.Numerics(quadrature="gauss_hermite", nodes=32)},
    {"numerics": eft.Numerics(quadrature="gauss_hermite", nodes=16)},
    {"closure": "wick", "order": 4},
    {"closure": "wick", "order": 6},
    {"closure": "wick", "order": 6, "step": "euler"},
    {"closure": "exact"},
    {"closure": "exact", "next_order": True},
]
SIMULATIONS = [{}, {"seed": 1}, {"estimator": "plain"}, {"sampler": "weights"}, {"dtype": "float64"}, {"width": 17}]

KEYS = ("quantity", "tolerance", "component", "layer", "probability")
SETTINGS = (
    "kernel_variance",  # that of a check is its own
    *("width", "samples", "seed", "estimator", "sampler", "dtype"),
    *("closure", "closure_order", "quadrature", "nodes", "rtol", "step", "continuous", "next_order"),
    *("reference_closure", "reference_order", "reference_quadrature", "reference_nodes"),
    *("reference_rtol", "reference_step", "reference_continuous", "reference_next_order"),
    *("widths", "reference_widths", "reference_samples"),
)


def test_rows_differ_in_more_than_the_ids_of_their_runs(db, make_theory, make_sample, make_measured, record_checked):
    theories = [make_theory(**settings) for settings in THEORIES]
    sample = make_sample()
    fields = {"model": sample.spec.model, "kernel": sample.spec.kernel, "width": 16}
    samples = [replace(sample, spec=eft.EnsembleSpec(**fields | settings)) for settings in SIMULATIONS]
    samples.append(replace(sample, shards=(*sample.shards, (2, 64))))
    study = record_study(db, name="alike", digest="a" * 64, spec={}, runs_asked=1)
    record_study(db, name="alike", digest="b" * 64, spec={}, runs_asked=1)
    predictions = [record_prediction(db, theory, provenance={}, study_id=study) for theory in theories]
    simulations = [record_simulation(db, sample, provenance={}, study_id=study) for sample in samples]
    assert len({*predictions, *simulations}) == len(theories) + len(samples)
    measured = [make_measured(widths) for widths in ((16, 64), (16, 32), (16, 32, 64))]
    more = measured[0].spec.samples[0][1] + 64
    wider = measured[0].spec.model_copy(update={"samples": ((16, more, "e" * 64), measured[0].spec.samples[1])})
    measured.append(replace(measured[0], spec=wider))
    measurements = [record_measurement(db, each, provenance={}, study_id=study) for each in measured]
    assert len(set(measurements)) == len(measured)
    for prediction, theory in zip(predictions, theories, strict=True):
        for reference, held in zip([*simulations, *predictions], [*samples, *theories], strict=True):
            if reference != prediction:
                pair = {"prediction_run_id": prediction, "reference_run_id": reference}
                record_comparison(db, **pair, comparison=eft.compare(theory, held))
    following = {"prediction_run_id": predictions[-1]}
    for reference, held in zip(measurements, measured, strict=True):
        comparison = eft.compare(theories[-1], held)
        record_comparison(db, **following, reference_run_id=reference, comparison=comparison)
    for seed in (0, 1):
        record_checked(db, seed)
    for view in VIEWS:
        frame = queries.select(db, f"SELECT * FROM {view.name}", max_rows=None)
        told = [name for name in frame if name in (*KEYS, *SETTINGS)]
        assert len(frame) > 0
        assert not frame.duplicated(told).any(), view.name


def test_a_study_that_was_changed_counts_once(db, record_all, make_theory, provenance):
    """The same name with other contents is another study file, and has the same runs."""
    record_all(db, "first")
    changed = record_study(db, name="first", digest="c" * 64, spec={}, runs_asked=1)
    record_prediction(db, make_theory("g_only"), provenance=provenance, study_id=changed)
    count = "SELECT study, count(*) AS n FROM v_study_runs GROUP BY study"
    assert queries.select(db, count).to_numpy().tolist() == [["first", 4]]


@pytest.mark.parametrize("view", ["windows", "errors", "trajectories", "best_closures"])
def test_a_row_belongs_to_a_study_that_has_both_of_its_runs(db, record_all, make_theory, provenance, view):
    record_all(db, "first", closures=("mean", "g_only"))
    half = record_study(db, name="half", digest="d" * 64, spec={}, runs_asked=1)
    record_prediction(db, make_theory("g_only"), provenance=provenance, study_id=half)
    found = queries.select(db, f"SELECT DISTINCT study FROM v_study_{view}")
    assert found["study"].tolist() == ["first"]
    whole, by_study = (queries.select(db, f"SELECT * FROM v_{name}{view}") for name in ("", "study_"))
    assert len(whole) == len(by_study) > 0
