"""Frames of the widths from which on theories hold, predicted and stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import eftcore as eft
from db.session import Database
from db.writing.repository import record_prediction, record_widths
from eftcore.results import Theory
from eftcore.verdicts.widths import widths_of
from eftcore.words import width_text
from tests.ui.conftest import CLOSURES
from ui.data.predict import next_order_frame, predictions, trajectories_frame
from ui.data.widths import build_widths, predicted_widths, predicted_widths_table, widths_table
from ui.data.windows import WindowFilter
from ui.figures import widths_figure

MODEL = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.25, depth=16)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=1, variance=1.0, correlation=0.3)


@pytest.fixture(scope="module")
def exact() -> Theory:
    return dict(predictions(MODEL, KERNEL, ("next",)))["next"]


@pytest.fixture(scope="module")
def quick() -> dict[str, Theory]:
    return dict(predictions(MODEL, KERNEL, ("g_only", "sigma")))


@pytest.fixture
def stored(fresh: Database, put, statements: list[str]) -> Database:
    """Two configurations simulated at width 16, one with the next order in 1/n."""
    for activation in ("tanh", "relu"):
        put(fresh, activation)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    following = eft.predict(MODEL, kernel, "exact", next_order=True, truncation=0.05)
    reference = record_prediction(fresh, following, provenance={})
    for theory in (following, *(eft.predict(MODEL, kernel, closure) for closure in CLOSURES)):
        run_id = record_prediction(fresh, theory, provenance={})
        widths = widths_of(theory, following)
        record_widths(fresh, prediction_run_id=run_id, reference_run_id=reference, widths=widths)
    return fresh


def test_the_next_order_is_drawn_and_told_with_its_error(exact: Theory, quick: dict[str, Theory]) -> None:
    frame = trajectories_frame(quick, None, ["00", "00,00", "00,00,00"], exact)
    assert exact.covariance_next is not None
    drawn = frame[frame["quantity"] == "D"]
    assert drawn["predicted"].tolist() == exact.covariance_next[:, 0, 0].tolist()
    assert drawn["closure"].unique().tolist() == ["exact"]
    assert set(frame.loc[frame["closure"] == "exact", "quantity"]) == {"D", "K2", "T"}
    third = frame.loc[frame["quantity"] == "T", "predicted"]
    assert third.tolist() == exact.third_cumulant[:, 0, 0, 0].tolist()
    table = next_order_frame(exact, ["00", "00,00", "00,00,00"]).set_index("coefficient")
    assert table["of"].to_dict() == {
        "D[00,00]": "1/n in V4 = n Cov(G, G)",
        "K2[00]": "1/n in K1 = n (E G - K0)",
        "T[00,00,00]": "1/n² in the third cumulant of G",
    }
    value, error = (float(part) for part in table["at T"]["D[00,00]"].split(" ± "))
    assert value == pytest.approx(exact.covariance_next[-1, 0, 0], abs=error)
    known = exact.relative_error("D")
    assert known is not None
    assert error == pytest.approx(known * value, rel=0.1)
    assert "D" not in set(trajectories_frame(quick, None, ["00"])["quantity"])


def test_entries_that_are_not_known_say_so_and_have_no_panel(exact: Theory, quick: dict[str, Theory]) -> None:
    nothing = replace(exact, covariance_next=np.full_like(exact.covariance_next, np.nan))
    assert next_order_frame(nothing, ["00,00"])["at T"].tolist() == ["not known"]
    assert next_order_frame(nothing, []).empty
    assert set(trajectories_frame(quick, None, ["00", "00,00"])["quantity"]) == set(
        trajectories_frame(quick, None, ["00", "00,00"], nothing)["quantity"]
    ) - {"K2"}


def test_predicted_widths_are_those_of_the_library(exact: Theory, quick: dict[str, Theory]) -> None:
    widths = predicted_widths(quick, exact, [0.05, 0.1])
    made = eft.width_windows(exact, quick.values(), [0.05, 0.1])
    assert widths["closure"].unique().tolist() == ["exact", *quick]
    assert widths["width"].fillna(-1).tolist() == made["width"].fillna(-1).tolist()
    table = predicted_widths_table(widths).set_index(["closure", "quantity"])
    last = made[made["theory"] == made["theory"][0]].query("quantity == 'V4' and depth == 16").set_index("tolerance")
    assert table.loc[("exact leading order", "V4")].to_dict() == {
        "τ = 0.05": width_text(last.loc[0.05].to_dict()),
        "τ = 0.1": width_text(last.loc[0.1].to_dict()),
    }
    assert table.loc[("g_only", "V4"), "τ = 0.05"] == "no width"


def test_stored_widths_follow_the_filters(stored: Database, statements: list[str]) -> None:
    before = len(statements)
    chosen = WindowFilter(tolerance=0.05, allowed={"quantity": ["V4"], "width": [16], "closure": ["g_only", "exact"]})
    widths = build_widths(stored, chosen)
    assert len(statements) - before == 1
    assert set(widths["quantity"]) == {"V4"}
    assert set(widths["tolerance"]) == {0.05}
    assert widths["series"].unique().tolist() == ["relu, g_only", "relu, exact", "tanh, g_only"]
    assert set(widths["reference_kind"]) == {"theory", "simulation"}
    table = widths_table(widths).set_index(["configuration", "theory", "from"])["n*"]
    assert table["relu", "g_only", "next order in 1/n"] == "no width"
    assert table["relu", "g_only", "simulated networks"] == "not known", "2048 networks of one width are too noisy"
    exact = widths[(widths["theory"] == "exact") & (widths["layer"] == widths["depth"])]
    assert table["relu", "exact", "next order in 1/n"] == width_text(exact.iloc[0].to_dict())
    alone = build_widths(stored, WindowFilter(tolerance=0.05, allowed={"activation": ["relu"], "closure": ["exact"]}))
    assert alone["series"].unique().tolist() == ["exact"]
    none = build_widths(stored, WindowFilter(tolerance=0.05, allowed={"activation": ["gelu"]}))
    assert none.empty
    assert widths_table(none).empty


def test_the_figure_has_a_line_with_gaps_for_theories_and_marks_for_simulations(exact: Theory, quick) -> None:
    widths = predicted_widths(quick, exact, [0.05])
    v4 = widths["quantity"] == "V4"
    simulated = widths[v4 & (widths["closure"] == "g_only")].assign(
        reference_kind="simulation", width=np.nan, status="between", width_low=16.0, width_high=64.0
    )
    simulated.loc[simulated.index[1], ["status", "width_high"]] = ["above", np.nan]
    simulated.loc[simulated.index[2], ["status", "width_low"]] = ["at_most", np.nan]
    figure = widths_figure(pd.concat([widths, simulated]))
    drawn = [trace for trace in figure.data if trace.mode == "lines" and trace.hovertext is not None]
    line = next(trace for trace in drawn if trace.hovertext[0].startswith("g_only") and trace.xaxis == "x2")
    rows = widths[v4 & (widths["closure"] == "g_only")]
    assert np.isnan(np.array(line.y, dtype=float)).tolist() == (rows["status"] != "from").tolist()
    assert 0 < np.isnan(np.array(line.y, dtype=float)).sum() < len(rows)
    marks = {trace.marker.symbol: trace.y for trace in figure.data if trace.mode == "markers" and trace.xaxis == "x2"}
    assert marks["triangle-up"] == (16.0,)
    assert marks["triangle-down"] == (64.0,)
    bars = next(trace for trace in figure.data if trace.error_y.array is not None and len(trace.error_y.array))
    assert bars.y[0] + bars.error_y.array[0] == pytest.approx(64.0)
    assert bars.y[0] - bars.error_y.arrayminus[0] == pytest.approx(16.0)
    assert figure.layout.yaxis.type == "log"
