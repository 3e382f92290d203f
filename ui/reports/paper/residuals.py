"""The paper's section 6.3: the residual of the G-only equation with simulated V4, over depth, and its parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from eftcore.verdicts.residuals import equation_residual
from ui.notation import number, with_error
from ui.reports.paper.results import EXACT, Results

if TYPE_CHECKING:
    from eftcore.ensemble import Sample
    from eftcore.verdicts.residuals import EquationResidual

TIMES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
"""The times t at which the paper checks the residual, and t = 0."""

COLUMNS = (
    "epsilon",
    "width n",
    "from t",
    "to t",
    "change of V4 per unit t",
    "residual",
    "step",
    "source",
    "transport",
    "transport, exact leading order",
)

EXPLANATION = (
    "Component 00,00, mean over each interval: what V4 of the simulation changes by per unit t; the residual, which is"
    " that minus the paper's right-hand side chi V4 + V4 chi^T + Sigma(K0) on the same V4; and its three parts. What"
    " stands behind ± bounds the standard error. Step: what forward Euler leaves out, epsilon^2 (chi V4 chi^T +"
    " Wishart(Q))."
    " Source: simulated Sigma minus Sigma(K0), of order 1/n. Transport: the rest, since E[S | G] is not E2(G); beside"
    " it the same from the exact leading order, which has no finite width."
)

SQL = (
    "SELECT epsilon, width, layer, quantity, simulated, simulated_se FROM v_trajectories WHERE component = '00,00'"
    " AND quantity IN ('V4', 'Sigma') AND closure = 'g_only' AND nodes IS NULL ORDER BY epsilon, width, quantity, layer"
)
"""Query for V4 and Sigma of every simulation, from which the residual is computed."""


@dataclass(frozen=True)
class Interval:
    """One interval of one simulation; numbers are per unit t.

    ``error`` bounds the standard errors of residual and transport, ``source_error`` the standard error of the source.
    """

    epsilon: float
    width: int
    start: float
    end: float
    change: float
    residual: float
    error: float
    step: float
    source: float
    source_error: float
    transport: float
    exact: float

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of the row in the order of COLUMNS."""
        return (
            f"{self.epsilon:g}",
            str(self.width),
            f"{self.start:.4g}",
            f"{self.end:.4g}",
            number(self.change),
            with_error(self.residual, self.error),
            number(self.step, 3),
            with_error(self.source, self.source_error),
            with_error(self.transport, self.error),
            number(self.exact, 3),
        )


def residual_findings(table: tuple[Interval, ...]) -> list[str]:
    """Sentences about the last interval at the smallest epsilon."""
    smallest = min(row.epsilon for row in table)
    rows = [row for row in table if row.epsilon == smallest]
    last = [row for row in rows if row.end == max(each.end for each in rows)]
    widths = ", ".join(str(row.width) for row in last)
    sources = ", ".join(with_error(row.width * row.source, row.width * row.source_error) for row in last)
    transports = ", ".join(with_error(row.transport, row.error) for row in last)
    return [
        f"Between t = {last[0].start:.4g} and {last[0].end:.4g} at epsilon = {smallest:g} the residual is"
        f" {', '.join(f'{row.residual / row.change:.2%}' for row in last)} of the change of V4 at n = {widths}.",
        f"n times the error of its source, which is of order 1/n, is {sources}; transport is {transports}, where the"
        f" exact leading order has {last[0].exact:.3f} at every n.",
    ]


def residual_table(results: Results) -> tuple[Interval, ...]:
    """The residual of every simulation of the study that has Sigma, interval by interval."""
    found = results.simulations
    widths = {
        epsilon: [int(width) for width in found["width"][found["epsilon"] == epsilon]] for epsilon in found["epsilon"]
    }
    return tuple(row for epsilon, those in widths.items() for row in _rows(results, epsilon, those))


def _rows(results: Results, epsilon: float, widths: list[int]) -> Iterator[Interval]:
    """The rows of the table for one epsilon, whose simulations share the exact leading order."""
    theory = results.predicted(EXACT, epsilon)
    wanted = np.array(TIMES) / epsilon**2
    layers = sorted({int(theory.depth[np.abs(theory.depth - layer).argmin()]) for layer in wanted})
    exact = equation_residual(theory, between=layers)
    for width in widths:
        simulated = results.simulated(epsilon, width)
        if simulated.increment_covariance is not None:
            found = equation_residual(cast("Sample", simulated), between=layers)
            yield from _intervals(epsilon, width, layers, found, exact)


def _intervals(
    epsilon: float, width: int, layers: list[int], found: EquationResidual, exact: EquationResidual
) -> Iterator[Interval]:
    def first(of: EquationResidual, name: str, row: int) -> float:
        return float(getattr(of, name)[row, 0, 0])

    for row, (start, end) in enumerate(itertools.pairwise(layers)):
        parts = {name: first(found, name, row) for name in ("change", "residual", "step", "source", "transport")}
        yield Interval(
            epsilon=epsilon,
            width=width,
            start=epsilon**2 * start,
            end=epsilon**2 * end,
            error=float(found.standard_error["transport"][row, 0, 0]),
            source_error=float(found.standard_error["source"][row, 0, 0]),
            exact=first(exact, "transport", row),
            **parts,
        )
