"""The paper's figures 1-4 from our results, with further theories. Only their contents; ui.figures.panels draws them.

Points with bars are simulations (two standard errors); lines are theories, with the same colour and dash in every
figure.
"""

from __future__ import annotations

import numpy as np

from db.reading.stored_results import StoredSample
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory as Prediction
from ui.figures.panels import Curve, Panel, PanelFigure
from ui.figures.style import CLOSURE_LINE, INK, VERMILION
from ui.notation import number
from ui.reports.paper.published import published
from ui.reports.paper.results import (
    CONVERGED,
    EPSILON,
    EXACT,
    PUBLISHED,
    SIGMA,
    SOURCE_ONLY,
    Results,
    Theory,
)

_LINES = {
    PUBLISHED: ("G-only, 32 nodes (published)", {"color": VERMILION, "dash": "dash"}),
    CONVERGED: ("G-only, converged", CLOSURE_LINE["g_only"]),
    SOURCE_ONLY: ("source only", CLOSURE_LINE["source_only"]),
    SIGMA: ("sigma-kernel closure", CLOSURE_LINE["sigma"]),
    EXACT: ("exact leading order", CLOSURE_LINE["exact"]),
}
"""Label and line of each theory."""

ENTRIES = ((0, 0), (0, 1))
"""The entries (a, b) that the figures show, which are also the first two pairs."""

EVERY = 5
"""Points are drawn at every fifth recorded layer."""


def paper_figures(results: Results) -> tuple[PanelFigure, ...]:
    """Figures 1 to 4, as far as the study has results for them."""
    found = []
    for describe in (_figure_1, _figure_2, _figure_3, _figure_4):
        try:
            found.append(describe(results))
        except InputError:
            continue
    return tuple(found)


def _figure_1(results: Results) -> PanelFigure:
    """K0 and V4 over time for the entries 00 and 01."""
    simulated = results.simulated(EPSILON, results.width)
    rows = []
    for pair, (i, j) in enumerate(ENTRIES):
        kernel = [_points(simulated, "K0", i, j), *_theories(results, (CONVERGED, PUBLISHED), "K0", i, j)]
        theories = (SOURCE_ONLY, CONVERGED, PUBLISHED, SIGMA, EXACT)
        covariance = [_points(simulated, "V4", pair, pair), *_theories(results, theories, "V4", pair, pair)]
        rows.append(
            (
                Panel(f"{QUANTITIES['K0'].symbol}, entry {i}{j}", tuple(kernel)),
                Panel(f"{QUANTITIES['V4'].symbol}, entry {i}{j},{i}{j}", tuple(covariance)),
            )
        )
    caption = f"Mean kernel and kernel covariance, {_ensemble(results)} (paper: figure 1)."
    return PanelFigure("figure-1", caption, tuple(rows))


def _figure_2(results: Results) -> PanelFigure:
    """V4 and its relative error for every epsilon at the largest width."""
    width = results.largest_width
    values, errors = [], []
    for epsilon in results.epsilons:
        simulated = results.simulated(epsilon, width)
        theories = (SOURCE_ONLY, CONVERGED, PUBLISHED, SIGMA, EXACT)
        title = f"ε = {number(epsilon)}, M = {simulated.samples}"
        curves = (_points(simulated, "V4", 0, 0), *_theories(results, theories, "V4", 0, 0, epsilon))
        values.append(Panel(f"{QUANTITIES['V4'].symbol}, entry 00,00", curves, title=title))
        reference, noise = (values[:, 0, 0] for values in QUANTITIES["V4"].estimate_of(simulated))
        band = Curve("simulation, 2 s.e.", {"color": INK}, simulated.time, 0 * reference, 2 * noise / reference, "band")
        theory = [curve for curve in curves if not curve.kind]
        against = [Curve(curve.label, curve.line, curve.time, curve.value / reference - 1) for curve in theory]
        errors.append(Panel("theory / simulation − 1", (band, *against), limits=(-0.25, 0.05)))
    caption = f"Kernel covariance and its relative error for each ε at n = {width} (paper: figure 2)."
    return PanelFigure("figure-2", caption, (tuple(values), tuple(errors)), shared_values=True)


def _figure_3(results: Results) -> PanelFigure:
    """K1 over time: simulated, computed from the simulated source, and predicted."""
    simulated = results.simulated(EPSILON, results.width)
    panels = []
    for i, j in ENTRIES:
        exact, _ = QUANTITIES["U1"].estimate_of(simulated)
        summed = published().model.weight_variance * _running_integral(simulated.time, exact[:, i, j])
        source = Curve("from the simulated source C<sub>W</sub> U<sub>1</sub>", {"color": INK}, simulated.time, summed)
        panels.append(_with_theories(results, simulated, "K1", i, j, source))
    caption = f"Mean correction n (E[G] − K0) with the converged K0, {_ensemble(results)} (paper: figure 3)."
    return PanelFigure("figure-3", caption, (tuple(panels),))


def _figure_4(results: Results) -> PanelFigure:
    """U1 over depth: simulated and predicted by each theory."""
    simulated = results.simulated(EPSILON, results.width)
    panels = tuple(_with_theories(results, simulated, "U1", i, j) for i, j in ENTRIES)
    caption = f"Source of the mean correction, exactly 0 at t = 0, {_ensemble(results)} (paper: figure 4)."
    return PanelFigure("figure-4", caption, (panels,))


def _ensemble(results: Results) -> str:
    return f"n = {results.width}, ε = {number(EPSILON)}, M = {results.samples(EPSILON, results.width)} networks"


def _with_theories(results: Results, simulated: StoredSample, quantity: str, i: int, j: int, *more: Curve) -> Panel:
    theories = _theories(results, (CONVERGED, PUBLISHED, SIGMA, EXACT), quantity, i, j)
    return Panel(f"{QUANTITIES[quantity].symbol}, entry {i}{j}", (_points(simulated, quantity, i, j), *theories, *more))


def _points(simulated: StoredSample, quantity: str, i: int, j: int) -> Curve:
    at = (slice(None, None, EVERY), i, j)
    value, noise = (values[at] for values in QUANTITIES[quantity].estimate_of(simulated))
    return Curve("simulation, 2 s.e.", {"color": INK}, simulated.time[::EVERY], value, 2 * noise, "points")


def _theories(
    results: Results, theories: tuple[Theory, ...], quantity: str, i: int, j: int, epsilon: float = EPSILON
) -> list[Curve]:
    """A line for each theory that the study has computed and that predicts the quantity."""
    curves = []
    for theory in theories:
        predicted = _find(results, theory, epsilon)
        values = None if predicted is None else QUANTITIES[quantity].of(predicted)
        if predicted is not None and values is not None:
            label, line = _LINES[theory]
            curves.append(Curve(label, line, predicted.time, values[:, i, j]))
    return curves


def _find(results: Results, theory: Theory, epsilon: float) -> Prediction | None:
    try:
        return results.predicted(theory, epsilon)
    except InputError:
        return None


def _running_integral(time: np.ndarray, values: np.ndarray) -> np.ndarray:
    steps = np.diff(time) * (values[1:] + values[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])
