"""Validity windows as a map over two parameters."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from eftcore.quantities import QUANTITIES
from ui.figures.style import (
    GREY,
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

_MOST_NUMBERS, _MOST_COUNTS = 24, 15
"""Most cells side by side that have room for numbers, and for a line of counts; a quarter of it on a phone."""

_SIGNS = {
    "bounded": "×",
    "beyond": "▲",
    "undecided": "○",
    "too_noisy": "⊠",
    "mixed": "◇",
}
"""The characters of WINDOW_MARK in texts."""

_MEANING = {"beyond": "hold to T", "bounded": "refuted", "undecided": "undecided", "too_noisy": "not resolved"}
"""What a tooltip says of windows that have a status."""

SHARE, LAYERS = "part of T", "layers"

MEASURES = {SHARE: "share", LAYERS: "layers"}
"""What cells can be coloured by, with the column of a frame of cells."""


def heat_map_figure(
    cells: pd.DataFrame, across: str, by: str, *, measure: str = SHARE, narrow: bool = False
) -> go.Figure:
    """How deep windows are certified over two parameters, a panel per quantity.

    ``cells`` are those of ui.data.cells; ``across`` and ``by`` name the axes. Colour and number are the median over the
    windows of a cell that are resolved, of the certified part of T or of the certified layers, as ``measure`` (one of
    MEASURES) says; a cell most of whose windows are not resolved has neither. The sign is what the windows say
    together, and below it stand how many have which status. The custom data of a point are the number of its row in
    ``cells``.
    """
    quantities = [q for q in QUANTITIES if q in set(cells["quantity"])]
    columns, rows = axis_texts(cells)
    beside = 1 if narrow else len(quantities)
    aside = len(columns) * beside * (4 if narrow else 1)
    titles = [panel_title(name, beside) for name in quantities]
    figure, places = panel_grid(titles, beside, shared_yaxes=True, horizontal_spacing=0.02)
    shown = cells.assign(
        value=cells[MEASURES[measure]].where(cells["status"] != "too_noisy"),
        place=range(len(cells)),
        counts=_counts(cells),
    )
    most = 1.0 if measure == SHARE else float(np.nanmax([1.0, *shown["value"]]))
    for quantity, cell in zip(quantities, places, strict=True):
        part = shown[shown["quantity"] == quantity]
        records = part.to_dict("records")
        figure.add_heatmap(
            x=part["across"],
            y=part["by"],
            z=part["value"],
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
            text=[_written(row, measure, aside) for row in records],
            textfont={"size": 12, "color": [_ink(value, most) for value in part["value"]]},
            marker={"symbol": "square", "size": _TARGET_PIXELS, "color": "rgba(0,0,0,0)"},
            selected={"marker": {"opacity": 1, "color": "rgba(230,159,0,0.55)"}},
            unselected={"marker": {"opacity": 1}, "textfont": {"color": GREY}},
            customdata=[[place] for place in part["place"]],
            hovertext=[_hover(row, across, by) for row in records],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
            **cell,
        )
    counted = [status for status in _MEANING if (cells[status] > 0).any()]
    add_window_legend(figure, pd.Series([*counted, *cells["status"]]))
    figure.update_xaxes(type="category", categoryarray=columns, range=[-0.5, len(columns) - 0.5], showgrid=False)
    title_bottom(figure, escape(across), places, beside)
    figure.update_yaxes(type="category", categoryarray=rows, range=[len(rows) - 0.5, -0.5], showgrid=False)
    figure.update_yaxes(title=escape(by), col=1)
    figure.update_layout(
        coloraxis={
            "colorscale": "Cividis",
            "cmin": 0,
            "cmax": most,
            "colorbar": {
                "title": {"text": f"certified<br>{measure}<br>(median)"},
                "tickformat": ".0%" if measure == SHARE else "",
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


def _counts(cells: pd.DataFrame) -> list[str]:
    """How many windows of each cell have which status; empty for a single one.

    >>> _counts(pd.DataFrame({"windows": [26], "beyond": [0], "bounded": [1], "undecided": [0], "too_noisy": [25]}))
    ['1× 25⊠']
    """
    return [
        ""
        if cell["windows"] == 1
        else " ".join(f"{cell[status]}{_SIGNS[status]}" for status in _MEANING if cell[status])
        for cell in cells.to_dict("records")
    ]


def _written(cell: dict[Any, Any], measure: str, aside: int) -> str:
    """The text in a cell: sign and median, and below them the counts; less where many cells stand side by side."""
    sign = _SIGNS[cell["status"]]
    if aside > _MOST_NUMBERS or np.isnan(cell["value"]):
        first = sign
    else:
        value = f"{100 * cell['value']:.0f} %" if measure == SHARE else f"{cell['value']:.0f}"
        first = f"{sign} {value}"
    return (
        f"{first}<br><span style='font-size:10px'>{cell['counts']}</span>"
        if (cell["counts"] and aside <= _MOST_COUNTS)
        else first
    )


def _hover(cell: dict[Any, Any], across: str, by: str) -> str:
    where = f"{cell['quantity']}: {escape(across)} = {escape(cell['across'])}, {escape(by)} = {escape(cell['by'])}"
    if cell["windows"] == 1:
        return f"{where}<br>t* {escape(cell['text'])}<br>click: choose it"
    told = ", ".join(f"{cell[status]} {meaning}" for status, meaning in _MEANING.items() if cell[status])
    spread = ""
    if not np.isnan(cell["share"]):
        least, middle, most = (f"{100 * cell[name]:.0f}" for name in ("share_least", "share", "share_most"))
        spread = f"<br>certified up to {least} to {most} % of T, median {middle} %"
    expected = number(0.05 * cell["windows"], 2)
    noise = f"<br>noise alone refutes up to {expected} of {cell['windows']}" if cell["bounded"] else ""
    return f"{where}<br>{cell['windows']} windows: {told}{spread}{noise}<br>click: choose them"


def _ink(value: float, most: float) -> str:
    """A text colour that is readable on the cell.

    The colour scale Cividis is dark for small values; a cell without colour shows the background of the page.
    """
    if np.isnan(value):
        return "#808080"
    return "#FFFFFF" if value < 0.55 * most else "#000000"
