"""Figures of windows, read from the figure itself: bars, intervals, the map, and what is written in them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from db.session import Database
from eftcore.verdicts.together import state_together
from ui.data import cells as cells_data
from ui.data.cells import build_cells, build_intervals
from ui.data.run import build_errors, build_simulations, build_trajectories
from ui.data.windows import WindowFilter, bars_page, build_windows
from ui.figures import (
    errors_figure,
    heat_map_figure,
    intervals_figure,
    noted,
    query_figure,
    trajectories_figure,
    windows_figure,
)
from ui.figures.heat_map import LAYERS, SHARE
from ui.figures.style import WINDOW_MARK, WINDOW_MEANING

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
                "resolved_from": np.nan if state == "too_noisy" else 0.02,
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
        ("too_noisy", {"reference cannot resolve": (0.0, 2.0)}),
    ],
)
def test_a_bar_says_what_is_known_at_each_depth(state: str, pieces: dict[str, tuple[float, float]]) -> None:
    bars = _bars(windows_figure(_windows(state)))
    assert len(bars) == len(pieces)
    for start, piece in pieces.items():
        (name,) = [name for name in bars if name.startswith(start)]
        assert bars[name] == [piece]


def test_what_the_reference_does_not_resolve_is_not_drawn_as_certified() -> None:
    late = _windows("beyond", "bounded", "undecided").assign(resolved_from=[0.8, 0.4, 0.4])
    late.loc[2, "certified_until"] = np.nan
    bars = _bars(windows_figure(late))
    named = {name.split(":")[0]: pieces for name, pieces in bars.items()}
    assert named == {
        "before the reference resolves τ": [(0.0, 0.8), (0.0, 0.4), (0.0, 0.4)],
        "certified": [(0.8, 2.0), (0.4, 0.5)],
        "undecided": [(0.5, 0.75), (0.4, 2.0)],
        "past refutation": [(0.75, 2.0)],
    }


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
    windows = bars_page(build_windows(results, WindowFilter(tolerance=0.05), []).windows, 1)
    figure = windows_figure(windows)
    starts = sum(start == 0 for pieces in _bars(figure).values() for start, _ in pieces)
    assert starts == len(windows)
    assert {axis.title.text for axis in figure.select_xaxes()} == {"depth  t = ε² ℓ"}


def test_labels_from_the_database_are_not_markup() -> None:
    both = [_windows("beyond", configuration=name) for name in ("<b>bold</b>", "plain")]
    texts = [note.text for note in windows_figure(pd.concat(both)).layout.annotations]
    assert "<b>&lt;b&gt;bold&lt;/b&gt;</b>" in texts


def test_on_a_phone_one_panel_stands_under_the_other(results: Database) -> None:
    simulation = int(build_simulations(results)["run_id"].iloc[0])
    cells = build_cells(results, WindowFilter(tolerance=0.05), "closure", "activation")
    rows = build_intervals(results, WindowFilter(tolerance=0.05), "closure", "activation")
    bars = bars_page(build_windows(results, WindowFilter(tolerance=0.05), []).windows, 1)
    entries = build_trajectories(results, simulation, ["00", "00,00"])
    for narrow, wide in (
        (heat_map_figure(cells, "closure", "activation", narrow=True), heat_map_figure(cells, "closure", "activation")),
        (intervals_figure(rows, "closure", "activation", narrow=True), intervals_figure(rows, "closure", "activation")),
        (windows_figure(bars, narrow=True), windows_figure(bars)),
        (trajectories_figure(entries, narrow=True), trajectories_figure(entries)),
        (
            errors_figure(build_errors(results, simulation), [0.1], narrow=True),
            errors_figure(build_errors(results, simulation), [0.1]),
        ),
    ):
        assert len({tuple(axis.domain) for axis in narrow.select_xaxes()}) == 1
        assert len({tuple(axis.domain) for axis in wide.select_xaxes()}) > 1
        assert len(narrow.data) == len(wide.data)


def _axes(windows: pd.DataFrame) -> pd.DataFrame:
    """Windows of _windows with places on two axes."""
    return windows.assign(across=windows["theory"], across_rank=range(len(windows)), by="tanh", by_rank=1.0)


def _written(figure: go.Figure) -> dict[tuple[str, str, str], str]:
    """The text in each cell of a map, by panel, column and row."""
    return {
        (text.xaxis, x, y): said
        for text in figure.data
        if text.type == "scatter" and text.text is not None
        for x, y, said in zip(text.x, text.y, text.text, strict=True)
    }


SIGNS = {"bounded": "×", "undecided": "○", "beyond": "▲", "too_noisy": "⊠", "mixed": "◇"}


@pytest.mark.parametrize(("measure", "factor"), [(SHARE, 100), (LAYERS, 16)])
def test_each_cell_of_the_map_says_its_state_and_depth(results: Database, measure: str, factor: float) -> None:
    cells = build_cells(results, WindowFilter(tolerance=0.05), "closure", "activation")
    written = _written(heat_map_figure(cells, "closure", "activation", measure=measure))
    assert len(written) == len(cells)
    panels = {"K0": "x", "V4": "x2", "K1": "x3"}
    for cell in cells.to_dict("records"):
        said = written[panels[cell["quantity"]], cell["across"], cell["by"]]
        assert said[0] == SIGNS[cell["status"]]
        if not np.isnan(cell["share"]):
            assert float(said[1:].removesuffix(" %")) == pytest.approx(factor * cell["share"], abs=0.5)
    assert len({mark["symbol"] for mark in WINDOW_MARK.values()}) == len(WINDOW_MARK) == len(SIGNS)


def _cell(**counts: int) -> pd.DataFrame:
    """One cell of several windows, of which one in 26 is certified nowhere and the others are not resolved."""
    full = dict.fromkeys(cells_data.STATES, 0) | counts
    return pd.DataFrame(
        [
            {
                "quantity": "V4",
                "across": "sigma",
                "by": "tanh",
                "across_rank": 1.0,
                "by_rank": 1.0,
                "windows": sum(full.values()),
                **full,
                "status": state_together(**full),
                "text": "",
                "share": 0.0,
                "layers": 0.0,
                "share_least": 0.0,
                "share_most": 0.0,
                "runs": (1, 2),
            }
        ]
    )


def test_one_refutation_among_many_unresolved_windows_colours_no_cell() -> None:
    figure = heat_map_figure(_cell(bounded=1, too_noisy=25), "closure", "activation")
    (said,) = _written(figure).values()
    assert said.startswith("⊠")
    assert "1× 25⊠" in said
    (colours,) = [trace.z for trace in figure.data if trace.type == "heatmap"]
    assert np.isnan(colours).all()
    (hover,) = [trace.hovertext[0] for trace in figure.data if trace.hovertext]
    assert "26 windows: 1 refuted, 25 not resolved" in hover
    assert "noise alone refutes up to 1.3 of 26" in hover
    named = {trace.name for trace in figure.data if trace.name}
    assert WINDOW_MEANING["bounded"] in named, "the sign in the count is explained"
    refuted = heat_map_figure(_cell(bounded=20, beyond=6), "closure", "activation")
    assert next(iter(_written(refuted).values())).startswith("× 0 %")


def test_notes_stand_below_a_figure_as_plain_text_inside_of_it() -> None:
    figure = windows_figure(_windows("beyond"))
    before, below = figure.layout.height, figure.layout.margin.b
    lines = ["only <b>tanh</b>", "words " * 60]
    noted(figure, lines)
    text = figure.layout.annotations[-1].text
    assert text.startswith("only &lt;b&gt;tanh&lt;/b&gt;<br>words")
    assert max(map(len, text.split("<br>"))) < 150
    count = text.count("<br>") + 1
    assert count > 2
    assert figure.layout.height - before == figure.layout.margin.b - below >= 14 * count
    assert figure.layout.annotations[-1].yshift == -below


def test_intervals_mark_both_ends() -> None:
    figure = intervals_figure(_axes(_windows(*STATES)), "closure", "activation")
    marks = {
        (t.marker.symbol, float(y)) for t in figure.data if t.mode == "markers" and t.x[0] is not None for y in t.y
    }
    assert marks == {
        ("circle", 0.5),
        ("x", 0.75),
        ("triangle-up", 2.0),
        ("circle", 1.25),
        ("circle-open", 2.0),
        ("square-x-open", 0.0),
    }


def test_every_window_has_its_dot(results: Database) -> None:
    windows = build_intervals(results, WindowFilter(tolerance=0.05), "activation", "closure")
    figure = intervals_figure(windows, "activation", "closure")
    ends = {"circle", "triangle-up", "square-x-open"}
    dots = [t for t in figure.data if t.mode == "markers" and t.marker.symbol in ends and t.x[0] is not None]
    assert sum(len(trace.x) for trace in dots) == len(windows)
    places = [x for trace in dots for x in zip([trace.xaxis] * len(trace.x), trace.x, strict=True)]
    assert len(set(places)) == len(places)


def test_names_from_the_database_are_not_markup_in_any_figure() -> None:
    bad = "<a href='x'>y</a>"
    frame = _axes(_windows("beyond", "bounded")).assign(by=bad, theory="g_only", text=bad)
    counts = dict.fromkeys(cells_data.STATES, 1) | {"windows": 1, "share": 0.5, "layers": 3.0}
    series = pd.DataFrame(
        {
            "quantity": "K0",
            "component": "00",
            "configuration": [bad, "plain"],
            "theory": "g_only",
            "closure": "g_only",
            "series": [f"{bad}: g_only", "plain: g_only"],
            "time": [0.0, 1.0],
            "simulated": 1.0,
            "simulated_se": 0.1,
            "predicted": 1.0,
            "samples": 10,
            "width": 4,
        }
    )
    table = pd.DataFrame({bad: [1.0, 2.0], "y": [1.0, 2.0], "name": [bad, bad]})
    for figure in (
        heat_map_figure(frame.assign(**counts), bad, bad),
        intervals_figure(frame, bad, bad),
        trajectories_figure(series),
        query_figure(table, bad, "y", "name", lines=True, log=False),
    ):
        for trace in figure.data:
            assert "<a" not in str([trace.name, trace.hovertext, trace.hovertemplate])
        assert "<a" not in str([axis.title.text for axis in (*figure.select_xaxes(), *figure.select_yaxes())])
