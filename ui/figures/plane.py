"""The plane of depth and width: where each theory can be trusted, and one network in it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ui.figures.style import CLOSURE_LINE, GRID, INK, add_band, panel_grid, place_legend
from ui.notation import number

_TICKS = 6
_FROM, _TO = 2.0, 4.0
"""Widths shown at least: from the first on, and up to so many times that of the network."""


def plane_figure(
    frame: pd.DataFrame,
    best: str | None,
    certain: int,
    width: int,
    depth: int,
    epsilon: float,
    *,
    narrow: bool = False,
) -> go.Figure:
    """Above its line a theory holds down to that layer: n* over the layer, of each theory.

    ``frame`` has the columns theory, name, layer, time, low, high (bounds of n*). The region of ``best``, a theory of
    the frame, is filled, and it surely holds down to the layer ``certain`` at the width of the network, which is the
    point (depth, width).
    """
    figure, (cell,) = panel_grid([""], 1)
    # theories that are nearly off at every width would otherwise press the others together
    shown = frame[np.isfinite(frame["high"].astype(float)) & ((frame["theory"] == best) | (best is None))]
    top = _TO * max([width, *shown["high"]])
    for name, part in frame.groupby("theory", sort=False):
        rows = part[part["layer"] > 0]
        line, label = CLOSURE_LINE[str(name)], str(rows["name"].iloc[0])
        low, high = (rows[end].where(np.isfinite(rows[end].astype(float))) for end in ("low", "high"))
        if name == best:
            add_band(figure, rows["layer"], high, high * 0 + top, line["color"], label, cell)
        else:
            add_band(figure, rows["layer"], low, high, line["color"], label, cell)
        figure.add_scatter(
            x=rows["layer"],
            y=high.clip(lower=1),
            mode="lines",
            line={**line, "width": 2},
            name=label,
            legendgroup=label,
            customdata=np.stack([rows["time"], low], axis=1),
            hovertemplate=f"{label}: layer %{{x}} (t = %{{customdata[0]:.3g}}) from width %{{y:.0f}} on"
            ", surely not below %{customdata[1]:.0f}<extra></extra>",
            **cell,
        )
    _add_network(figure, best, certain, width, depth, cell)
    layers = np.unique(np.linspace(0, depth, (3 if narrow else _TICKS)).round().astype(int))
    figure.update_xaxes(
        title="layer, and depth t = ε² ℓ",
        tickvals=layers,
        ticktext=[f"{layer}<br>t = {number(epsilon**2 * layer, 3)}" for layer in layers],
        range=[0, depth * 1.03],
        gridcolor=GRID,
        zeroline=False,
    )
    figure.update_yaxes(
        title="width n",
        type="log",
        range=[np.log10(_FROM), np.log10(top)],
        tickvals=[first * 10**power for power in range(8) for first in (1, 2, 5)],
        gridcolor=GRID,
    )
    place_legend(figure, 420 if narrow else 400, narrow=narrow)
    return figure


def _add_network(
    figure: go.Figure, best: str | None, certain: int, width: int, depth: int, cell: dict[str, int]
) -> None:
    """The network as a point, and a line at its width, thick down to the layer where the best theory surely holds."""
    ink = {"color": INK, "dash": "dot", "width": 1}
    sure = {"color": INK if best is None else CLOSURE_LINE[best]["color"], "width": 5}
    for to, line in ((depth, ink), (certain, sure)):
        figure.add_scatter(
            x=[0, to], y=[width, width], mode="lines", line=line, showlegend=False, hoverinfo="skip", **cell
        )
    figure.add_scatter(
        x=[depth],
        y=[width],
        mode="markers",
        marker={"symbol": "diamond", "size": 12, "color": INK, "line": {"width": 1, "color": "white"}},
        name="your network",
        hovertemplate=f"your network: {depth} layers, width {width}<extra></extra>",
        **cell,
    )
