"""Trajectories and errors against depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ui.figures.style import CLOSURE_LINE, GREY, GRID, LEGEND_RANK, add_band, by_theory, place_legend
from ui.notation import MEANING, QUANTITIES, SYMBOL, TIME, number

_SYMBOLS = {"circle": "●", "diamond": "◆", "square": "■", "triangle-up": "▲", "triangle-down": "▼", "star": "★"}
"""Symbols of the simulated entries of a panel, in turn, and how text shows them."""

_LABEL_HEIGHT = 0.07
"""Least distance of two labels, as a part of the panel's height."""


def trajectories_figure(trajectories: pd.DataFrame) -> go.Figure:
    """Simulated entries against t with their error bands, and every theory over them; a panel per quantity.

    ``trajectories`` has columns quantity, component, time, simulated, simulated_se, theory, closure, predicted,
    samples.
    """
    quantities = [q for q in QUANTITIES if q in set(trajectories["quantity"])]
    columns = min(2, len(quantities))
    figure = make_subplots(
        rows=-(-len(quantities) // columns),
        cols=columns,
        shared_xaxes=True,
        horizontal_spacing=0.09,
        vertical_spacing=0.12,
        subplot_titles=[f"{SYMBOL[q]}  {MEANING[q]}" for q in quantities],
    )
    shown: set[str] = set()
    for place, quantity in enumerate(quantities):
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        panel = trajectories[trajectories["quantity"] == quantity]
        entries = [(str(name), part) for name, part in panel.groupby("component", sort=True)]
        for (component, part), symbol in zip(entries, cycle(_SYMBOLS), strict=False):
            simulated = part.drop_duplicates("time").sort_values("time")
            entry = f"{quantity}[{component}]"
            _add_simulation(figure, simulated, entry, symbol, cell, shown)
            for name, closure, line in by_theory(part.dropna(subset=["predicted"])):
                _add_theory(figure, line.sort_values("time"), entry, name, closure, cell, shown)
        _label_ends(figure, entries, cell)
        figure.update_yaxes(title=SYMBOL[quantity], **cell)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, range=[0, float(trajectories["time"].max())])
    figure.update_yaxes(gridcolor=GRID, zeroline=True, zerolinecolor=GRID)
    for column in range(1, columns + 1):
        figure.update_xaxes(title=TIME, row=-(-len(quantities) // columns), col=column)
    place_legend(figure, 330 * (-(-len(quantities) // columns)) + 60)
    return figure


def _add_simulation(
    figure: go.Figure, part: pd.DataFrame, entry: str, symbol: str, cell: dict[str, int], shown: set[str]
) -> None:
    upper = part["simulated"] + 2 * part["simulated_se"]
    lower = part["simulated"] - 2 * part["simulated_se"]
    samples = int(part["samples"].iloc[0])
    add_band(figure, part["time"], lower, upper, GREY, "simulation", cell)
    figure.add_scatter(
        x=part["time"],
        y=part["simulated"],
        mode="markers",
        marker={"color": GREY, "size": 5, "symbol": symbol},
        name=f"simulation ± 2 s.e., M = {samples} networks",
        legendgroup="simulation",
        legendrank=1,
        showlegend="simulation" not in shown,
        customdata=np.column_stack([part["simulated_se"]]),
        hovertemplate=f"{entry}, simulation<br>t = %{{x:.4g}}: %{{y:.5g}} ± %{{customdata[0]:.2g}} (s.e.)"
        f"<br>M = {samples} networks<extra></extra>",
        **cell,
    )
    shown.add("simulation")


def _label_ends(figure: go.Figure, entries: list[tuple[str, pd.DataFrame]], cell: dict[str, int]) -> None:
    """Name each entry, with its symbol, at the right end of its curve; close ones are moved apart."""
    values = pd.concat([part for _, part in entries])
    spread = 2 * values["simulated_se"].fillna(0)
    top = max((values["simulated"] + spread).max(), values["predicted"].max())
    bottom = min((values["simulated"] - spread).min(), values["predicted"].min())
    least = _LABEL_HEIGHT * (float(top - bottom) or 1.0)
    ends = [
        (float(part.sort_values("time")["simulated"].iloc[-1]), f"{glyph} {component}")
        for (component, part), glyph in zip(entries, cycle(_SYMBOLS.values()), strict=False)
    ]
    place = -np.inf
    for value, text in sorted(end for end in ends if np.isfinite(end[0])):
        place = max(value, place + least)
        figure.add_annotation(
            text=text,
            x=float(values["time"].max()),
            y=place,
            xanchor="left",
            xshift=5,
            showarrow=False,
            font={"size": 11},
            **cell,
        )


def _add_theory(
    figure: go.Figure, line: pd.DataFrame, entry: str, name: str, closure: str, cell: dict[str, int], shown: set[str]
) -> None:
    figure.add_scatter(
        x=line["time"],
        y=line["predicted"],
        mode="lines",
        line={**CLOSURE_LINE[closure], "width": 2},
        name=name,
        legendgroup=name,
        legendrank=LEGEND_RANK[closure],
        showlegend=name not in shown,
        hovertemplate=f"{entry}, {name}<br>t = %{{x:.4g}}: %{{y:.6g}}<extra></extra>",
        **cell,
    )
    shown.add(name)


def errors_figure(errors: pd.DataFrame, tolerances: Sequence[float]) -> go.Figure:
    """Relative error of every closure against t with its ±2 s.e. band, a panel per quantity, tolerances as level lines.

    ``errors`` has columns quantity, theory, closure, time, error, error_se, samples; NaN where the error is undefined.
    """
    quantities = [q for q in QUANTITIES if q in set(errors["quantity"])]
    figure = make_subplots(
        cols=len(quantities),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[f"{SYMBOL[q]}  {MEANING[q]}" for q in quantities],
    )
    shown: set[str] = set()
    floor, longest = _smallest_positive(errors), float(errors["time"].max())
    for column, quantity in enumerate(quantities, start=1):
        cell = {"row": 1, "col": column}
        for name, closure, part in by_theory(errors[errors["quantity"] == quantity]):
            line = part.sort_values("time")
            lower = (line["error"] - 2 * line["error_se"]).clip(lower=floor)
            style = CLOSURE_LINE[closure]
            add_band(figure, line["time"], lower, line["error"] + 2 * line["error_se"], style["color"], name, cell)
            figure.add_scatter(
                x=line["time"],
                y=line["error"],
                mode="lines",
                line={**style, "width": 2},
                name=f"{name} ± 2 s.e.",
                legendgroup=name,
                legendrank=LEGEND_RANK[closure],
                showlegend=name not in shown,
                customdata=line[["error_se", "samples"]],
                hovertemplate=f"{quantity}, {name}<br>t = %{{x:.4g}}: e = %{{y:.3g}} ± %{{customdata[0]:.2g}} (s.e.)"
                "<br>M = %{customdata[1]} networks<extra></extra>",
                **cell,
            )
            shown.add(name)
        if not errors.loc[errors["quantity"] == quantity, "error"].notna().any():
            figure.add_annotation(
                text="undefined: below its own noise",
                x=0.5,
                y=0.5,
                showarrow=False,
                xref="x domain",
                yref="y domain",
                **cell,
            )
        for tolerance in tolerances:
            last = column == len(quantities)
            figure.add_scatter(
                x=[0, longest],
                y=[tolerance] * 2,
                mode="lines+text" if last else "lines",
                text=["", f" τ = {number(tolerance)}"],
                textposition="middle right",
                textfont={"size": 11, "color": GREY},
                line={"color": GREY, "width": 1, "dash": "dot"},
                showlegend=False,
                hoverinfo="skip",
                cliponaxis=False,
                **cell,
            )
    figure.update_xaxes(title=TIME, gridcolor=GRID, zeroline=False, range=[0, longest])
    figure.update_yaxes(type="log", gridcolor=GRID, exponentformat="power", dtick=1)
    figure.update_yaxes(title="relative error  e = ‖X − X<sub>sim</sub>‖ / ‖X<sub>sim</sub>‖", row=1, col=1)
    place_legend(figure, 400)
    return figure


def _smallest_positive(errors: pd.DataFrame) -> float:
    """Where bands that reach zero end on a logarithmic axis: a decade below the smallest error."""
    positive = errors.loc[errors["error"] > 0, "error"]
    return float(positive.min()) / 10 if len(positive) else 1e-6
