"""What figures say, read from the figure itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from db.session import Database
from ui.data import WindowFilter, build_windows
from ui.figures import errors_figure, trajectories_figure, windows_figure
from ui.figures.style import CLOSURE_LINE
from ui.run_data import build_errors, build_simulations, build_trajectories

STATES = {
    "bounded": (0.5, 0.75),
    "beyond": (2.0, np.nan),
    "undecided": (1.25, np.nan),
    "too_noisy": (np.nan, np.nan),
}


def _windows(*states: str, configuration: str = "tanh") -> pd.DataFrame:
    """One window of each state, each a theory of its own."""
    return pd.DataFrame(
        [
            {
                "configuration": configuration,
                "theory": state,
                "quantity": "V4",
                "tolerance": 0.05,
                "certified_until": STATES[state][0],
                "refuted_from": STATES[state][1],
                "status": state,
                "total_time": 2.0,
                "width": 16,
                "samples": 1000,
            }
            for state in states
        ]
    )


def _bars(figure: go.Figure) -> dict[str, list[tuple[float, float]]]:
    """Pieces (from, to) of the only bar of a figure, by the legend entry of the same look."""
    names = {_look(trace): trace.name for trace in figure.data if trace.type == "bar" and trace.name}
    found: dict[str, list[tuple[float, float]]] = {}
    for trace in figure.data:
        if trace.type == "bar" and trace.name is None:
            for start, length in zip(trace.base, trace.x, strict=True):
                found.setdefault(names[_look(trace)], []).append((start, start + length))
    return found


def _look(trace: go.Bar) -> tuple[str, str, float]:
    return trace.marker.color, trace.marker.pattern.shape, trace.width


@pytest.mark.parametrize(
    ("state", "pieces"),
    [
        ("bounded", {"certified": (0.0, 0.5), "undecided": (0.5, 0.75), "past refutation": (0.75, 2.0)}),
        ("beyond", {"certified": (0.0, 2.0)}),
        ("undecided", {"certified": (0.0, 1.25), "undecided": (1.25, 2.0)}),
        ("too_noisy", {"simulation too noisy": (0.0, 2.0)}),
    ],
)
def test_a_bar_says_what_is_known_at_each_depth(state: str, pieces: dict[str, tuple[float, float]]) -> None:
    bars = _bars(windows_figure(_windows(state)))
    assert len(bars) == len(pieces)
    for start, piece in pieces.items():
        (name,) = [name for name in bars if name.startswith(start)]
        assert bars[name] == [piece]


def test_states_differ_in_more_than_colour() -> None:
    figure = windows_figure(_windows(*STATES))
    looks = {trace.name: _look(trace) for trace in figure.data if trace.type == "bar" and trace.name}
    assert len(looks) == 4
    assert len({look[0] for look in looks.values()}) == 4
    assert len({look[1:] for look in looks.values()}) == 4


def test_refutation_and_censoring_are_marked_where_they_are() -> None:
    figure = windows_figure(_windows(*STATES))
    marks = {
        trace.marker.symbol: list(trace.x)
        for trace in figure.data
        if trace.type == "scatter" and trace.name is None and len(trace.x)
    }
    assert marks == {"x": [0.75], "triangle-right": [2.0]}


def test_each_window_of_a_page_has_its_bar(results: Database) -> None:
    windows = build_windows(results, WindowFilter(tolerance=0.05)).windows
    figure = windows_figure(windows)
    starts = sum(start == 0 for pieces in _bars(figure).values() for start, _ in pieces)
    assert starts == len(windows)
    assert {axis.title.text for axis in figure.select_xaxes()} == {"depth  t = ε² ℓ"}


def test_labels_from_the_database_are_not_markup() -> None:
    both = [_windows("beyond", configuration=name) for name in ("<b>bold</b>", "plain")]
    texts = [note.text for note in windows_figure(pd.concat(both)).layout.annotations]
    assert "<b>&lt;b&gt;bold&lt;/b&gt;</b>" in texts


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
    # K0: three closures; V4: two; K1 and U1: one
    assert sorted(lines) == ["g_only"] * 4 + ["mean"] + ["source_only"] * 2
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert len(legend) == len(set(legend)) == 4


def test_where_the_error_is_undefined_nothing_is_drawn() -> None:
    frame = pd.DataFrame(
        {
            "quantity": "K1",
            "theory": "g_only",
            "closure": "g_only",
            "time": [0.0, 0.5, 1.0, 1.5, 2.0],
            "error": [np.nan, 0.2, np.nan, 0.3, 0.4],
            "error_se": [np.nan, 0.01, np.nan, 0.01, 0.01],
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
    texts = [text for trace in figure.data if trace.mode == "lines+text" for text in trace.text if text]
    assert texts == [" τ = 0.01", " τ = 0.1"]
    assert {axis.type for axis in figure.select_yaxes()} == {"log"}


def test_every_closure_has_a_line_of_its_own() -> None:
    from eftcore.specs import CLOSURES

    assert set(CLOSURE_LINE) == set(CLOSURES)
    assert len({(line["color"], line["dash"]) for line in CLOSURE_LINE.values()}) == len(CLOSURES)
    assert len({line["dash"] for line in CLOSURE_LINE.values()}) == len(CLOSURES)
