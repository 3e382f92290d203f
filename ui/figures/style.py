"""What all figures share: colours, lines, bands, legend.

Colours are the Okabe-Ito set, told apart with every common colour blindness and readable on light and dark ground;
dashes, hatching and bar height say the same again. Bands are ±2 standard errors, as in the definition of the windows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

BLUE, ORANGE, VERMILION, GREEN, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#808080",
)

CLOSURE_LINE = {
    "mean": {"color": SKY, "dash": "dot"},
    "source_only": {"color": ORANGE, "dash": "dash"},
    "g_only": {"color": BLUE, "dash": "solid"},
    "sigma": {"color": GREEN, "dash": "longdash"},
    "wick": {"color": PURPLE, "dash": "dashdot"},
    "particle": {"color": VERMILION, "dash": "longdashdot"},
}
"""Line of each closure, the same in every figure."""

LEGEND_RANK = {closure: rank for rank, closure in enumerate(CLOSURE_LINE, start=2)}

GRID = "rgba(128,128,128,0.25)"


def by_theory(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(theory, closure, rows), solid lines first: where theories coincide, as in K0, they show through the dashes."""
    parts = [(str(theory), str(part["closure"].iloc[0]), part) for theory, part in frame.groupby("theory", sort=False)]
    return sorted(parts, key=lambda item: (CLOSURE_LINE[item[1]]["dash"] != "solid", -LEGEND_RANK[item[1]]))


def add_band(
    figure: go.Figure, x: pd.Series, lower: pd.Series, upper: pd.Series, colour: str, group: str, cell: dict[str, int]
) -> None:
    """A band between two curves, one piece per run of finite values, so that gaps stay gaps."""
    finite = (lower.notna() & upper.notna()).to_numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(int)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        piece = slice(start, stop)
        figure.add_scatter(
            x=np.concatenate([x.to_numpy()[piece], x.to_numpy()[piece][::-1]]),
            y=np.concatenate([upper.to_numpy()[piece], lower.to_numpy()[piece][::-1]]),
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


def place_legend(figure: go.Figure, height: int) -> None:
    figure.update_layout(
        height=height,
        margin={"l": 80, "r": 60, "t": 72, "b": 50},
        legend={"orientation": "h", "y": 1, "yanchor": "top", "yref": "container", "x": 0},
        hoverlabel={"align": "left"},
    )
