"""Validity windows as a map over two parameters."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from eftcore.quantities import QUANTITIES
from ui.figures.style import (
    WINDOW_MARK,
    add_window_legend,
    axis_texts,
    panel_grid,
    panel_title,
    place_legend,
    title_bottom,
)
from ui.notation import number

_ROW_PIXELS = 44
_TARGET_PIXELS = 38
"""Size in pixels of the square in the middle of a cell that can be clicked."""

_MOST_NUMBERS = 24
"""Most cells side by side that have room for numbers; a quarter of it on a phone."""

_SIGNS = {"x": "×", "triangle-up": "▲", "circle-open": "○", "square-x-open": "⊠"}


def heat_map_figure(cells: pd.DataFrame, across: str, by: str, *, narrow: bool = False) -> go.Figure:
    """Depth up to which a closure is certified over two parameters, a panel per quantity.

    ``cells`` has columns quantity, across, by (texts), their ranks, status, certified_until, certified_most, windows,
    unresolved, total_time, text, link; ``across`` and ``by`` name the axes. Colour and number are the certified depth,
    and the sign before the number is the state; for several windows in a cell they are those of the window with the
    smallest certified depth. The custom data of a point are (across, by, link, windows), to identify a clicked point.
    """
    quantities = [q for q in QUANTITIES if q in set(cells["quantity"])]
    columns, rows = axis_texts(cells)
    beside = 1 if narrow else len(quantities)
    digits = 3 if len(columns) * beside <= _MOST_NUMBERS // 2 else 2
    crowded = len(columns) * beside > (_MOST_NUMBERS // 4 if narrow else _MOST_NUMBERS)
    titles = [panel_title(name, beside) for name in quantities]
    figure, places = panel_grid(titles, beside, shared_yaxes=True, horizontal_spacing=0.02)
    longest = float(cells["total_time"].max())
    for quantity, cell in zip(quantities, places, strict=True):
        part = cells[cells["quantity"] == quantity]
        figure.add_heatmap(
            x=part["across"],
            y=part["by"],
            z=part["certified_until"],
            coloraxis="coloraxis",
            xgap=2,
            ygap=2,
            hoverinfo="skip",
            **cell,
        )
        figure.add_scatter(
            x=part["across"],
            y=part["by"],
            mode="markers+text",
            text=[_written(row, digits, crowded) for row in part.to_dict("records")],
            textfont={"size": 12, "color": [_ink(value, longest) for value in part["certified_until"]]},
            marker={"symbol": "square", "size": _TARGET_PIXELS, "color": "rgba(0,0,0,0)"},
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
            customdata=part[["across", "by", "link", "windows"]],
            hovertext=[_hover(row, across, by) for row in part.to_dict("records")],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
            **cell,
        )
    add_window_legend(figure, cells["status"])
    figure.update_xaxes(type="category", categoryarray=columns, range=[-0.5, len(columns) - 0.5], showgrid=False)
    title_bottom(figure, escape(across), places, beside)
    figure.update_yaxes(type="category", categoryarray=rows, range=[len(rows) - 0.5, -0.5], showgrid=False)
    figure.update_yaxes(title=escape(by), col=1)
    figure.update_layout(
        coloraxis={
            "colorscale": "Cividis",
            "cmin": 0,
            "cmax": longest,
            "colorbar": {
                "title": {"text": "certified<br>until t"},
                "thickness": 12,
                "lenmode": "pixels",
                "len": 150,
                "y": 1,
                "yanchor": "top",
                "outlinewidth": 0,
            },
            "showscale": not narrow,
        },
        clickmode="event+select",
        dragmode=False,
    )
    panel = max(120, _ROW_PIXELS * len(rows)) + (80 if narrow else 0)
    place_legend(figure, 170 + panel * places[-1]["row"], narrow=narrow)
    return figure


def _written(cell: dict[Any, Any], digits: int, crowded: bool) -> str:
    """The text in a cell: sign of the state and certified depth, or the sign alone where the map is crowded."""
    sign = _SIGNS[WINDOW_MARK[cell["status"]]["symbol"]]
    return sign if crowded or np.isnan(cell["certified_until"]) else f"{sign} {number(cell['certified_until'], digits)}"


def _hover(cell: dict[Any, Any], across: str, by: str) -> str:
    where = f"{cell['quantity']}: {escape(across)} = {escape(cell['across'])}, {escape(by)} = {escape(cell['by'])}"
    if cell["windows"] == 1:
        return f"{where}<br>t* {escape(cell['text'])}<br>click: {'its run' if cell['link'] else 'only this'}"
    spread = f"certified until {number(cell['certified_until'])} to {number(cell['certified_most'])}"
    noisy = f", {cell['unresolved']} not resolved" if cell["unresolved"] else ""
    return f"{where}<br>{cell['windows']} windows, {spread}{noisy}<br>click: only these"


def _ink(value: float, longest: float) -> str:
    """A text colour that is readable on the cell.

    The colour scale Cividis is dark for small values; a cell without colour shows the background of the page.
    """
    if np.isnan(value):
        return "#808080"
    return "#FFFFFF" if value < 0.55 * longest else "#000000"
