"""A picture of which entries of a kernel or covariance are shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from ui.figures.style import BLUE


def entries_figure(n_inputs: int, stored: Sequence[str], chosen: Sequence[str]) -> go.Figure:
    """Which entries of a symmetric matrix are shown: rows and columns are inputs (or pairs of inputs for V4).

    ``stored`` and ``chosen`` are names of components, "01" or "00,01"; entries that are not stored as rows are grey.
    """
    pairs = any("," in name for name in stored)
    labels = _labels(n_inputs, pairs)
    grid = np.zeros((len(labels), len(labels)))
    texts = np.full(grid.shape, "", dtype=object)
    for name in stored:
        first, second = _place(name, labels, pairs)
        for place in ((first, second), (second, first)):
            grid[place] = 2.0 if name in chosen else 1.0
            texts[place] = name
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            x=labels,
            y=labels,
            text=texts,
            texttemplate="%{text}" if len(labels) <= 12 else "",
            colorscale=[[0, "rgba(128,128,128,0.08)"], [0.5, "rgba(128,128,128,0.28)"], [1, BLUE]],
            zmin=0,
            zmax=2,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{text}<extra></extra>",
        )
    )
    side = min(60 + 40 * len(labels), 460)
    figure.update_xaxes(type="category", side="top", showgrid=False, title="pair cd" if pairs else "input b")
    figure.update_yaxes(
        type="category", autorange="reversed", showgrid=False, title="pair ab" if pairs else "input a", scaleanchor="x"
    )
    figure.update_layout(height=side + 60, width=side + 60, margin={"l": 60, "r": 10, "t": 60, "b": 10})
    return figure


def _labels(n_inputs: int, pairs: bool) -> list[str]:
    if not pairs:
        return [str(a) for a in range(n_inputs)]
    return [f"{a}{b}" if b < 10 else f"{a}-{b}" for a in range(n_inputs) for b in range(a, n_inputs)]


def _place(name: str, labels: list[str], pairs: bool) -> tuple[int, int]:
    first, second = name.split(",") if pairs else (name.split("-") if "-" in name else (name[0], name[1]))
    return labels.index(first), labels.index(second)
