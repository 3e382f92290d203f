"""The kernel of one network against depth: median and central intervals, as simulated and by the law from theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ui.figures.style import (
    CLOSURE_LINE,
    GRID,
    INK,
    add_band,
    panel_grid,
    place_legend,
    title_bottom,
)
from ui.notation import TIME

_LEVELS = {0.95: ("dot", 0.22), 0.68: ("dash", 0.4)}
"""Central intervals that are drawn, from the widest: the dash of the law's, and how dark the simulated band is."""

_LAW = CLOSURE_LINE["exact"]["color"]
_MEDIAN, _LAW_MEDIAN = "simulated: median", "law: median"


def _band(level: float) -> str:
    return f"{100 * level:.0f} % of networks"


def _law_band(level: float) -> str:
    return f"law: {100 * level:.0f} %"


def quantiles_figure(quantiles: pd.DataFrame, *, narrow: bool = False) -> go.Figure:
    """Simulated medians with their bounds, bands of 68 and 95 % of networks, and lines of the law; a panel per entry.

    ``quantiles`` has columns component, time, probability, value, low, high (NaN without a bound), law (NaN without
    one), samples, width. ``narrow`` puts panels one below the other.
    """
    components = quantiles["component"].drop_duplicates().tolist()
    columns = 1 if narrow else min(2, len(components))
    titles = [f"G<sub>{component}</sub>  kernel of one network" for component in components]
    figure, cells = panel_grid(titles, columns, horizontal_spacing=0.18 / columns)
    _add_legend(figure, law=bool(quantiles["law"].notna().any()))
    for component, cell in zip(components, cells, strict=True):
        panel = quantiles[quantiles["component"] == component]
        _add_simulated(figure, panel, str(component), cell)
        _add_law(figure, panel, str(component), cell)
        figure.update_yaxes(title=f"G<sub>{component}</sub>  (dimensionless)", **cell)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, float(quantiles["time"].max())])
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    title_bottom(figure, TIME, cells, columns)
    place_legend(figure, (270 if narrow else 320) * cells[-1]["row"] + 70, narrow=narrow)
    return figure


def _add_legend(figure: go.Figure, *, law: bool) -> None:
    """One entry for each kind of mark in all panels."""
    empty: dict[str, Any] = {"x": [None], "y": [None]}
    figure.add_scatter(**empty, mode="markers", marker=_point(), name=_MEDIAN, legendgroup=_MEDIAN)
    for level, (_, opacity) in reversed(_LEVELS.items()):
        square = {"symbol": "square", "size": 13, "color": INK, "opacity": opacity}
        figure.add_scatter(**empty, mode="markers", marker=square, name=_band(level), legendgroup=_band(level))
    if law:
        figure.add_scatter(**empty, mode="lines", line=_line("solid"), name=_LAW_MEDIAN, legendgroup=_LAW_MEDIAN)
        for level, (dash, _) in reversed(_LEVELS.items()):
            figure.add_scatter(
                **empty, mode="lines", line=_line(dash), name=_law_band(level), legendgroup=_law_band(level)
            )


def _point() -> dict[str, Any]:
    return {"color": INK, "size": 5}


def _line(dash: str) -> dict[str, Any]:
    return {"color": _LAW, "width": 2, "dash": dash}


def _ends(level: float) -> tuple[float, float]:
    """The probabilities at the ends of a central interval, to the digits in which they are stored."""
    return round((1 - level) / 2, 6), round((1 + level) / 2, 6)


def _over_time(panel: pd.DataFrame, probability: float) -> pd.DataFrame:
    return panel[panel["probability"] == probability].sort_values("time").set_index("time")


def _add_simulated(figure: go.Figure, panel: pd.DataFrame, component: str, cell: Mapping[str, int]) -> None:
    for level in _LEVELS:
        below, above = (_over_time(panel, end)["value"] for end in _ends(level))
        add_band(figure, below.index.to_numpy(), below, above, INK, _band(level), cell)
    median = _over_time(panel, 0.5)
    tips = pd.concat([_over_time(panel, end)["value"] for level in (0.68, 0.95) for end in _ends(level)], axis=1)
    samples, width = int(panel["samples"].iloc[0]), int(panel["width"].iloc[0])
    bounds = {"array": median["high"] - median["value"], "arrayminus": median["value"] - median["low"]}
    figure.add_scatter(
        x=median.index,
        y=median["value"],
        mode="markers",
        marker=_point(),
        error_y={"type": "data", **bounds, "thickness": 1, "width": 0},
        customdata=tips.to_numpy(),
        hovertemplate=f"G[{component}], simulated<br>t = %{{x:.4g}}: median %{{y:.5g}}"
        "<br>68 %: %{customdata[0]:.5g} … %{customdata[1]:.5g}<br>95 %: %{customdata[2]:.5g} … %{customdata[3]:.5g}"
        f"<br>n = {width}, M = {samples} networks<extra></extra>",
        legendgroup=_MEDIAN,
        showlegend=False,
        **cell,
    )


def _add_law(figure: go.Figure, panel: pd.DataFrame, component: str, cell: Mapping[str, int]) -> None:
    known = panel.dropna(subset=["law"])
    lines = [(_LAW_MEDIAN, 0.5, "solid")]
    lines += [(_law_band(level), end, dash) for level, (dash, _) in _LEVELS.items() for end in _ends(level)]
    for name, probability, dash in lines:
        line = _over_time(known, probability)
        if line.empty:
            continue
        figure.add_scatter(
            x=line.index,
            y=line["law"],
            mode="lines",
            line=_line(dash),
            hovertemplate=f"G[{component}], law from theory<br>t = %{{x:.4g}}: %{{y:.5g}} at p = {probability:g}"
            "<extra></extra>",
            legendgroup=name,
            showlegend=False,
            **cell,
        )
