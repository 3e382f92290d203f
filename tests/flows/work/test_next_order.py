"""The next order in 1/n that a study asks for: recorded for SQL, made again, and missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.session import Database
from db.settings import default_url
from eftcore.errors import InputError
from flows.study.expansion import load_study
from flows.work import computations
from tests.flows.studies import TASKS, counts, run

pytestmark = pytest.mark.usefixtures("without_prefect")


def test_the_next_order_that_a_study_asks_for_is_there_for_sql(calls: list[str], tiny: Path):
    closures = 'closures = ["g_only", "exact", { name = "exact", next_order = true, truncation = 0.01 }]'
    tiny.write_text(tiny.read_text().replace('closures = ["mean", "g_only"]', closures))
    assert run(tiny).failures == []
    spec = next(spec for spec in load_study(tiny).predictions.values() if spec.next_order)
    exact = eft.predict_spec(spec)
    db = Database(default_url(), read_only=True)
    found = queries.select(
        db,
        "SELECT width, component, predicted, closure, layer FROM v_trajectories WHERE next_order AND quantity = 'D'"
        " AND layer = depth ORDER BY width, component",
    )
    assert found.width.tolist() == [8] * 6 + [16] * 6
    last = exact.covariance_next[-1]
    assert found.predicted.tolist() == pytest.approx([*last[np.triu_indices(3)]] * 2, rel=1e-9)
    without = queries.select(db, "SELECT COUNT(*) AS n FROM v_trajectories WHERE closure = 'exact' AND NOT next_order")
    assert without.n.iloc[0] > 0
    sql = "SELECT numerical_error FROM kernel_trajectories WHERE quantity = 'K2' AND se IS NULL"
    stored = queries.select(db, sql)
    assert stored.numerical_error.tolist() == [pytest.approx(exact.relative_error("K2"), rel=1e-6)]

    from_theory = queries.width_windows(db, study="tiny", reference_kind="theory")
    mine = from_theory[(from_theory.closure == "exact") & from_theory.next_order]
    columns = ["quantity", "tolerance", "layer"]
    made = eft.width_windows(exact, tolerances=load_study(tiny).tolerances).rename(columns={"depth": "layer"})
    made = made.sort_values(columns)
    assert mine.sort_values(columns).status.tolist() == made.status.tolist()
    known = made.status == "from"
    assert mine.sort_values(columns).width.dropna().tolist() == pytest.approx(made.width[known].tolist(), rel=1e-6)
    assert set(from_theory.closure) == {"g_only", "exact"}
    assert len(from_theory) == 3 * len(mine), "of both predictions of the leading order, and of g_only"
    simulated = queries.width_windows(db, study="tiny", reference_kind="simulation")
    assert set(simulated.widths) == {2}
    db.dispose()


def test_lost_widths_are_recorded_again_without_computing_anything(calls: list[str], tiny: Path):
    closures = 'closures = ["g_only", { name = "exact", next_order = true, truncation = 0.05 }]'
    tiny.write_text(tiny.read_text().replace('closures = ["mean", "g_only"]', closures))
    first = run(tiny)
    assert (first.failures, first.computed) == ([], TASKS + 4)
    rows = counts()
    calls.clear()
    assert (run(tiny).cached, calls) == (TASKS + 4, [])
    db = Database(default_url())
    with db.session() as session:
        session.execute(sa.text("DELETE FROM width_windows WHERE tolerance = 0.05"))
    db.dispose()
    again = run(tiny)
    assert (again.cached, again.computed, calls) == (TASKS + 3, 1, [])
    assert counts() == rows


def test_without_its_next_order_a_study_says_no_widths_and_goes_on(
    calls: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    closures = 'closures = ["g_only", { name = "exact", next_order = true }]'
    tiny.write_text(tiny.read_text().replace('closures = ["mean", "g_only"]', closures))
    predict = computations.predict

    def fails(store: Any, spec: eft.PredictionSpec) -> None:
        if spec.next_order:
            raise InputError("the next order does not converge")
        predict(store, spec)

    monkeypatch.setattr(computations, "predict", fails)
    found = run(tiny)
    assert [failure.cause for failure in found.failures] == ["the next order does not converge"]
    assert found.skipped == 1 + 2 + 3, "the widths, its comparisons, and what is measured"
    db = Database(default_url(), read_only=True)
    assert set(queries.width_windows(db).reference_kind) == {"simulation"}
    db.dispose()
