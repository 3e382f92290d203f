"""From which width on theories hold, against depth."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from eftcore.quantities import QUANTITIES
from eftcore.words import width_text
from ui.figures.style import (
    CLOSURE_LINE,
    GRID,
    LINES,
    SERIES,
    add_band,
    panel_grid,
    panel_title,
    place_legend,
    title_bottom,
)
from ui.notation import TIME

_MARKS = {
    "at_most": ("simulated: holds here and wider", "triangle-down", "width_high"),
    "above": ("simulated: fails here", "triangle-up", "width_low"),
}
"""Legend text, symbol, and the column that is drawn, of simulations that bound n* from one side."""


def widths_figure(widths: pd.DataFrame, *, narrow: bool = False) -> go.Figure:
    """n* against t on a logarithmic axis, a line with its bounds as a band for every theory; a panel per quantity.

    ``widths`` is a frame of widths (ui.data.widths) of one tolerance. A line is interrupted where a theory holds at no
    width, or where it is not known. Simulations that bound n* from both sides are a bar, from one side a triangle.
    """
    quantities = [name for name in QUANTITIES if name in set(widths["quantity"])]
    beside = 1 if narrow else len(quantities)
    figure, cells = panel_grid([panel_title(name, beside) for name in quantities], beside, shared_yaxes="all")
    names = widths["series"].drop_duplicates().tolist()
    for rank, name in enumerate(names):
        other = {"color": SERIES[rank % len(SERIES)], "dash": LINES[rank // len(SERIES) % len(LINES)]}
        line: dict[str, Any] = {**CLOSURE_LINE.get(name, other), "width": 2}
        shown = {"name": escape(name), "legendgroup": name}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, **shown)
        for quantity, cell in zip(quantities, cells, strict=True):
            part = widths[(widths["series"] == name) & (widths["quantity"] == quantity)].sort_values("time")
            _add_theory(figure, part[part["reference_kind"] == "theory"], line, name, cell)
            _add_simulations(figure, part[part["reference_kind"] == "simulation"], line["color"], name, cell)
    for status in _MARKS:
        if (widths["status"] == status).any():
            text, symbol, _ = _MARKS[status]
            figure.add_scatter(
                x=[None], y=[None], mode="markers", marker={"symbol": symbol, "color": "grey"}, name=text
            )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, float(widths["time"].max()) * 1.02])
    figure.update_yaxes(type="log", gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title="n*, neurons per layer", col=1)
    title_bottom(figure, TIME, cells, beside)
    place_legend(figure, 250 * cells[-1]["row"] + 90 if narrow else 400, narrow=narrow)
    return figure


def _tips(part: pd.DataFrame, name: str) -> dict[str, Any]:
    texts = [f"{escape(name)}, t = {row['time']:.4g}: n* {width_text(row)}" for row in part.to_dict("records")]
    return {"hovertext": texts, "hovertemplate": "%{hovertext}<extra></extra>", "showlegend": False}


def _add_theory(figure: go.Figure, part: pd.DataFrame, line: dict[str, Any], name: str, cell: dict[str, int]) -> None:
    if part.empty:
        return
    low, width, high = (part[column].where(part["status"] == "from") for column in ("width_low", "width", "width_high"))
    add_band(figure, part["time"], low, high, line["color"], name, cell)
    figure.add_scatter(x=part["time"], y=width, mode="lines", line=line, legendgroup=name, **_tips(part, name), **cell)


def _add_simulations(figure: go.Figure, part: pd.DataFrame, colour: str, name: str, cell: dict[str, int]) -> None:
    for status, (_, symbol, column) in _MARKS.items():
        some = part[part["status"] == status]
        if some.empty:
            continue
        mark = {"symbol": symbol, "color": colour, "size": 7}
        figure.add_scatter(
            x=some["time"], y=some[column], mode="markers", marker=mark, legendgroup=name, **_tips(some, name), **cell
        )
    both = part[part["status"] == "between"]
    if both.empty:
        return
    middle = (both["width_low"] * both["width_high"]) ** 0.5
    bars = {"array": both["width_high"] - middle, "arrayminus": middle - both["width_low"], "color": colour}
    figure.add_scatter(
        x=both["time"],
        y=middle,
        mode="markers",
        marker={"symbol": "line-ew", "color": colour},
        error_y={"type": "data", "symmetric": False, "thickness": 1.2, **bars},
        legendgroup=name,
        **_tips(both, name),
        **cell,
    )
