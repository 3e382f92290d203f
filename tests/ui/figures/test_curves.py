"""Curves over depth, read from the figure itself: bands, styles of theories, errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from db.session import Database
from ui.data.run import build_errors, build_simulations, build_trajectories
from ui.figures import (
    entries_figure,
    errors_figure,
    trajectories_figure,
)
from ui.figures.style import CLOSURE_LINE, theory_lines


def test_bands_are_two_standard_errors(results: Database) -> None:
    simulation = int(build_simulations(results)["run_id"].iloc[0])
    frame = build_trajectories(results, simulation, ["01"])
    k1 = frame[frame["quantity"] == "K1"].drop_duplicates("time").sort_values("time")
    figure = trajectories_figure(frame[frame["quantity"] == "K1"])
    (band,) = [trace for trace in figure.data if trace.fill == "toself"]
    upper = np.asarray(band.y)[: len(k1)]
    np.testing.assert_allclose(upper, k1["simulated"] + 2 * k1["simulated_se"], rtol=1e-14)
    assert any("M = 2048 networks" in (trace.name or "") for trace in figure.data)


def test_every_theory_is_drawn_over_the_simulation(results: Database) -> None:
    simulation = int(build_simulations(results)["run_id"].iloc[0])
    figure = trajectories_figure(build_trajectories(results, simulation, ["00", "00,00"]))
    lines = [trace.name for trace in figure.data if trace.mode == "lines" and trace.fill is None]
    # K0: three closures; V4 and Sigma: two; K1 and U1: one
    assert sorted(lines) == ["g_only"] * 5 + ["mean"] + ["source_only"] * 3
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert len(legend) == len(set(legend)) == 4


def _eight(several: bool) -> pd.DataFrame:
    """Eight series: of eight configurations, or of one."""
    theories = ["mean", "source_only", "g_only", "sigma", "exact", "g_only 32-node", "g_only 16-node", "wick 8"]
    frames = []
    for place in range(8):
        theory = "g_only" if several else theories[place]
        configuration = f"C_W = {place}" if several else ""
        base = {"quantity": "V4", "component": "00,00", "configuration": configuration, "theory": theory}
        closure, number = theory.split()[0], {"g_only 32-node": 32.0, "g_only 16-node": 16.0}.get(theory)
        numbers = {"simulated": 1.0 + place, "simulated_se": 0.1, "predicted": [1.0, 2.0], "samples": 9, "width": 4}
        series = f"{configuration}: {theory}".removeprefix(": ")
        columns = base | numbers | {"closure": closure, "nodes": number, "series": series, "time": [0.0, 1.0]}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("several", [True, False])
def test_eight_series_have_eight_styles_also_without_their_colours(several: bool) -> None:
    figure = trajectories_figure(_eight(several))
    lines = [trace for trace in figure.data if trace.line.dash and trace.showlegend]
    assert len(lines) == 8
    assert len({(line.line.dash, line.marker.symbol) for line in lines}) == 8
    assert len({(line.line.color, line.line.dash) for line in lines}) == 8
    points = [trace.marker.symbol for trace in figure.data if trace.mode == "markers" and trace.showlegend]
    assert len(set(points)) == len(points) == (8 if several else 1)


def test_an_error_between_gaps_is_a_marker_and_curves_have_none() -> None:
    frame = pd.DataFrame(
        {
            "quantity": "K1",
            "configuration": "",
            "series": "g_only",
            "theory": "g_only",
            "closure": "g_only",
            "time": [0.0, 0.5, 1.0, 1.5, 2.0],
            "error": [np.nan, 0.2, np.nan, 0.3, 0.4],
            "error_low": 0.1,
            "error_high": 0.5,
            "samples": np.nan,
        }
    )
    marks = [trace for trace in errors_figure(frame, [0.05]).data if trace.mode == "markers"]
    assert [[y for y in trace.y if not np.isnan(y)] for trace in marks] == [[0.2]]
    assert not [t for t in errors_figure(frame.assign(error=0.2), [0.05]).data if t.mode == "markers"]
    tiny = errors_figure(frame.assign(error=1e-12, error_low=0.0, error_high=1e-12), [0.05])
    assert "at most 1e-12" in [note.text for note in tiny.layout.annotations]


def test_names_of_close_levels_stand_apart() -> None:
    frame = pd.DataFrame(
        {
            "quantity": "V4",
            "configuration": "",
            "series": "g_only",
            "theory": "g_only",
            "closure": "g_only",
            "time": [0.0, 1.0],
            "error": [1e-8, 30.0],
            "error_low": 0.0,
            "error_high": np.inf,
            "samples": np.nan,
        }
    )
    figure = errors_figure(frame, [0.05, 0.1, 0.01])
    low, high = next(figure.select_yaxes()).range
    heights = sorted(note.y for note in figure.layout.annotations if str(note.text).startswith("τ"))
    assert len(heights) == 3
    assert np.diff(heights).min() / (high - low) > 0.06


def test_where_the_error_is_undefined_nothing_is_drawn() -> None:
    frame = pd.DataFrame(
        {
            "quantity": "K1",
            "configuration": "",
            "series": "g_only",
            "theory": "g_only",
            "closure": "g_only",
            "time": [0.0, 0.5, 1.0, 1.5, 2.0],
            "error": [np.nan, 0.2, np.nan, 0.3, 0.4],
            "error_low": [0.0, 0.18, 0.0, 0.28, 0.38],
            "error_high": [np.inf, 0.22, np.inf, 0.32, 0.42],
            "samples": 1000,
        }
    )
    bands = [trace for trace in errors_figure(frame, [0.05]).data if trace.fill == "toself"]
    assert [set(band.x) for band in bands] == [{0.5}, {1.5, 2.0}]
    texts = [note.text for note in errors_figure(frame.assign(error=np.nan), [0.05]).layout.annotations]
    assert "undefined: below its own noise" in texts


def test_errors_show_the_tolerances_and_every_theory(results: Database) -> None:
    simulation = int(build_simulations(results)["run_id"].iloc[0])
    figure = errors_figure(build_errors(results, simulation), [0.01, 0.1])
    texts = [note.text for note in figure.layout.annotations if str(note.text).startswith("τ")]
    assert texts == ["τ = 0.01", "τ = 0.1"]
    assert {axis.type for axis in figure.select_yaxes()} == {"log"}


def test_every_closure_has_a_line_of_its_own() -> None:
    from eftcore.specs import CLOSURES

    assert set(CLOSURE_LINE) == set(CLOSURES)
    assert len({(line["color"], line["dash"]) for line in CLOSURE_LINE.values()}) == len(CLOSURES)
    assert len({line["dash"] for line in CLOSURE_LINE.values()}) == len(CLOSURES)


def test_theories_of_one_closure_have_lines_of_their_own() -> None:
    theories = {
        "wick 2": ("wick", 2, np.nan),
        "wick 24": ("wick", 24, np.nan),
        "g_only 32-node": ("g_only", np.nan, 32),
        "g_only": ("g_only", np.nan, np.nan),
    }
    frame = pd.DataFrame(theories.values(), columns=["closure", "closure_order", "nodes"]).assign(theory=list(theories))
    lines = theory_lines(frame)
    assert lines["g_only"] == CLOSURE_LINE["g_only"]
    assert lines["wick 24"] == CLOSURE_LINE["wick"]
    assert len({(line["color"], line["dash"]) for line in lines.values()}) == 4


def test_a_logarithmic_axis_of_errors_ends_below_the_best_theory(results: Database) -> None:
    errors = build_errors(results, int(build_simulations(results)["run_id"].iloc[0]))
    tiny = errors.assign(error=errors["error"].where(errors["time"] > 0, 1e-12))
    for axis in errors_figure(tiny, [0.05, 0.1]).select_yaxes():
        assert -8 <= axis.range[0] <= np.log10(0.005)
        assert axis.range[1] > np.log10(errors["error"].max())
    assert {axis.type for axis in errors_figure(errors, [0.1], log=False).select_yaxes()} == {None}


def test_the_picture_of_entries_fills_the_chosen_ones_on_both_sides() -> None:
    (matrix,) = entries_figure(2, ["00", "01", "11"], ["01"]).data
    assert np.array(matrix.z).tolist() == [[1, 2], [2, 1]]
    (matrix,) = entries_figure(2, ["00,00", "00,11", "01,01"], ["00,11"]).data
    assert np.array(matrix.z).tolist() == [[1, 0, 2], [0, 1, 0], [2, 0, 0]]
