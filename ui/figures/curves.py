"""Trajectories and errors against depth, of one configuration or of several."""

from __future__ import annotations

import math
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
    SYMBOLS,
    add_band,
    add_level_labels,
    drawing_order,
    panel_grid,
    panel_title,
    place_legend,
    theory_lines,
    title_bottom,
)
from ui.notation import TIME, number, with_error

_GLYPHS = {"circle": "●", "diamond": "◆", "square": "■", "triangle-up": "▲", "triangle-down": "▼", "star": "★"}
"""Plotly's symbols for the simulated entries of a panel, in turn, each with its character in texts."""

_MARKERS = 8
"""Most markers on a line that has them to be told apart without its colour."""

_LABEL_HEIGHT = 0.07
"""Least distance between two labels, as a fraction of the panel's height."""

_FLOOR = 1e-8
"""Smallest lower end of a logarithmic axis of errors."""


_DRAWN = [
    *("quantity", "component", "configuration", "theory", "closure", "closure_order", "nodes", "series", "time"),
    *("simulated", "simulated_se", "predicted", "samples", "width", "error", "error_low", "error_high"),
]
"""Columns that figures read: views have many more, which would be copied with every part."""


class _Look:
    """Colours, dashes and markers of the lines and points of a frame, so that each series differs in more than colour.

    Colours and markers distinguish configurations if there are several, and dashes their theories; of a single
    configuration, colours and dashes distinguish theories, and markers those that share a dash.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        names = frame["configuration"].drop_duplicates().tolist()
        self._several = len(names) > 1
        self._colours = dict(zip(names, cycle(SERIES), strict=False))
        self._symbols = dict(zip(names, cycle(SYMBOLS), strict=False))
        self._lines = theory_lines(frame)
        seen: list[str] = []
        self._shared: dict[str, str] = {}
        for theory, line in self._lines.items():
            if line["dash"] in seen:
                self._shared[theory] = SYMBOLS[len(self._shared) % len(SYMBOLS)]
            seen.append(line["dash"])
        self._shown: set[str] = set()

    def simulation(self, configuration: str, symbol: str) -> dict[str, Any]:
        """Marker of the simulated points of a configuration; ``symbol`` tells entries of a single one apart."""
        if self._several:
            return {"color": self._colours[configuration], "symbol": f"{self._symbols[configuration]}-open"}
        return {"color": INK, "symbol": symbol}

    def theory(self, part: pd.DataFrame) -> dict[str, Any]:
        """Mode, line and marker of one series."""
        theory, configuration = part["theory"].iloc[0], part["configuration"].iloc[0]
        line = {**self._lines[theory], "width": 2}
        symbol = self._shared.get(theory)
        if self._several:
            line["color"], symbol = self._colours[configuration], self._symbols[configuration]
        if symbol is None:
            return {"mode": "lines", "line": line}
        marker = {"symbol": symbol, "color": line["color"], "size": 7, "maxdisplayed": _MARKERS}
        return {"mode": "lines+markers", "line": line, "marker": marker}

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
    trajectories = trajectories[trajectories.columns.intersection(_DRAWN)]
    quantities = [name for name in QUANTITIES if name in set(trajectories["quantity"])]
    columns = 1 if narrow else min(2 if len(quantities) < 5 else 3, len(quantities))
    titles = [_titled(trajectories, name, columns, log) for name in quantities]
    figure, cells = panel_grid(titles, columns, horizontal_spacing=0.2 / columns)
    look = _Look(trajectories)
    for quantity, cell in zip(quantities, cells, strict=True):
        panel = trajectories[trajectories["quantity"] == quantity]
        entries = [(str(name), part) for name, part in panel.groupby("component", sort=True)]
        for (component, part), symbol in zip(entries, cycle(_GLYPHS), strict=False):
            entry = f"{quantity}[{component}]"
            for configuration, runs in part.groupby("configuration", sort=False):
                _add_simulation(figure, runs, entry, str(configuration), symbol, look, log, cell)
            for rank, name, line in drawing_order(part.dropna(subset=["predicted"])):
                _add_theory(figure, line.sort_values("time"), entry, name, rank, look, log, cell)
        if len(entries) > 1:
            _label_ends(figure, entries, log, cell, glyphs=trajectories["configuration"].nunique() == 1)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, float(trajectories["time"].max())])
    figure.update_yaxes(**_scale(log))
    title_bottom(figure, TIME, cells, columns)
    place_legend(figure, (270 if narrow else 320) * cells[-1]["row"] + 70, narrow=narrow)
    return figure


def _titled(trajectories: pd.DataFrame, quantity: str, columns: int, log: bool) -> str:
    """The title of a panel: with the entry where it shows a single one, and as an absolute value on a log axis."""
    components = trajectories.loc[trajectories["quantity"] == quantity, "component"].unique()
    symbol = QUANTITIES[quantity].symbol
    entry = f"{symbol}[{components[0]}]" if len(components) == 1 else symbol
    return panel_title(quantity, columns).replace(symbol, f"|{entry}|" if log else entry, 1)


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
    errors = errors[errors.columns.intersection(_DRAWN)]
    quantities = [name for name in QUANTITIES if name in set(errors["quantity"])]
    columns = 1 if narrow else len(quantities)
    titles = [panel_title(name, columns) for name in quantities]
    figure, cells = panel_grid(titles, columns, shared_yaxes="all")
    look = _Look(errors)
    floor = _lowest(errors, tolerances) if log else 0.0
    longest = float(errors["time"].max())
    largest = 2 * float(np.nanmax([*tolerances, *errors["error"]]))
    height = math.log10(largest / floor) if log else largest
    for quantity, cell in zip(quantities, cells, strict=True):
        panel = errors[errors["quantity"] == quantity]
        for rank, name, part in drawing_order(panel):
            _add_error(figure, part.sort_values("time"), f"{quantity}, {escape(name)}", name, rank, look, floor, cell)
        most = panel["error"].max()
        if not most > floor:
            text = "undefined: below its own noise" if math.isnan(most) else f"at most {most:.0e}"
            figure.add_annotation(text=text, x=0.5, y=0.5, showarrow=False, xref="x domain", yref="y domain", **cell)
        _add_tolerances(figure, tolerances, longest, height if cell["col"] == columns else 0.0, log, cell)
        if cell["col"] == 1:
            ratio = f"  e = ‖X − X<sub>{reference}</sub>‖ / ‖X<sub>{reference}</sub>‖"
            figure.update_yaxes(title=f"relative error{'' if narrow else ratio}", **cell)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, longest])
    title_bottom(figure, TIME, cells, columns)
    figure.update_yaxes(**_scale(log))
    if log:
        figure.update_yaxes(range=np.log10([floor, largest]).tolist())
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
    mark = look.simulation(configuration, symbol)
    value, spread = part["simulated"], 2 * part["simulated_se"].fillna(0.0)
    if log:
        value = value.abs()
        spread = spread.clip(upper=0.99 * value)
    group = f"simulation {configuration}"
    add_band(figure, part["time"], value - spread, value + spread, mark["color"], group, cell)
    label = f"{escape(configuration)}: simulation" if configuration else "simulation"
    many, told = "several widths", "simulations of several widths"
    if part["width"].notna().all():
        many = f"M = {int(part['samples'].iloc[0])} networks"
        told = f"n = {int(part['width'].iloc[0])}, {many}"
    figure.add_scatter(
        x=part["time"],
        y=value,
        mode="markers",
        marker={**mark, "size": 5},
        name=f"{label} ± 2 s.e." + ("" if configuration else f", {many}"),
        customdata=[
            [with_error(one, error)] for one, error in zip(part["simulated"], part["simulated_se"], strict=True)
        ],
        hovertemplate=f"{entry}, {label}<br>t = %{{x:.4g}}: %{{customdata[0]}} (s.e.)<br>{told}<extra></extra>",
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
        **look.theory(line),
        name=escape(name),
        hovertemplate=f"{entry}, {escape(name)}<br>t = %{{x:.4g}}: %{{y:.6g}}<extra></extra>",
        **look.legend(name, rank),
        **cell,
    )


def _label_ends(
    figure: go.Figure,
    entries: Sequence[tuple[str, pd.DataFrame]],
    log: bool,
    cell: Mapping[str, int],
    *,
    glyphs: bool,
) -> None:
    """Label each entry at the right end of its first curve, apart; with the ``glyphs`` of its simulated points."""
    values = np.concatenate([part[["simulated", "predicted"]].to_numpy(dtype=float).ravel() for _, part in entries])
    values = np.log10(np.abs(values[values != 0])) if log else values
    known = values[np.isfinite(values)]
    least = _LABEL_HEIGHT * ((float(np.ptp(known)) if known.size else 0.0) or 1.0)
    ends = []
    for (component, part), glyph in zip(entries, cycle(_GLYPHS.values()), strict=False):
        first = part[part["configuration"] == part["configuration"].iloc[0]].sort_values("time")
        simulated = first["simulated"].dropna()
        drawn = first["predicted"].dropna() if simulated.empty else simulated
        last = float(drawn.iloc[-1]) if len(drawn) else np.nan
        height = np.log10(abs(last)) if log and last else last
        if np.isfinite(height):
            ends.append((height, component if simulated.empty or not glyphs else f"{glyph} {component}"))
    longest = float(max(part["time"].max() for _, part in entries))
    add_level_labels(figure, ends, longest, least, **cell)


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
        add_band(figure, line["time"], lower, upper, style["line"]["color"], name, cell)
    told = [
        f"<br>between {row['error_low']:.2g} and {row['error_high']:.2g} (95 %, all depths)"
        + ("" if pd.isna(row["samples"]) else f"<br>M = {row['samples']:.0f} networks")
        if noisy
        else ""
        for row in line[["error_low", "error_high", "samples"]].to_dict("records")
    ]
    hover = {
        "customdata": [[text] for text in told],
        "hovertemplate": f"{what}<br>t = %{{x:.4g}}: e = %{{y:.3g}}%{{customdata[0]}}<extra></extra>",
    }
    shown = {"x": line["time"], "y": line["error"], "name": escape(name)}
    figure.add_scatter(**shown, **style, **hover, **look.legend(name, rank), **cell)
    alone = _alone(line["error"])
    if alone.any():  # a line has no length between gaps
        mark = {"color": style["line"]["color"], "size": 6, **style.get("marker", {})}
        points = {**shown, "y": line["error"].where(alone), "mode": "markers", "marker": mark}
        figure.add_scatter(**points, **hover, legendgroup=name, showlegend=False, **cell)


def _alone(values: pd.Series[Any]) -> pd.Series[Any]:
    """Whether each value is there and both its neighbours are not.

    >>> _alone(pd.Series([1.0, np.nan, 2.0, np.nan, 3.0, 4.0])).tolist()
    [True, False, True, False, False, False]
    """
    known = values.notna()
    return known & ~known.shift(1, fill_value=False) & ~known.shift(-1, fill_value=False)


def _add_tolerances(
    figure: go.Figure, tolerances: Sequence[float], longest: float, named: float, log: bool, cell: Mapping[str, int]
) -> None:
    """A level line for each tolerance; with ``named``, the height of the axis, their names at the right."""
    for tolerance in tolerances:
        figure.add_scatter(
            x=[0, longest],
            y=[tolerance] * 2,
            mode="lines",
            line={"color": GREY, "width": 1, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
            **cell,
        )
    if named:
        levels = [(math.log10(value) if log else value, f"τ = {number(value)}") for value in tolerances]
        add_level_labels(figure, levels, longest, _LABEL_HEIGHT * named, **cell)
