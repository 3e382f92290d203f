"""Several configurations and theories over depth, and a picture of which entries are shown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ui.figures.style import BLUE, CLOSURE_LINE, GREY, GRID, SERIES, add_band, panel_title, place_legend
from ui.notation import QUANTITIES, SYMBOL, TIME, number

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star")
_FLOOR = 1e-6


def series_figure(series: pd.DataFrame, *, log: bool = False) -> go.Figure:
    """Simulated entries with ±2 s.e. bands and theories over them, a panel per quantity.

    ``series`` has columns quantity, component, configuration, theory, closure, series, simulation_run_id, time,
    simulated, simulated_se, predicted, samples, width. With several configurations colour tells them apart and dashes
    the theories; with one, each theory has its own line. ``log`` shows absolute values on a logarithmic axis.
    """
    quantities = [q for q in QUANTITIES if q in set(series["quantity"])]
    columns = min(2, len(quantities))
    rows = -(-len(quantities) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes=True,
        horizontal_spacing=0.09,
        vertical_spacing=0.12,
        subplot_titles=[panel_title(q, columns) for q in quantities],
    )
    colours = _colours(series)
    shown: set[str] = set()
    for place, quantity in enumerate(quantities):
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        panel = series[series["quantity"] == quantity]
        for (component, part), symbol in zip(panel.groupby("component", sort=True), cycle(_SYMBOLS), strict=False):
            for configuration, runs in part.groupby("configuration", sort=False):
                _add_simulation(figure, runs, str(component), str(configuration), colours, symbol, log, cell, shown)
            for name, line in part.dropna(subset=["predicted"]).groupby("series", sort=False):
                _add_theory(figure, line.sort_values("time"), str(component), str(name), colours, log, cell, shown)
        title = f"|{SYMBOL[quantity]}|" if log else SYMBOL[quantity]
        figure.update_yaxes(title=title, **_scale(log), **cell)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, float(series["time"].max())])
    for column in range(1, columns + 1):
        figure.update_xaxes(title=TIME, row=rows, col=column)
    place_legend(figure, 310 * rows + 80)
    return figure


def series_errors_figure(errors: pd.DataFrame, tolerances: Sequence[float], *, log: bool, reference: str) -> go.Figure:
    """Relative error of every series against t with its ±2 s.e. band, a panel per quantity.

    ``errors`` has columns quantity, configuration, theory, closure, series, time, error, error_se, samples;
    ``reference`` is an HTML subscript that names what the error is against.
    """
    quantities = [q for q in QUANTITIES if q in set(errors["quantity"])]
    figure = make_subplots(
        cols=len(quantities),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[panel_title(q, len(quantities)) for q in quantities],
    )
    colours = _colours(errors)
    shown: set[str] = set()
    positive = errors.loc[errors["error"] > 0, "error"]
    floor = max(float(positive.min()) / 10 if len(positive) else _FLOOR, 1e-8)
    longest = float(errors["time"].max())
    for place, quantity in enumerate(quantities, start=1):
        cell = {"row": 1, "col": place}
        panel = errors[(errors["quantity"] == quantity) & errors["error"].notna()]
        for name, part in panel.groupby("series", sort=False):
            line = part.sort_values("time")
            style = _line(line, colours)
            spread = 2 * line["error_se"].fillna(0.0)
            if (spread > 0).any():
                lower = (line["error"] - spread).clip(lower=floor if log else 0.0)
                add_band(figure, line["time"], lower, line["error"] + spread, style["color"], str(name), cell)
            figure.add_scatter(
                x=line["time"],
                y=line["error"],
                mode="lines",
                line={**style, "width": 2},
                name=escape(str(name)),
                legendgroup=str(name),
                showlegend=name not in shown,
                customdata=line[["error_se"]],
                hovertemplate=f"{quantity}, {escape(str(name))}<br>t = %{{x:.4g}}: e = %{{y:.3g}}"
                " ± %{customdata[0]:.2g} (s.e.)<extra></extra>",
                **cell,
            )
            shown.add(str(name))
        for tolerance in tolerances:
            figure.add_scatter(
                x=[0, longest],
                y=[tolerance] * 2,
                mode="lines",
                line={"color": GREY, "width": 1, "dash": "dot"},
                name=f"τ = {number(tolerance)}",
                showlegend=False,
                hovertemplate=f"τ = {number(tolerance)}<extra></extra>",
                **cell,
            )
    figure.update_xaxes(title=TIME, gridcolor=GRID, zeroline=False, range=[0, longest])
    figure.update_yaxes(**_scale(log))
    figure.update_yaxes(title=f"relative error  e = ‖X − X<sub>{reference}</sub>‖ / ‖X<sub>{reference}</sub>‖", col=1)
    place_legend(figure, 400)
    return figure


def entries_figure(n_inputs: int, stored: Sequence[str], chosen: Sequence[str]) -> go.Figure:
    """Which entries of a symmetric matrix are shown: rows and columns are inputs (or pairs of inputs for V4).

    ``stored`` and ``chosen`` are names of components, "01" or "00,01"; entries that no row is stored for stay grey.
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


def _colours(frame: pd.DataFrame) -> dict[str, str]:
    """Colour of each configuration; empty where there is one alone."""
    names = frame["configuration"].drop_duplicates().tolist()
    return {} if len(names) < 2 else dict(zip(names, cycle(SERIES), strict=False))


def _line(part: pd.DataFrame, colours: dict[str, str]) -> dict[str, Any]:
    own = CLOSURE_LINE[part["closure"].iloc[0]]
    configuration = part["configuration"].iloc[0]
    return {**own, "color": colours[configuration]} if colours else own


def _scale(log: bool) -> dict[str, Any]:
    if log:
        return {"type": "log", "gridcolor": GRID, "exponentformat": "power", "dtick": 1}
    return {"gridcolor": GRID, "zeroline": True, "zerolinecolor": GRID}


def _add_simulation(
    figure: go.Figure,
    runs: pd.DataFrame,
    component: str,
    configuration: str,
    colours: dict[str, str],
    symbol: str,
    log: bool,
    cell: dict[str, int],
    shown: set[str],
) -> None:
    part = runs.dropna(subset=["simulated"]).drop_duplicates("time").sort_values("time")
    if part.empty:
        return
    colour = colours.get(configuration, GREY)
    value, spread = part["simulated"], 2 * part["simulated_se"].fillna(0.0)
    if log:
        value = value.abs()
        spread = spread.clip(upper=0.99 * value)
    group = f"simulation {configuration}"
    add_band(figure, part["time"], value - spread, value + spread, colour, group, cell)
    samples, width = int(part["samples"].iloc[0]), int(part["width"].iloc[0])
    label = f"{escape(configuration)}: simulation" if configuration else "simulation"
    figure.add_scatter(
        x=part["time"],
        y=value,
        mode="markers",
        marker={"color": colour, "size": 5, "symbol": symbol},
        name=f"{label} ± 2 s.e., M = {samples}",
        legendgroup=group,
        showlegend=group not in shown,
        customdata=part[["simulated_se"]],
        hovertemplate=f"{_entry(part, component)}, {label}<br>t = %{{x:.4g}}: %{{y:.5g}} ± %{{customdata[0]:.2g}}"
        f" (s.e.)<br>n = {width}, M = {samples} networks<extra></extra>",
        **cell,
    )
    shown.add(group)


def _entry(part: pd.DataFrame, component: str) -> str:
    return f"{part['quantity'].iloc[0]}[{component}]"


def _add_theory(
    figure: go.Figure,
    line: pd.DataFrame,
    component: str,
    name: str,
    colours: dict[str, str],
    log: bool,
    cell: dict[str, int],
    shown: set[str],
) -> None:
    figure.add_scatter(
        x=line["time"],
        y=line["predicted"].abs() if log else line["predicted"],
        mode="lines",
        line={**_line(line, colours), "width": 2},
        name=escape(name),
        legendgroup=name,
        showlegend=name not in shown,
        hovertemplate=f"{_entry(line, component)}, {escape(name)}<br>t = %{{x:.4g}}: %{{y:.6g}}<extra></extra>",
        **cell,
    )
    shown.add(name)
