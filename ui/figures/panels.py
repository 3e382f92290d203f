"""Descriptions of figures with panels over depth, drawn by Plotly for pages and by Matplotlib as SVG files."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from ui.figures.style import GRID, add_band, panel_grid, place_legend, title_bottom
from ui.notation import TIME

_DASHES: dict[str, Any] = {
    "solid": "solid",
    "dot": (0, (1, 1)),
    "dash": (0, (4, 2)),
    "longdash": (0, (6, 2)),
    "dashdot": (0, (5, 1, 1, 1)),
    "longdashdot": (0, (8, 1, 1, 1)),
    "10px,2px": (0, (10, 2)),
}
"""Matplotlib's line style for each of Plotly's dashes."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Values over time, (R,) each: a line, points with error bars, or a band.

    ``spread`` is half the height of a bar or of the band, or (2, R) how far a bar reaches down and up.
    """

    label: str
    line: Mapping[str, str]
    time: np.ndarray
    value: np.ndarray
    spread: np.ndarray | None = None
    kind: Literal["", "points", "band"] = ""


@dataclass(frozen=True, eq=False)
class Panel:
    """Curves with common axes; ``quantity`` labels the vertical axis and may contain <sub>, ``limits`` are its ends."""

    quantity: str
    curves: tuple[Curve, ...]
    title: str = ""
    limits: tuple[float, float] | None = None
    logarithmic: bool = False


@dataclass(frozen=True, eq=False)
class PanelFigure:
    """Rows of panels. ``name`` is a file name without suffix; with ``shared_values`` a row has one vertical axis."""

    name: str
    caption: str
    rows: tuple[tuple[Panel, ...], ...]
    shared_values: bool = False


def in_rows(panels: Sequence[Panel], columns: int) -> tuple[tuple[Panel, ...], ...]:
    """The panels row by row, ``columns`` in each but perhaps the last."""
    return tuple(tuple(panels[start : start + columns]) for start in range(0, len(panels), columns))


def panels_figure(described: PanelFigure, *, narrow: bool = False) -> go.Figure:
    """The Plotly figure for a page; ``narrow`` puts panels one below the other."""
    panels = [panel for row in described.rows for panel in row]
    columns = len(described.rows[0])
    figure, cells = panel_grid([panel.title for panel in panels], 1 if narrow else columns, horizontal_spacing=0.09)
    shown: set[str] = set()
    for place, (panel, cell) in enumerate(zip(panels, cells, strict=True)):
        for curve in panel.curves:
            _add_curve(figure, panel, curve, cell, shown)
        first = narrow or not described.shared_values or place % columns == 0
        scale = "log" if panel.logarithmic else "linear"
        figure.update_yaxes(title=panel.quantity if first else None, range=panel.limits, type=scale, **cell)
    title_bottom(figure, TIME, cells, 1 if narrow else columns)
    longest = max(float(curve.time[-1]) for panel in panels for curve in panel.curves if len(curve.time))
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, longest])
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    place_legend(figure, 260 * (len(cells) if narrow else len(described.rows)) + 100, narrow=narrow)
    return figure


def _add_curve(figure: go.Figure, panel: Panel, curve: Curve, cell: dict[str, int], shown: set[str]) -> None:
    spread = np.zeros_like(curve.value) if curve.spread is None else curve.spread
    if curve.kind == "band":
        low, high = curve.value - spread, curve.value + spread
        add_band(figure, curve.time, low, high, curve.line["color"], curve.label, cell)
        return
    points = curve.kind == "points"
    down, up = np.broadcast_to(spread, (2, len(curve.value)))
    figure.add_scatter(
        x=curve.time,
        y=curve.value,
        mode="markers" if points else "lines",
        marker={"color": curve.line["color"], "size": 5},
        line={**curve.line, "width": 2},
        error_y={"type": "data", "array": up, "arrayminus": down, "thickness": 1, "width": 0} if points else None,
        customdata=(down + up) / 4,
        name=curve.label,
        legendgroup=curve.label,
        showlegend=curve.label not in shown,
        hovertemplate=f"{panel.quantity}, {curve.label}<br>t = %{{x:.4g}}: %{{y:.6g}}"
        + (" ± %{customdata:.2g} (s.e.)" if points else "")
        + "<extra></extra>",
        **cell,
    )
    shown.add(curve.label)


def panels_svg(described: PanelFigure) -> str:
    """The figure as SVG text, which depends on the numbers alone."""
    import matplotlib
    from matplotlib.figure import Figure

    rows, columns = len(described.rows), len(described.rows[0])
    figure = Figure(figsize=(9.5, 0.7 + 2.7 * rows), layout="constrained")
    share: Literal["row", "none"] = "row" if described.shared_values else "none"
    axes = figure.subplots(rows, columns, sharex=True, sharey=share, squeeze=False)
    for row, panels in enumerate(described.rows):
        for column, panel in enumerate(panels):
            axis = axes[row, column]
            for curve in panel.curves:
                _plot_curve(axis, curve)
            if column == 0 or not described.shared_values:
                axis.set_ylabel(_mathtext(panel.quantity))
            axis.set_title(panel.title, fontsize=9)
            axis.set_yscale("log" if panel.logarithmic else "linear")
            if panel.limits is not None:
                axis.set_ylim(panel.limits)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.3, lw=0.5)
    for axis in axes[-1]:
        axis.set_xlabel(TIME)
    entries: dict[str, Any] = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": described.name, "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _plot_curve(axis: Any, curve: Curve) -> None:
    label, colour = _mathtext(curve.label), curve.line["color"]
    if curve.kind == "band":
        axis.fill_between(curve.time, curve.value - curve.spread, curve.value + curve.spread, color="0.8", lw=0)
    elif curve.kind == "points":
        style: dict[str, Any] = {"fmt": "o", "ms": 2.5, "lw": 0.8, "color": colour, "zorder": 3}
        axis.errorbar(curve.time, curve.value, curve.spread, label=label, **style)
    else:
        dash = _DASHES[curve.line.get("dash", "solid")]
        axis.plot(curve.time, curve.value, color=colour, ls=dash, lw=1.4, label=label)


def _mathtext(text: str) -> str:
    """The text with HTML subscripts replaced by Matplotlib's notation.

    >>> _mathtext("K<sub>0</sub>, entry 00")
    '$K_{0}$, entry 00'
    """
    return re.sub(r"(\w)<sub>(\w+)</sub>", r"$\1_{\2}$", text)
