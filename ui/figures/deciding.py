"""Which parameter decides how deep a theory holds: shares of variance, averages, and parallel coordinates."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from eftcore.quantities import QUANTITIES
from ui.figures.style import (
    BLUE,
    GREY,
    GRID,
    LINES,
    ORANGE,
    SERIES,
    SYMBOLS,
    panel_grid,
    panel_title,
    place_legend,
    title_bottom,
)

_KINDS = {"first_order": ("alone", BLUE, ""), "total": ("with others", ORANGE, "/")}
"""Legend text, colour and hatching of the bars of each kind of share."""


def shares_figure(shares: pd.DataFrame, *, narrow: bool = False) -> go.Figure:
    """First-order and total shares of the variance of t* with two standard errors, a pair of bars per parameter.

    ``shares`` is what eftcore.verdicts.variance_shares gives. A tick across a bar marks what a parameter without
    influence would have by chance.
    """
    figure = go.Figure()
    names = [escape(name) for name in shares["parameter"]]
    for kind, (label, colour, hatch) in _KINDS.items():
        figure.add_bar(
            x=shares[kind],
            y=names,
            orientation="h",
            name=label,
            marker={"color": colour, "pattern": {"shape": hatch, "size": 6, "solidity": 0.35}},
            error_x={"type": "data", "array": 2 * shares[f"{kind}_se"].fillna(0.0), "color": GREY, "thickness": 1.2},
            hovertemplate=f"%{{y}} {label}: %{{x:.0%}}<extra></extra>",
        )
    figure.add_scatter(
        x=shares["by_chance"],
        y=names,
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 16, "color": GREY, "line": {"width": 2}},
        name="alone, by chance",
        hovertemplate="%{y} by chance: %{x:.0%}<extra></extra>",
    )
    figure.update_xaxes(title="share of the variance of t*", tickformat=".0%", range=[0, 1.02], gridcolor=GRID)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(bargap=0.25)
    place_legend(figure, 130 + 46 * len(names), narrow=narrow)
    return figure


def averages_figure(found: pd.DataFrame, across: str, horizon: float, *, narrow: bool = False) -> go.Figure:
    """Mean t* and its spread over configurations against a parameter, a series per theory, a panel per quantity.

    ``found`` is a frame of averages (ui.data.parameters); bars are one standard deviation over configurations, and a
    line marks the horizon, at which depths that reach it are cut.
    """
    quantities = [name for name in QUANTITIES if name in set(found["quantity"])]
    texts = found.drop_duplicates("across").sort_values("across_rank")["across"].tolist()
    theories = found["theory"].drop_duplicates().tolist()
    beside = 1 if narrow else len(quantities)
    figure, cells = panel_grid([panel_title(name, beside) for name in quantities], beside, shared_yaxes=True)
    shown: set[str] = set()
    for quantity, cell in zip(quantities, cells, strict=True):
        for rank, theory in enumerate(theories):
            part = found[(found["quantity"] == quantity) & (found["theory"] == theory)].sort_values("across_rank")
            if part.empty:
                continue
            colour = SERIES[rank % len(SERIES)]
            shift = 0.5 * ((rank + 0.5) / len(theories) - 0.5)
            figure.add_scatter(
                x=[texts.index(text) + shift for text in part["across"]],
                y=part["mean"],
                mode="lines+markers",
                line={"color": colour, "dash": LINES[rank % len(LINES)], "width": 1.5},
                marker={"symbol": SYMBOLS[rank % len(SYMBOLS)], "color": colour, "size": 8},
                error_y={"type": "data", "array": part["spread"].fillna(0.0), "thickness": 1.2, "width": 3},
                name=escape(theory),
                legendgroup=theory,
                showlegend=theory not in shown,
                customdata=part[["windows", "beyond", "unknown"]].astype(str).to_numpy().tolist(),
                hovertemplate=f"{escape(theory)}: mean t* %{{y:.3g}}<br>of %{{customdata[0]}} windows, "
                "%{customdata[1]} only bounded below, %{customdata[2]} not resolved<extra></extra>",
                **cell,
            )
            shown.add(theory)
        figure.add_hline(y=horizon, line={"color": GREY, "width": 1, "dash": "dot"}, **cell)
    figure.update_xaxes(
        tickvals=list(range(len(texts))), ticktext=[escape(text) for text in texts], showgrid=False, zeroline=False
    )
    title_bottom(figure, escape(across), cells, beside)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, range=[0, 1.08 * horizon])
    figure.update_yaxes(title="mean t*", col=1)
    place_legend(figure, 250 * cells[-1]["row"] + 90 if narrow else 400, narrow=narrow)
    return figure


def parallel_figure(depths: pd.DataFrame, parameters: dict[str, str], *, narrow: bool = False) -> go.Figure:
    """Parallel coordinates: a line through the values of each configuration, coloured by its depth min(t*, H).

    Args:
        depths: a frame of depths of one theory and quantity, those that are known.
        parameters: columns, each with its symbol.
    """
    dimensions = []
    for name, symbol in parameters.items():
        codes, values = pd.factorize(depths[name], sort=True, use_na_sentinel=False)
        texts = [f"{value:.6g}" if isinstance(value, int | float | np.number) else str(value) for value in values]
        dimensions.append(
            {"label": escape(symbol), "values": codes, "tickvals": list(range(len(texts))), "ticktext": texts}
        )
    horizon = float(depths["horizon"].iloc[0])
    dimensions.append({"label": f"min(t*, {horizon:g})", "values": depths["middle"], "range": [0, horizon]})
    figure = go.Figure(
        go.Parcoords(
            line={
                "color": depths["middle"],
                "colorscale": "Cividis",
                "cmin": 0,
                "cmax": horizon,
                "showscale": not narrow,
                "colorbar": {"title": {"text": "t*"}, "thickness": 12, "outlinewidth": 0},
            },
            dimensions=dimensions,
            labelfont={"color": GREY, "size": 12},
            tickfont={"color": GREY, "size": 11},
            rangefont={"color": "rgba(0,0,0,0)"},
            labelangle=-30 if narrow else 0,
        )
    )
    figure.update_layout(height=420, margin={"l": 70, "r": 50, "t": 70, "b": 40})
    return figure
