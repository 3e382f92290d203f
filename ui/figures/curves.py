"""Trajectories and errors against depth, of one configuration or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from eftcore.quantities import QUANTITIES
from ui.figures.style import (
    GREY,
    GRID,
    INK,
    SERIES,
    add_band,
    drawing_order,
    panel_grid,
    panel_title,
    place_legend,
    theory_lines,
    title_bottom,
)
from ui.notation import TIME, number

_SYMBOLS = {"circle": "●", "diamond": "◆", "square": "■", "triangle-up": "▲", "triangle-down": "▼", "star": "★"}
"""Plotly's symbols for the simulated entries of a panel, in turn, each with its character in texts."""

_LABEL_HEIGHT = 0.07
"""Least distance between two labels, as a fraction of the panel's height."""

_FLOOR = 1e-8
"""Smallest lower end of a logarithmic axis of errors."""


class _Look:
    """Colours and dashes of the lines and points of a frame.

    Colours distinguish configurations if there are several, otherwise theories.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        names = frame["configuration"].drop_duplicates().tolist()
        self._colours: dict[str, str] = {} if len(names) < 2 else dict(zip(names, cycle(SERIES), strict=False))
        self._lines = theory_lines(frame)
        self._shown: set[str] = set()

    def configuration(self, name: str) -> str:
        """Colour of the simulation of a configuration."""
        return self._colours.get(name, INK)

    def theory(self, part: pd.DataFrame) -> dict[str, Any]:
        """Colour and dash of the line of one series."""
        line, configuration = self._lines[part["theory"].iloc[0]], part["configuration"].iloc[0]
        return {**line, "color": self._colours[configuration]} if self._colours else line

    def legend(self, group: str, rank: int) -> dict[str, Any]:
        """One legend entry for all traces of a group."""
        first = group not in self._shown
        self._shown.add(group)
        return {"legendgroup": group, "legendrank": rank, "showlegend": first}


def trajectories_figure(trajectories: pd.DataFrame, *, log: bool = False, narrow: bool = False) -> go.Figure:
    """Simulated entries against t with bands of ±2 s.e., and lines for every theory; a panel per quantity.

    ``trajectories`` has columns quantity, component, configuration (what differs, or empty), theory, closure, series
    (configuration and theory in words), time, simulated, simulated_se, predicted, samples, width. ``log`` shows
    absolute values on a logarithmic axis; ``narrow`` puts panels one below the other.
    """
    quantities = [name for name in QUANTITIES if name in set(trajectories["quantity"])]
    columns = 1 if narrow else min(2 if len(quantities) < 5 else 3, len(quantities))
    titles = [panel_title(name, columns) for name in quantities]
    figure, cells = panel_grid(titles, columns, horizontal_spacing=0.18 / columns)
    look = _Look(trajectories)
    for quantity, cell in zip(quantities, cells, strict=True):
        panel = trajectories[trajectories["quantity"] == quantity]
        entries = [(str(name), part) for name, part in panel.groupby("component", sort=True)]
        for (component, part), symbol in zip(entries, cycle(_SYMBOLS), strict=False):
            entry = f"{quantity}[{component}]"
            for configuration, runs in part.groupby("configuration", sort=False):
                _add_simulation(figure, runs, entry, str(configuration), symbol, look, log, cell)
            for rank, name, line in drawing_order(part.dropna(subset=["predicted"])):
                _add_theory(figure, line.sort_values("time"), entry, name, rank, look, log, cell)
        _label_ends(figure, entries, log, cell)
        figure.update_yaxes(title=f"|{QUANTITIES[quantity].symbol}|" if log else QUANTITIES[quantity].symbol, **cell)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, float(trajectories["time"].max())])
    figure.update_yaxes(**_scale(log))
    title_bottom(figure, TIME, cells, columns)
    place_legend(figure, (270 if narrow else 320) * cells[-1]["row"] + 70, narrow=narrow)
    return figure


def errors_figure(
    errors: pd.DataFrame,
    tolerances: Sequence[float],
    *,
    log: bool = True,
    reference: str = "sim",
    narrow: bool = False,
) -> go.Figure:
    """Relative error of every series against t, its bounds as a band; a panel per quantity, tolerances as level lines.

    ``errors`` has columns quantity, configuration, theory, closure, series, time, error (NaN where it is undefined),
    error_low, error_high, samples; ``reference`` is an HTML subscript for the reference of the error.
    """
    quantities = [name for name in QUANTITIES if name in set(errors["quantity"])]
    columns = 1 if narrow else len(quantities)
    titles = [panel_title(name, columns) for name in quantities]
    figure, cells = panel_grid(titles, columns, shared_yaxes="all")
    look = _Look(errors)
    floor = _lowest(errors, tolerances) if log else 0.0
    longest = float(errors["time"].max())
    for quantity, cell in zip(quantities, cells, strict=True):
        panel = errors[errors["quantity"] == quantity]
        for rank, name, part in drawing_order(panel):
            _add_error(figure, part.sort_values("time"), f"{quantity}, {escape(name)}", name, rank, look, floor, cell)
        if not panel["error"].notna().any():
            text = "undefined: below its own noise"
            figure.add_annotation(text=text, x=0.5, y=0.5, showarrow=False, xref="x domain", yref="y domain", **cell)
        _add_tolerances(figure, tolerances, longest, cell["col"] == columns, cell)
        if cell["col"] == 1:
            ratio = f"  e = ‖X − X<sub>{reference}</sub>‖ / ‖X<sub>{reference}</sub>‖"
            figure.update_yaxes(title=f"relative error{'' if narrow else ratio}", **cell)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, longest])
    title_bottom(figure, TIME, cells, columns)
    figure.update_yaxes(**_scale(log))
    if log:
        largest = float(np.nanmax([*tolerances, *errors["error"]]))
        figure.update_yaxes(range=np.log10([floor, 2 * largest]).tolist())
    place_legend(figure, 250 * cells[-1]["row"] + 90 if narrow else 400, narrow=narrow)
    return figure


def _lowest(errors: pd.DataFrame, tolerances: Sequence[float]) -> float:
    """Lower end of a logarithmic axis, well below the tolerances and the largest error of the best theory."""
    most = errors[errors["error"] > 0].groupby(["quantity", "series"])["error"].max()
    return max(float(min([*most, *tolerances])) / 10, _FLOOR)


def _scale(log: bool) -> dict[str, Any]:
    if log:
        return {"type": "log", "gridcolor": GRID, "exponentformat": "power", "dtick": 1}
    return {"gridcolor": GRID, "zeroline": True, "zerolinecolor": GRID}


def _add_simulation(
    figure: go.Figure,
    runs: pd.DataFrame,
    entry: str,
    configuration: str,
    symbol: str,
    look: _Look,
    log: bool,
    cell: Mapping[str, int],
) -> None:
    part = runs.dropna(subset=["simulated"]).drop_duplicates("time").sort_values("time")
    if part.empty:
        return
    colour = look.configuration(configuration)
    value, spread = part["simulated"], 2 * part["simulated_se"].fillna(0.0)
    if log:
        value = value.abs()
        spread = spread.clip(upper=0.99 * value)
    group = f"simulation {configuration}"
    add_band(figure, part["time"], value - spread, value + spread, colour, group, cell)
    label = f"{escape(configuration)}: simulation" if configuration else "simulation"
    many, told = "several widths", "simulations of several widths"
    if part["width"].notna().all():
        many = f"M = {int(part['samples'].iloc[0])} networks"
        told = f"n = {int(part['width'].iloc[0])}, {many}"
    figure.add_scatter(
        x=part["time"],
        y=value,
        mode="markers",
        marker={"color": colour, "size": 5, "symbol": symbol},
        name=f"{label} ± 2 s.e., {many}",
        customdata=part[["simulated_se"]],
        hovertemplate=f"{entry}, {label}<br>t = %{{x:.4g}}: %{{y:.5g}} ± %{{customdata[0]:.2g}} (s.e.)"
        f"<br>{told}<extra></extra>",
        **look.legend(group, 0),
        **cell,
    )


def _add_theory(
    figure: go.Figure,
    line: pd.DataFrame,
    entry: str,
    name: str,
    rank: int,
    look: _Look,
    log: bool,
    cell: Mapping[str, int],
) -> None:
    figure.add_scatter(
        x=line["time"],
        y=line["predicted"].abs() if log else line["predicted"],
        mode="lines",
        line={**look.theory(line), "width": 2},
        name=escape(name),
        hovertemplate=f"{entry}, {escape(name)}<br>t = %{{x:.4g}}: %{{y:.6g}}<extra></extra>",
        **look.legend(name, rank),
        **cell,
    )


def _label_ends(
    figure: go.Figure, entries: Sequence[tuple[str, pd.DataFrame]], log: bool, cell: Mapping[str, int]
) -> None:
    """Label each entry, with its symbol, at the right end of its first curve; labels that are close are moved apart."""
    values = np.concatenate([part[["simulated", "predicted"]].to_numpy(dtype=float).ravel() for _, part in entries])
    values = np.log10(np.abs(values[values != 0])) if log else values
    known = values[np.isfinite(values)]
    least = _LABEL_HEIGHT * ((float(np.ptp(known)) if known.size else 0.0) or 1.0)
    ends = []
    for (component, part), glyph in zip(entries, cycle(_SYMBOLS.values()), strict=False):
        first = part[part["configuration"] == part["configuration"].iloc[0]].sort_values("time")
        simulated = first["simulated"].dropna()
        drawn = first["predicted"].dropna() if simulated.empty else simulated
        last = float(drawn.iloc[-1]) if len(drawn) else np.nan
        height = np.log10(abs(last)) if log and last else last
        ends.append((height, component if simulated.empty else f"{glyph} {component}"))
    longest, place = float(max(part["time"].max() for _, part in entries)), -np.inf
    for value, text in sorted(end for end in ends if np.isfinite(end[0])):
        place = max(value, place + least)
        figure.add_annotation(
            text=text, x=longest, y=place, xanchor="left", xshift=5, showarrow=False, font={"size": 11}, **cell
        )


def _add_error(
    figure: go.Figure,
    line: pd.DataFrame,
    what: str,
    name: str,
    rank: int,
    look: _Look,
    floor: float,
    cell: Mapping[str, int],
) -> None:
    style = look.theory(line)
    noisy = bool((line["error_high"] > line["error"]).any())
    if noisy:
        upper = line["error_high"].where(np.isfinite(line["error_high"]) & line["error"].notna())
        lower = line["error_low"].clip(lower=floor).where(upper.notna())
        add_band(figure, line["time"], lower, upper, style["color"], name, cell)
    figure.add_scatter(
        x=line["time"],
        y=line["error"],
        mode="lines",
        line={**style, "width": 2},
        name=escape(name),
        customdata=line[["error_low", "error_high", "samples"]],
        hovertemplate=f"{what}<br>t = %{{x:.4g}}: e = %{{y:.3g}}"
        + (
            "<br>between %{customdata[0]:.2g} and %{customdata[1]:.2g} (95 %, all depths)"
            "<br>M = %{customdata[2]} networks"
            if noisy
            else ""
        )
        + "<extra></extra>",
        **look.legend(name, rank),
        **cell,
    )


def _add_tolerances(
    figure: go.Figure, tolerances: Sequence[float], longest: float, named: bool, cell: Mapping[str, int]
) -> None:
    for tolerance in tolerances:
        figure.add_scatter(
            x=[0, longest],
            y=[tolerance] * 2,
            mode="lines+text" if named else "lines",
            text=["", f" τ = {number(tolerance)}"],
            textposition="middle right",
            textfont={"size": 11, "color": GREY},
            line={"color": GREY, "width": 1, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
            cliponaxis=False,
            **cell,
        )
