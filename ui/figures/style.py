"""Style of all figures: colours, lines, bands, legend.

Colours are the Okabe-Ito set, which can be distinguished with every common colour blindness and on light and dark
backgrounds; dashes, hatching and bar height repeat the information. Bands of errors hold at all depths at once, as in
the definition of the windows.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape, unescape
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from eftcore.quantities import QUANTITIES
from ui.notation import number

BLUE, ORANGE, VERMILION, GREEN, PURPLE, SKY, GREY, VIOLET = (
    "#0072B2",
    "#E69F00",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#808080",
    "#9467BD",
)

CLOSURE_LINE = {
    "mean": {"color": SKY, "dash": "dot"},
    "source_only": {"color": ORANGE, "dash": "dash"},
    "g_only": {"color": BLUE, "dash": "solid"},
    "sigma": {"color": GREEN, "dash": "longdash"},
    "wick": {"color": PURPLE, "dash": "dashdot"},
    "particle": {"color": VERMILION, "dash": "longdashdot"},
    "exact": {"color": VERMILION, "dash": "10px,2px"},
}
"""Line of each closure, the same in every figure."""

INK = GREY
"""Colour of simulations, readable on light and dark backgrounds."""

VARIANTS = (
    {"color": VERMILION, "dash": "dash"},
    {"color": SKY, "dash": "longdashdot"},
    {"color": ORANGE, "dash": "dashdot"},
    {"color": GREEN, "dash": "dot"},
)
"""Lines of further theories of the same closure, such as one with a fixed rule or of lower order, in turn."""

SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, GREY, VIOLET)
LINES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")
"""SERIES, LINES and SYMBOLS are the colours, dashes and markers, in turn, of curves for which none are fixed."""

WINDOW_MARK: dict[str, dict[str, Any]] = {
    "bounded": {"symbol": "x", "color": VERMILION, "size": 8},
    "undecided": {"symbol": "circle-open", "color": ORANGE, "size": 9, "line": {"width": 2}},
    "beyond": {"symbol": "triangle-up", "color": BLUE, "size": 11},
    "too_noisy": {"symbol": "square-x-open", "color": GREY, "size": 9},
    "mixed": {"symbol": "diamond-open", "color": PURPLE, "size": 9, "line": {"width": 2}},
}
"""Plotly marker of each state of a window, or of several together."""

WINDOW_MEANING = {
    "bounded": "refuted: lower bound of e > τ",
    "undecided": "undecided up to T",
    "beyond": "beyond T (censored)",
    "too_noisy": "reference cannot resolve τ",
    "mixed": "no state has the majority",
}

LEGEND_RANK = {closure: rank for rank, closure in enumerate(CLOSURE_LINE, start=2)}

_ENTRY_PIXELS, _LETTER_PIXELS, _LINE_PIXELS, _LEGEND_PIXELS = 65, 6.6, 20, 740
"""Room in the legend: beside the text of an entry, for a letter, between lines, and for a line on the narrowest page
whose panels stand side by side."""

_TOOLBAR_PIXELS = 34
"""Height of Plotly's toolbar, which on a phone would cover the names of the legend."""

_NOTE_LETTERS, _NOTE_PIXELS, _NOTE_LEFT = 135, 15, 12

GRID = "rgba(128,128,128,0.25)"


def panel_title(quantity: str, panels: int) -> str:
    """The title of a panel: the symbol of the quantity, and its meaning in words where there is room."""
    symbol = QUANTITIES[quantity].symbol
    return f"{symbol}  {QUANTITIES[quantity].meaning}" if panels < 4 else symbol


def panel_grid(titles: Sequence[str], columns: int, **options: Any) -> tuple[go.Figure, list[dict[str, int]]]:
    """A figure of panels with these titles, row by row, and the row and column of each panel."""
    rows = -(-len(titles) // columns)
    options.setdefault("horizontal_spacing", 0.03)
    if rows > 1:
        options.setdefault("vertical_spacing", min(0.11, 0.2 / rows))
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=titles, **options)
    figure.update_annotations(font_size=14)
    return figure, [{"row": place // columns + 1, "col": place % columns + 1} for place in range(len(titles))]


def title_bottom(figure: go.Figure, title: str, cells: Sequence[Mapping[str, int]], columns: int) -> None:
    """Give the horizontal axis its title and numbers only below the lowest panels."""
    for cell in cells[:-columns]:
        figure.update_xaxes(showticklabels=False, **cell)
    for cell in cells[-columns:]:
        figure.update_xaxes(title=title, **cell)


def axis_texts(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Texts of the columns across and by, each once, in the order of across_rank and by_rank."""
    across, by = (frame.drop_duplicates(axis).sort_values(f"{axis}_rank")[axis].tolist() for axis in ("across", "by"))
    return across, by


def ensemble_text(window: Mapping[Any, Any]) -> str:
    """The simulation that a window was compared with, as a line of a tooltip; empty for a theory as reference."""
    return f"<br>n = {window['width']}, M = {number(window['samples'])} networks" if "width" in window else ""


def add_window_legend(figure: go.Figure, statuses: pd.Series) -> None:
    """Add legend entries for the markers of the states that occur."""
    for status, mark in WINDOW_MARK.items():
        if (statuses == status).any():
            figure.add_scatter(x=[None], y=[None], mode="markers", marker=mark, name=WINDOW_MEANING[status])


def theory_lines(frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Line of each theory of a frame (columns theory, closure, and nodes and closure_order where there are any).

    The best theory of a closure, converged and of the highest order, has the line of the closure; its other theories
    have one of VARIANTS each.
    """
    columns = [name for name in ("theory", "closure", "closure_order", "nodes") if name in frame]
    theories = frame[frame["theory"] != ""].drop_duplicates("theory")[columns]
    rows = theories.assign(
        place=theories["closure"].map(list(CLOSURE_LINE).index),
        fixed=theories["nodes"].notna() if "nodes" in theories else False,
        order=-theories["closure_order"].fillna(0).astype(float) if "closure_order" in theories else 0.0,
    ).sort_values(["place", "fixed", "order"], kind="stable")
    variants, lines, seen = cycle(VARIANTS), {}, set()
    for theory, closure in zip(rows["theory"], rows["closure"], strict=True):
        lines[theory] = next(variants) if closure in seen else CLOSURE_LINE[closure]
        seen.add(closure)
    return lines


def add_level_labels(
    figure: go.Figure, levels: Sequence[tuple[float, str]], x: float, least: float, **cell: int
) -> None:
    """Names at heights of the axis (its logarithms if it has them), at the right of ``x`` and ``least`` apart."""
    place = -math.inf
    for height, text in sorted(levels):
        place = max(height, place + least)
        figure.add_annotation(
            text=text, x=x, y=place, xanchor="left", xshift=5, showarrow=False, font={"size": 11, "color": GREY}, **cell
        )


def drawing_order(frame: pd.DataFrame) -> list[tuple[int, str, pd.DataFrame]]:
    """(rank in the legend, series, rows) in the order of drawing.

    Solid lines are drawn first, so that they show through dashed ones where theories coincide, as for K0.
    """
    parts = [(str(name), part, part["closure"].iloc[0]) for name, part in frame.groupby("series", sort=False)]
    ordered = sorted(parts, key=lambda item: (CLOSURE_LINE[item[2]]["dash"] != "solid", -LEGEND_RANK[item[2]]))
    return [(LEGEND_RANK[closure], name, part) for name, part, closure in ordered]


def add_band(
    figure: go.Figure,
    x: pd.Series | np.ndarray,
    lower: pd.Series | np.ndarray,
    upper: pd.Series | np.ndarray,
    colour: str,
    group: str,
    cell: Mapping[str, int],
) -> None:
    """A band between two curves, one piece per run of finite values, so that gaps stay gaps."""
    x, lower, upper = (np.asarray(values, dtype=float) for values in (x, lower, upper))
    finite = ~(np.isnan(lower) | np.isnan(upper))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(int)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        piece = slice(start, stop)
        figure.add_scatter(
            x=np.concatenate([x[piece], x[piece][::-1]]),
            y=np.concatenate([upper[piece], lower[piece][::-1]]),
            fill="toself",
            fillcolor=_faint(colour),
            line={"width": 0},
            mode="lines",
            legendgroup=group,
            showlegend=False,
            hoverinfo="skip",
            **cell,
        )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.22)"


def noted(figure: go.Figure, lines: Sequence[str], *, narrow: bool = False) -> go.Figure:
    """The figure with small lines of text below it, so that a saved picture says what it shows; a long one is wrapped.

    The texts are shown as they are, not as HTML. The figure must have its height and margins.
    """
    letters = _NOTE_LETTERS // 3 if narrow else _NOTE_LETTERS
    wrapped = [part for line in lines for part in textwrap.wrap(line, letters)]
    margin, height = figure.layout.margin, figure.layout.height
    figure.add_annotation(
        text="<br>".join(map(escape, wrapped)),
        font={"size": 11, "color": GREY},
        align="left",
        showarrow=False,
        x=0,
        xref="paper",
        xanchor="left",
        xshift=_NOTE_LEFT - margin.l,
        y=0,
        yref="paper",
        yanchor="top",
        yshift=-margin.b,
    )
    more = _NOTE_PIXELS * len(wrapped) + 8
    figure.update_layout(height=height + more, margin={"b": margin.b + more})
    if figure.layout.legend.yref == "container":  # it stays as far below the upper edge as it was
        figure.update_layout(legend={"y": 1 - (1 - figure.layout.legend.y) * height / (height + more)})
    return figure


def place_legend(figure: go.Figure, height: int, *, narrow: bool = False) -> None:
    """Place the legend above the panels, with room for the lines that its entries take on a usual or a narrow page.

    On a narrow page it begins below the toolbar.
    """
    entries = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    wide = _LETTER_PIXELS * max((len(unescape(name)) for name in entries), default=0)
    columns = 1 if narrow else max(1, int(_LEGEND_PIXELS // (_ENTRY_PIXELS + wide)))
    lines = max(-(-len(entries) // columns), 1)
    toolbar = _TOOLBAR_PIXELS if narrow else 0
    more = _LINE_PIXELS * (lines - 1) + toolbar + (20 if narrow else 0)
    figure.update_layout(
        height=height + more,
        margin={"l": 60 if narrow else 80, "r": 40 if narrow else 60, "t": 72 + more, "b": 50},
        legend={
            "orientation": "v" if narrow else "h",
            "itemwidth": 40,
            # columns of one width, so that the number of lines is the same in every browser
            "entrywidth": 0 if narrow else wide,
            "entrywidthmode": "pixels",
            "tracegroupgap": 0,
            "y": 1 - toolbar / (height + more),
            "yanchor": "top",
            "yref": "container",
            "x": 0,
        },
        hoverlabel={"align": "left"},
    )
