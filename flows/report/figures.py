"""The paper's figures 1-4 from our results, with the theories that the paper does not have, as SVG text.

Points with bars are simulations (two standard errors); lines are theories, the same colour and dash in every figure.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eftcore.published import published
from flows.report.results import (
    CONVERGED,
    EPSILON,
    EXACT,
    PUBLISHED,
    SIGMA,
    SOURCE_ONLY,
    WIDTH,
    Curves,
    Results,
    Theory,
)

STYLE = {
    PUBLISHED: ("G-only, 32 nodes (published)", "#D55E00", (0, (4, 2))),
    CONVERGED: ("G-only, converged", "#0072B2", "solid"),
    SOURCE_ONLY: ("source only", "#E69F00", (0, (1, 1))),
    SIGMA: ("sigma-kernel closure", "#009E73", (0, (6, 2))),
    EXACT: ("exact leading order (Wick 24)", "#CC79A7", (0, (5, 1, 1, 1))),
}
"""Label, colour (Okabe-Ito) and dash of each theory."""

ENTRIES = ((0, 0), (0, 1))
"""The entries that the figures show; also the first two pairs."""

EVERY = 5
"""Every fifth recorded layer carries a point."""


@dataclass(frozen=True)
class Drawn:
    """A figure: file name without ending, what it shows, the SVG."""

    name: str
    caption: str
    svg: str


def paper_figures(results: Results) -> tuple[Drawn, ...]:
    """Figures 1 to 4."""
    return tuple(draw(results) for draw in (figure_1, figure_2, figure_3, figure_4))


def figure_1(results: Results) -> Drawn:
    """K0 and V4 over time for the entries 00 and 01."""
    simulated = results.simulated(EPSILON, WIDTH)
    figure, axes = _axes(2, 2)
    for pair, (i, j) in enumerate(ENTRIES):
        kernel, covariance = axes[pair]
        _points(kernel, simulated, "K0", i, j)
        _points(covariance, simulated, "V4", pair, pair)
        for theory in (CONVERGED, PUBLISHED):
            _line(kernel, results.predicted(theory, EPSILON), "K0", i, j, theory)
        for theory in (SOURCE_ONLY, CONVERGED, PUBLISHED, SIGMA, EXACT):
            _line(covariance, results.predicted(theory, EPSILON), "V4", pair, pair, theory)
        kernel.set_ylabel(f"$K_0$, entry {i}{j}")
        covariance.set_ylabel(f"$V_4$, entry {i}{j},{i}{j}")
    return _drawn(
        figure,
        axes,
        "figure-1",
        f"Mean kernel and kernel covariance, n = {WIDTH}, epsilon = {EPSILON}, "
        f"M = {results.samples(EPSILON, WIDTH)} networks (paper: figure 1).",
    )


def figure_2(results: Results) -> Drawn:
    """V4 and its relative error for every epsilon at the largest width."""
    rows = results.simulations
    width = int(rows["width"].max())
    epsilons = sorted(rows.loc[rows["width"] == width, "epsilon"])
    figure, axes = _axes(2, len(epsilons), sharey="row")
    for column, epsilon in enumerate(epsilons):
        simulated = results.simulated(epsilon, width)
        value, error = axes[0, column], axes[1, column]
        _points(value, simulated, "V4", 0, 0)
        reference, noise = simulated["V4"][:, 0, 0], simulated["V4_se"][:, 0, 0]
        for theory in (SOURCE_ONLY, CONVERGED, PUBLISHED, SIGMA, EXACT):
            curves = results.predicted(theory, epsilon)
            _line(value, curves, "V4", 0, 0, theory)
            label, colour, dash = STYLE[theory]
            error.plot(curves["time"], curves["V4"][:, 0, 0] / reference - 1, color=colour, ls=dash, label=label)
        band = 2 * noise / reference
        error.fill_between(simulated["time"], -band, band, color="0.8", lw=0, label="simulation, 2 s.e.")
        error.set_ylim(-0.25, 0.05)
        value.set_title(f"$\\epsilon$ = {epsilon}, M = {results.samples(epsilon, width)}", fontsize=9)
    axes[0, 0].set_ylabel("$V_4$, entry 00,00")
    axes[1, 0].set_ylabel("theory / simulation - 1")
    return _drawn(
        figure,
        axes,
        "figure-2",
        f"Kernel covariance and its relative error for three epsilon at n = {width} (paper: figure 2).",
    )


def figure_3(results: Results) -> Drawn:
    """K1: simulated, from the simulated source, and predicted."""
    figure, axes = _two_entries(results, "K1", "$K_1$")
    simulated = results.simulated(EPSILON, WIDTH)
    for axis, (i, j) in zip(axes[0], ENTRIES, strict=True):
        source = published().model.weight_variance * _running_integral(simulated["time"], simulated["U1"][:, i, j])
        axis.plot(simulated["time"], source, color="black", lw=0.8, label="from the simulated source $C_W U_1$")
    return _drawn(
        figure,
        axes,
        "figure-3",
        f"Mean correction n (E[G] - K0) with the converged K0, n = {WIDTH}, epsilon = {EPSILON} (paper: figure 3).",
    )


def figure_4(results: Results) -> Drawn:
    """U1 over depth: simulated, and of each theory."""
    return _drawn(
        *_two_entries(results, "U1", "$U_1$"),
        "figure-4",
        f"Source of the mean correction, n = {WIDTH}, epsilon = {EPSILON}; exactly 0 at t = 0 (paper: figure 4).",
    )


def _two_entries(results: Results, quantity: str, symbol: str) -> tuple[Figure, np.ndarray]:
    """A quantity of the main ensemble, simulated and predicted, for the entries 00 and 01."""
    figure, axes = _axes(1, 2)
    for axis, (i, j) in zip(axes[0], ENTRIES, strict=True):
        _points(axis, results.simulated(EPSILON, WIDTH), quantity, i, j)
        for theory in (CONVERGED, PUBLISHED, SIGMA, EXACT):
            _line(axis, results.predicted(theory, EPSILON), quantity, i, j, theory)
        axis.set_ylabel(f"{symbol}, entry {i}{j}")
    return figure, axes


def _axes(rows: int, columns: int, **options: Any) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(9.5, 0.7 + 2.7 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, sharex=True, squeeze=False, **options)


def _points(axis: Axes, curves: Curves, quantity: str, i: int, j: int) -> None:
    value, noise = curves[quantity][::EVERY, i, j], curves[f"{quantity}_se"][::EVERY, i, j]
    style: dict[str, Any] = {"fmt": "o", "ms": 2.5, "lw": 0.8, "color": "0.25", "zorder": 3}
    axis.errorbar(curves["time"][::EVERY], value, 2 * noise, label="simulation, 2 s.e.", **style)


def _line(axis: Axes, curves: Curves, quantity: str, i: int, j: int, theory: Theory) -> None:
    label, colour, dash = STYLE[theory]
    axis.plot(curves["time"], curves[quantity][:, i, j], color=colour, ls=dash, lw=1.4, label=label)


def _running_integral(time: np.ndarray, values: np.ndarray) -> np.ndarray:
    steps = np.diff(time) * (values[1:] + values[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])


def _drawn(figure: Figure, axes: np.ndarray, name: str, caption: str) -> Drawn:
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3, lw=0.5)
    for axis in axes[-1]:
        axis.set_xlabel("$t = \\epsilon^2 \\ell$")
    entries: dict[str, Any] = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return Drawn(name, caption, text.getvalue())
