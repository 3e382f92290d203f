"""How far a study is and how long it will take, by hand and on both databases."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import eftcore as eft
from db.session import Database
from db.writing.repository import mark_pending, record_prediction, record_study
from tests.ui.conftest import ONE_RUN
from ui.data.progress import build_runs, build_speed, configurations_frame, seconds_left

START = pd.Timestamp("2026-01-01 12:00:00", tz="UTC")


def _runs(*rows: tuple[int, str, float, int]) -> pd.DataFrame:
    """Runs of (configuration, status, work, seconds after START at which they changed)."""
    frame = pd.DataFrame(rows, columns=["configuration_id", "status", "work", "second"])
    moments = START + pd.to_timedelta(frame.pop("second"), unit="s")
    return frame.assign(updated_at=moments, started_at=moments, activation="tanh", epsilon=0.1, depth=10)


@pytest.mark.parametrize(
    ("rows", "earlier", "seconds"),
    [
        # 100 updates in 50 s, 300 to go; what was there before counts for nothing
        ([(1, "succeeded", 100.0, 20), (1, "pending", 300.0, 0), (1, "succeeded", 1e6, -5)], None, 150.0),
        ([(1, "failed", 500.0, 20), (1, "succeeded", 100.0, 20)], None, 0.0),
        ([(1, "pending", 0.0, 0), (1, "succeeded", 0.0, 3)], 7.0, None),
        ([(1, "pending", 300.0, 0)], None, None),
        ([(1, "pending", 300.0, 0)], 10.0, 30.0),
        # begun 20 s ago
        ([(1, "running", 300.0, 30), (1, "pending", 100.0, 0)], 10.0, 20.0),
        ([(1, "running", 100.0, 10)], 10.0, 0.0),
    ],
)
def test_the_time_left_follows_from_what_was_done_since_the_start(
    rows: list[Any], earlier: float | None, seconds: float | None
) -> None:
    now = START + pd.Timedelta(seconds=50)
    assert seconds_left(_runs(*rows), earlier, START, now) == pytest.approx(seconds)


def test_configurations_at_work_come_first_and_share_the_time_by_their_work() -> None:
    runs = _runs((1, "succeeded", 5.0, 1), (2, "pending", 30.0, 0), (3, "running", 10.0, 5), (3, "failed", 0.0, 5))
    runs["epsilon"] = [0.1, 0.2, 0.3, 0.3]
    table = configurations_frame(runs, 40.0)
    assert table["configuration"].tolist() == ["ε = 0.3", "ε = 0.2", "ε = 0.1"]
    assert table["left"].tolist() == [10.0, 30.0, 0.0]
    assert table[["recorded", "asked", "at work", "failed"]].values.tolist() == [
        [0, 2, 1, 1],
        [0, 1, 0, 0],
        [1, 1, 0, 0],
    ]
    assert configurations_frame(runs, None)["left"].isna().all()
    assert configurations_frame(runs.iloc[:0], 1.0).empty


def test_work_of_stored_runs_is_networks_times_depth_times_width_times_inputs(both: Database, fresh: Database) -> None:
    speed = build_speed(both)
    assert speed == pytest.approx(2048 * 16 * 16 * 2 / 1.25), "elapsed time, not that of all workers together"
    assert build_speed(fresh) is None
    model = eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.5, depth=4)
    kernel = eft.InputKernel.explicit([[1.0]])
    study = record_study(fresh, name="half", digest="1" * 64, spec=ONE_RUN, runs_asked=2)
    record_prediction(fresh, eft.predict(model, kernel, "mean"), provenance={}, study_id=study)
    spec = eft.EnsembleSpec(model=model, kernel=kernel, width=8)
    mark_pending(fresh, spec, study_id=study, digest="2" * 64, samples=100)
    runs = build_runs(fresh, "1" * 64)
    assert dict(zip(runs["kind"], runs["work"], strict=True)) == {"simulation": 100 * 4 * 8, "prediction": 0.0}
    (row,) = configurations_frame(runs, None).to_dict("records")
    assert (row["configuration"], row["recorded"], row["asked"]) == ("tanh", 1, 2)
