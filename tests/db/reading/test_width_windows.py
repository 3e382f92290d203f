"""From which width on: what is recorded of theories, and what simulations of several widths show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import eftcore as eft
from db.reading import queries
from db.session import Database
from db.writing.repository import (
    judged_widths,
    mark_failed,
    record_comparison,
    record_prediction,
    record_simulation,
    record_study,
    record_widths,
)
from eftcore.errors import InputError
from eftcore.verdicts.widths import widths_of
from eftcore.verdicts.windows import Comparison

TOLERANCE = 0.1


def test_widths_of_theories_come_back_as_they_were_found(
    db, read_only, make_theory, make_next_order, record_next_order
):
    reference = record_next_order(db)
    exact = make_next_order()
    found = queries.width_windows(read_only)
    assert set(found.reference_kind) == {"theory"}
    assert set(found.reference_run_id) == {reference}
    assert found.width[found.status != "from"].isna().all()
    for closure, theory in (("exact", exact), ("g_only", make_theory("g_only")), ("mean", make_theory("mean"))):
        columns = ["quantity", "tolerance", "layer", "time", "width", "width_low", "width_high", "status"]
        stored = found.loc[found.closure == closure, columns].sort_values(columns[:3], ignore_index=True)
        made = widths_of(theory, exact).rename(columns={"depth": "layer"}).replace([np.inf], np.nan)
        made = made[columns].sort_values(columns[:3], ignore_index=True)
        pd.testing.assert_frame_equal(stored, made, check_dtype=False)
    assert (found.closure == "exact").sum() == 3 * 3 * 9
    assert set(found.status) == {"from", "never"}
    assert found.next_order.tolist() == (found.closure == "exact").tolist()


def test_recording_widths_twice_adds_nothing_and_more_tolerances_do(
    db, read_only, count_rows, make_next_order, record_next_order
):
    reference = record_next_order(db)
    before = count_rows(db)
    record_next_order(db)
    assert count_rows(db) == before
    exact = make_next_order()
    record_widths(db, prediction_run_id=reference, reference_run_id=reference, widths=widths_of(exact, exact, [0.2]))
    assert count_rows(db)["width_windows"] == before["width_windows"] + 3 * 9
    judged = judged_widths(db, [reference])
    assert {each for each in judged if each[1] == reference} == {
        (reference, reference, tolerance) for tolerance in (0.01, 0.05, 0.1, 0.2)
    }


def test_only_a_prediction_with_the_next_order_of_the_same_network_says_widths(
    db, make_theory, make_sample, make_next_order, provenance, count_rows
):
    exact = make_next_order()
    widths = widths_of(exact, exact)
    good = record_prediction(db, exact, provenance=provenance)
    other = record_prediction(db, make_next_order(activation="erf"), provenance=provenance)
    plain = record_prediction(db, make_theory("g_only"), provenance=provenance)
    simulation = record_simulation(db, make_sample(), provenance=provenance)
    failed = mark_failed(db, make_theory("sigma").spec, error="no", provenance=provenance)
    before = count_rows(db)
    for prediction, reference, word in (
        (good, plain, "reference_run_id = .*has no next order in 1/n; predict it"),
        (good, simulation, "must be a prediction that succeeded, and is a simulation"),
        (simulation, good, "prediction_run_id = .*must be a prediction"),
        (good, other, "another configuration"),
        (failed, good, "a prediction with status failed"),
        (good, 999, "no such run"),
    ):
        with pytest.raises(InputError, match=word):
            record_widths(db, prediction_run_id=prediction, reference_run_id=reference, widths=widths)
    assert count_rows(db) == before


def test_filters_and_the_last_layer(db, read_only, record_next_order):
    record_next_order(db)
    record_next_order(db, activation="erf", closures=("sigma",))
    for filters, expected in (
        ({"activation": "erf"}, {"closure": {"exact", "sigma"}}),
        ({"closure": "mean"}, {"quantity": {"K0"}}),
        ({"quantity": ["V4", "K1"], "tolerance": 0.05}, {"tolerance": {0.05}, "quantity": {"V4", "K1"}}),
        ({"layer": 3}, {"layer": {3}}),
        ({"deepest": True}, {"layer": {8}}),
        ({"status": "never"}, {"status": {"never"}}),
        ({"reference_kind": "theory"}, {"reference_kind": {"theory"}}),
    ):
        found = queries.width_windows(read_only, **filters)
        assert {name: set(found[name]) for name in expected} == expected
    assert queries.width_windows(read_only, reference_kind="simulation").empty


Bounds = dict[int, tuple[float | None, float | None]]
"""error_low and error_high at each width."""


def _simulated(
    db: Database, theory: eft.Theory, make_sample: Any, bounds: Bounds, *, study_id: int | None = None, **options: Any
) -> None:
    """Hold a prediction against a simulation of each width, with these bounds of its error at every layer."""
    prediction = record_prediction(db, theory, provenance={}, study_id=study_id)
    for width, (low, high) in bounds.items():
        sample = make_sample(width=width, **options)
        comparison = eft.compare(theory, sample, [TOLERANCE])
        errors = comparison.errors.assign(
            error_low=np.nan if low is None else low, error_high=np.inf if high is None else high
        )
        run_id = record_simulation(db, sample, provenance={}, study_id=study_id)
        record_comparison(
            db,
            prediction_run_id=prediction,
            reference_run_id=run_id,
            comparison=Comparison(errors, comparison.windows),
        )


FAILS, HOLDS, NOISY, OLD = (0.2, 0.3), (0.0, 0.05), (0.0, 0.3), (None, None)


@pytest.mark.parametrize(
    ("bounds", "status", "low", "high"),
    [
        ({16: FAILS, 32: NOISY, 64: HOLDS}, "between", 16, 64),
        ({16: FAILS, 32: HOLDS, 64: HOLDS}, "between", 16, 32),
        ({16: FAILS, 32: FAILS}, "above", 32, None),
        ({16: FAILS, 32: NOISY}, "above", 16, None),
        ({16: HOLDS, 32: HOLDS}, "at_most", None, 16),
        ({16: HOLDS, 32: NOISY, 64: HOLDS}, "at_most", None, 64),
        ({16: HOLDS, 32: FAILS, 64: HOLDS}, "between", 32, 64),
        ({16: HOLDS, 32: FAILS}, "above", 32, None),
        ({16: HOLDS, 32: NOISY}, "unknown", None, None),
        ({16: NOISY}, "unknown", None, None),
        ({16: OLD, 32: HOLDS}, "at_most", None, 32),
        ({16: OLD}, "unknown", None, None),
    ],
)
def test_simulations_say_an_interval(db, read_only, make_theory, make_sample, bounds, status, low, high):
    """Also where a wider simulation is too noisy, and where an older version of the verdicts left no bounds."""
    _simulated(db, make_theory("g_only"), make_sample, bounds)
    found = queries.width_windows(read_only, quantity="V4")
    assert len(found) == 9
    assert found.status.unique().tolist() == [status]
    ends = [None if pd.isna(value) else value for value in found[["width_low", "width_high"]].iloc[-1]]
    assert ends == [low, high]
    assert found.width.isna().all()
    assert found.reference_run_id.isna().all()
    assert set(found.widths) == {len(bounds)}
    assert set(found.reference_kind) == {"simulation"}


def test_the_largest_simulation_of_a_width_speaks_for_it(db, read_only, make_theory, make_sample):
    theory = make_theory("g_only")
    _simulated(db, theory, make_sample, {16: FAILS, 32: HOLDS})
    _simulated(db, theory, make_sample, {16: HOLDS}, shards=((0, 64), (1, 64), (2, 64)))
    _simulated(db, theory, make_sample, {32: FAILS}, shards=((0, 64),))
    found = queries.width_windows(read_only, quantity="V4", deepest=True)
    assert (found.status.item(), found.width_high.item(), found.widths.item()) == ("at_most", 16, 2)


def test_what_was_deleted_says_nothing_any_more(db, read_only, make_theory, make_sample, record_next_order):
    from db.upkeep import removal

    theory = make_theory("g_only")
    _simulated(db, theory, make_sample, {16: FAILS, 32: HOLDS})
    reference = record_next_order(db)
    wide = queries.runs(read_only, kind="simulation", width=32).run_id.tolist()
    removal.delete_runs(db, wide)
    found = queries.width_windows(read_only, quantity="V4", closure="g_only", reference_kind="simulation")
    assert found.status.unique().tolist() == ["above"]
    gone = removal.delete_runs(db, [reference])
    assert gone["width_windows"] == 3 * 9 * (3 + 3 + 1)
    assert queries.width_windows(read_only, reference_kind="theory").empty


def test_superseded_predictions_and_simulations_are_told(db, read_only, make_theory, make_sample, record_next_order):
    from db.writing.lifecycle import register_version

    _simulated(db, make_theory("g_only"), make_sample, {16: FAILS})
    record_next_order(db)
    assert not queries.width_windows(read_only).superseded.any()
    with db.session() as session:
        register_version(session, "simulation", 99)
    found = queries.width_windows(read_only).set_index("reference_kind").superseded
    assert found["simulation"].all()
    assert not found["theory"].any()
    with db.session() as session:
        register_version(session, "prediction", 99)
    assert queries.width_windows(read_only).superseded.all()


def test_widths_of_a_study_are_those_of_its_predictions(
    db, read_only, make_theory, make_sample, make_next_order, record_next_order, provenance
):
    mine, theirs = (record_study(db, name=name, digest=name * 64, spec={}, runs_asked=1) for name in ("a", "b"))
    record_next_order(db, mine)
    _simulated(db, make_theory("g_only"), make_sample, {16: FAILS}, study_id=theirs)
    select = "SELECT DISTINCT closure, reference_kind FROM v_study_width_windows WHERE study = 'b' ORDER BY closure"
    assert queries.select(read_only, select).to_numpy().tolist() == [["g_only", "simulation"]]
    assert set(queries.width_windows(read_only, study="a").closure) == {"exact", "mean", "g_only"}
    assert set(queries.width_windows(read_only, study="b").closure) == {"g_only"}


def test_simulated_widths_follow_from_real_networks(db, read_only, provenance):
    """ReLU, one input: by theory V4 is off by 10 % at 21 neurons; networks of 8 and of 128 say so too."""
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.25, depth=8)
    kernel = eft.InputKernel.explicit([[1.0]])
    exact = eft.predict(model, kernel, "exact", next_order=True, depths=[0, 8])
    run_id = record_prediction(db, exact, provenance=provenance)
    record_widths(db, prediction_run_id=run_id, reference_run_id=run_id, widths=widths_of(exact, exact, [TOLERANCE]))
    for width in (8, 128):
        sample = eft.simulate(model, kernel, width=width, samples=20_000, depths=[0, 8], device="cpu")
        record_comparison(
            db,
            prediction_run_id=run_id,
            reference_run_id=record_simulation(db, sample, provenance=provenance),
            comparison=eft.compare(exact, sample, [TOLERANCE]),
        )
    found = queries.width_windows(read_only, quantity="V4", deepest=True).set_index("reference_kind")
    assert found.status.to_dict() == {"theory": "from", "simulation": "between"}
    assert found.width_low["simulation"] == 8
    assert found.width_high["simulation"] == 128
    assert 8 < found.width_low["theory"] < found.width_high["theory"] < 128
