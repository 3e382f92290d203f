"""Validity windows as bars."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from eftcore.quantities import QUANTITIES
from eftcore.words import resolved_from, window_text
from ui.figures.style import (
    BLUE,
    GREY,
    GRID,
    ORANGE,
    VERMILION,
    ensemble_text,
    panel_grid,
    panel_title,
    place_legend,
    title_bottom,
)
from ui.notation import TIME, number

_SEGMENTS = {
    "unseen": ("before the reference resolves τ", GREY, ".", 0.2),
    "certified": ("certified: upper bound of e ≤ τ", BLUE, "", 0.62),
    "undecided": ("undecided", ORANGE, "/", 0.4),
    "refuted": ("past refutation", VERMILION, "", 0.1),
    "too_noisy": ("reference cannot resolve τ", GREY, ".", 0.4),
}
"""Legend text, colour, hatching and height of the bar in rows, for each state."""

_MARKS = {
    "refuted": ("first refuted: lower bound of e > τ", VERMILION, "x", 9),
    "beyond": ("holds beyond T (right-censored)", BLUE, "triangle-right", 11),
}
"""Legend text, colour, symbol and size in pixels of the marker, for each state."""

_ROW_PIXELS = 24


def windows_figure(windows: pd.DataFrame, *, narrow: bool = False) -> go.Figure:
    """Validity windows of one tolerance: a bar from t = 0 to T per configuration and theory, a column per quantity.

    ``windows`` has columns configuration and theory (texts), quantity, tolerance, resolved_from, certified_until,
    refuted_from, status, total_time, width, samples; one row per bar.
    """
    quantities = [q for q in QUANTITIES if q in set(windows["quantity"])]
    rows, headings = _bar_positions(windows)
    beside = 1 if narrow else len(quantities)
    figure, places = panel_grid([panel_title(name, beside) for name in quantities], beside, shared_yaxes=True)
    segments, marks = _window_segments(windows, rows), _window_marks(windows, rows)
    for quantity, cell in zip(quantities, places, strict=True):
        for kind in _SEGMENTS:
            part = segments[(segments["quantity"] == quantity) & (segments["kind"] == kind)]
            figure.add_bar(
                x=part["length"],
                base=part["start"],
                y=part["y"],
                showlegend=False,
                **_bar_style(kind),
                **_tips(part),
                **cell,
            )
        for kind in _MARKS:
            part = marks[(marks["quantity"] == quantity) & (marks["kind"] == kind)]
            figure.add_scatter(
                x=part["t"], y=part["y"], showlegend=False, cliponaxis=False, **_mark_style(kind), **_tips(part), **cell
            )
    # the legend has empty traces of its own, so that it names every state that occurs anywhere in the figure
    for kind in segments["kind"].drop_duplicates().sort_values(key=lambda kinds: kinds.map(list(_SEGMENTS).index)):
        figure.add_bar(x=[None], y=[None], name=_SEGMENTS[kind][0], **_bar_style(kind))
    for kind in marks["kind"].drop_duplicates().sort_values(ascending=False):
        figure.add_scatter(x=[None], y=[None], name=_MARKS[kind][0], **_mark_style(kind))
    _label_bars(figure, rows, headings, places[:: len(places) if beside > 1 else 1])
    figure.update_xaxes(range=[0, float(windows["total_time"].max()) * 1.03], gridcolor=GRID, zeroline=False)
    title_bottom(figure, TIME, places, beside)
    figure.update_layout(barmode="overlay", bargap=0)
    panel = 55 + _ROW_PIXELS * (len(rows) + len(headings))
    place_legend(figure, 70 + panel * places[-1]["row"], narrow=narrow)
    return figure


def _bar_style(kind: str) -> dict[str, Any]:
    _, colour, hatch, height = _SEGMENTS[kind]
    pattern = {"shape": hatch, "fillmode": "replace", "size": 6, "solidity": 0.35}
    return {"orientation": "h", "width": height, "marker": {"color": colour, "line": {"width": 0}, "pattern": pattern}}


def _mark_style(kind: str) -> dict[str, Any]:
    _, colour, symbol, size = _MARKS[kind]
    return {"mode": "markers", "marker": {"symbol": symbol, "color": colour, "size": size}}


def _tips(part: pd.DataFrame) -> dict[str, Any]:
    return {"customdata": part[["text"]], "hovertemplate": "%{customdata[0]}<extra></extra>"}


def _bar_positions(windows: pd.DataFrame) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Row numbers of (configuration, theory) and of the heading above each configuration, from the top down."""
    rows: dict[tuple[str, str], int] = {}
    headings: dict[str, int] = {}
    position = 0
    several = windows["configuration"].nunique() > 1
    for configuration, group in windows.groupby("configuration", sort=False):
        if several:
            headings[str(configuration)] = position
            position += 1
        for theory in group["theory"].drop_duplicates():
            rows[str(configuration), theory] = position
            position += 1
    return rows, headings


def _hover(window: dict[Any, Any]) -> str:
    tolerance, text = number(window["tolerance"]), window_text(window)
    return (
        f"{escape(window['configuration'])}<br>{window['theory']}, {window['quantity']}, τ = {tolerance}: t* {text}"
        + ensemble_text(window)
    )


def _window_segments(windows: pd.DataFrame, rows: dict[tuple[str, str], int]) -> pd.DataFrame:
    """Pieces of the bars: quantity, kind, y, start, length, text."""
    pieces = []
    for window in windows.to_dict("records"):
        total = window["total_time"]
        if window["status"] == "too_noisy":
            spans = [("too_noisy", 0.0, total)]
        else:
            refuted = window["refuted_from"] if window["status"] == "bounded" else total
            start = min(resolved_from(window), refuted)
            certified = start if math.isnan(window["certified_until"]) else window["certified_until"]
            spans = [
                ("unseen", 0.0, start),
                ("certified", start, certified),
                ("undecided", certified, refuted),
                ("refuted", refuted, total),
            ]
        pieces += [
            {
                "quantity": window["quantity"],
                "kind": kind,
                "y": rows[window["configuration"], window["theory"]],
                "start": start,
                "length": end - start,
                "text": _hover(window),
            }
            for kind, start, end in spans
            if end > start
        ]
    return pd.DataFrame(pieces, columns=["quantity", "kind", "y", "start", "length", "text"])


def _window_marks(windows: pd.DataFrame, rows: dict[tuple[str, str], int]) -> pd.DataFrame:
    """Ends of the bars that mean something: the first refuted depth, or that none was found."""
    points = [
        {
            "quantity": window["quantity"],
            "kind": "refuted" if window["status"] == "bounded" else "beyond",
            "t": window["refuted_from"] if window["status"] == "bounded" else window["total_time"],
            "y": rows[window["configuration"], window["theory"]],
            "text": _hover(window),
        }
        for window in windows.to_dict("records")
        if window["status"] in ("bounded", "beyond")
    ]
    return pd.DataFrame(points, columns=["quantity", "kind", "t", "y", "text"])


def _label_bars(
    figure: go.Figure, rows: dict[tuple[str, str], int], headings: dict[str, int], places: list[dict[str, int]]
) -> None:
    """Theories beside their bars, and configurations above theirs in the panels at these places."""
    count = len(rows) + len(headings)
    figure.update_yaxes(
        tickvals=list(rows.values()),
        ticktext=[theory for _, theory in rows],
        range=[count - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )
    for cell in places:
        for configuration, position in headings.items():
            figure.add_annotation(
                text=f"<b>{escape(configuration)}</b>",
                x=0,
                y=position,
                xanchor="left",
                showarrow=False,
                font={"size": 12},
                **cell,
            )
