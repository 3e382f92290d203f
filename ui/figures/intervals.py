"""Validity windows one by one: a dot at the end of the certified depths, a line up to the first refuted depth."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from eftcore.quantities import QUANTITIES
from eftcore.words import resolved_from, window_text
from ui.figures.style import (
    GRID,
    LINES,
    ORANGE,
    SERIES,
    WINDOW_MARK,
    add_window_legend,
    axis_texts,
    ensemble_text,
    panel_grid,
    panel_title,
    place_legend,
    title_bottom,
)
from ui.notation import TIME

_SPREAD = 0.7
"""Fraction of a category's width on the axis that its windows take."""


def intervals_figure(windows: pd.DataFrame, across: str, by: str, *, narrow: bool = False) -> go.Figure:
    """t* of every window against the parameter ``across``, distinguished by ``by``; a panel per quantity.

    ``windows`` has columns quantity, across, by (texts), their ranks, theory, status, resolved_from, certified_until,
    refuted_from, total_time, width, samples. A dot marks the certified end, a line the undecided stretch, a cross
    the first refuted depth, a triangle a window that goes beyond T, a crossed square a window that the simulation
    cannot resolve. The custom data of a point are the number of its row in ``windows``.
    """
    quantities = [q for q in QUANTITIES if q in set(windows["quantity"])]
    columns, groups = axis_texts(windows)
    beside = 1 if narrow else len(quantities)
    titles = [panel_title(name, beside) for name in quantities]
    figure, places = panel_grid(titles, beside, shared_yaxes=True, horizontal_spacing=0.02)
    placed = windows.assign(x=_places(windows, columns, groups), place=range(len(windows)))
    for quantity, cell in zip(quantities, places, strict=True):
        for rank, group in enumerate(groups):
            part = placed[(placed["quantity"] == quantity) & (placed["by"] == group)]
            colour = SERIES[rank % len(SERIES)]
            width = 3 if len(placed) <= 120 else 1
            _add_lines(figure, part, colour, width, LINES[rank // len(SERIES) % len(LINES)], group, cell)
            for status, mark in WINDOW_MARK.items():
                _add_dots(figure, part[part["status"] == status], status, mark, colour, (across, by), cell)
    for rank, group in enumerate(groups):
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="lines",
            line={"color": SERIES[rank % len(SERIES)], "width": 4, "dash": LINES[rank // len(SERIES) % len(LINES)]},
            name=f"{escape(by)} {escape(group)}" if rank == 0 else escape(group),
            legendgroup=group,
        )
    add_window_legend(figure, windows["status"])
    title_bottom(figure, escape(across), places, beside)
    figure.update_xaxes(
        tickvals=list(range(len(columns))),
        ticktext=[escape(text) for text in columns],
        range=[-0.6, len(columns) - 0.4],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        gridcolor=GRID, zeroline=False, range=[-0.04, 1.08] * np.array(float(windows["total_time"].max()))
    )
    figure.update_yaxes(title="t*" if narrow else f"t*,  {TIME}", col=1)
    figure.update_layout(clickmode="event+select", dragmode=False)
    place_legend(figure, 260 * places[-1]["row"] + 90 if narrow else 440, narrow=narrow)
    return figure


def _places(windows: pd.DataFrame, columns: list[str], groups: list[str]) -> np.ndarray:
    """Horizontal positions: groups side by side within a category, and windows side by side within a group."""
    rank = windows.groupby(["quantity", "across", "by"], sort=False).cumcount().to_numpy()
    most = int(rank.max()) + 1
    slot = np.array([groups.index(text) for text in windows["by"]]) + (rank + 0.5) / most
    return np.array([columns.index(text) for text in windows["across"]]) + _SPREAD * (slot / len(groups) - 0.5)


def _add_lines(
    figure: go.Figure, part: pd.DataFrame, colour: str, width: int, dash: str, group: str, cell: dict[str, int]
) -> None:
    """Add a thick line for the certified depths, from where the tolerance is resolved, and a thin orange one up to the
    first refuted depth or T.
    """
    x, y, thin_x, thin_y = [], [], [], []
    for window in part[part["status"] != "too_noisy"].to_dict("records"):
        start = resolved_from(window)
        certified = start if np.isnan(window["certified_until"]) else window["certified_until"]
        x += [window["x"], window["x"], None]
        y += [start, certified, None]
        end = {"bounded": window["refuted_from"], "undecided": window["total_time"]}.get(window["status"])
        if end is not None:
            thin_x += [window["x"], window["x"], None]
            thin_y += [certified, end, None]
    shared: dict[str, Any] = {"mode": "lines", "showlegend": False, "hoverinfo": "skip", "legendgroup": group}
    figure.add_scatter(x=x, y=y, line={"color": colour, "width": width, "dash": dash}, **shared, **cell)
    figure.add_scatter(
        x=thin_x, y=thin_y, line={"color": ORANGE, "width": min(width, 1.5), "dash": "dot"}, **shared, **cell
    )


def _add_dots(
    figure: go.Figure,
    part: pd.DataFrame,
    status: str,
    mark: dict[str, Any],
    colour: str,
    axes: tuple[str, str],
    cell: dict[str, int],
) -> None:
    if part.empty:
        return
    shared: dict[str, Any] = {
        "customdata": [[place] for place in part["place"]],
        "hovertext": [_hover(window, *axes) for window in part.to_dict("records")],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showlegend": False,
        "cliponaxis": False,
        **cell,
    }
    certified = part["certified_until"].fillna(0.0)
    ends = {"beyond": part["total_time"]}
    dot = {"symbol": "circle", "size": 7, "color": colour} if status in ("bounded", "undecided") else mark
    figure.add_scatter(x=part["x"], y=ends.get(status, certified), mode="markers", marker=dot, **shared)
    if status == "bounded":
        figure.add_scatter(x=part["x"], y=part["refuted_from"], mode="markers", marker=mark, **shared)
    if status == "undecided":
        figure.add_scatter(x=part["x"], y=part["total_time"], mode="markers", marker=mark, **shared)


def _hover(window: dict[Any, Any], across: str, by: str) -> str:
    return (
        f"{window['theory']}, {window['quantity']}: t* {window_text(window)}<br>{escape(across)} ="
        f" {escape(window['across'])}, {escape(by)} = {escape(window['by'])}{ensemble_text(window)}<br>click: choose it"
    )
