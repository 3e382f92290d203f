"""The result of a query as a chart."""

from __future__ import annotations

from html import escape
from itertools import cycle

import pandas as pd
import plotly.graph_objects as go

from ui.figures.style import GRID, LINES, SERIES, place_legend


def query_figure(
    frame: pd.DataFrame, x: str, y: str, by: str | None, *, lines: bool, log: bool, narrow: bool = False
) -> go.Figure:
    """Column ``y`` against ``x``, a curve (or points) for each value of ``by``. Column names are shown unchanged."""
    figure = go.Figure()
    parts = [(None, frame)] if by is None else list(frame.groupby(by, sort=False, dropna=False))
    styles = zip(cycle(SERIES), (dash for dash in cycle(LINES) for _ in SERIES), strict=False)
    for (name, part), (colour, dash) in zip(parts, styles, strict=False):
        shown = part.sort_values(x) if lines else part
        figure.add_scatter(
            x=shown[x],
            y=shown[y],
            mode="lines" if lines else "markers",
            line={"color": colour, "dash": dash, "width": 2},
            marker={"color": colour, "size": 6},
            name=escape(str(name)),
            showlegend=by is not None,
        )
    figure.update_xaxes(title=escape(x), gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title=escape(y), gridcolor=GRID, zeroline=False, type="log" if log else "linear")
    place_legend(figure, 420, narrow=narrow)
    return figure
