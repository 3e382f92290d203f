"""The correction of a finite width to the exact leading order: its size, and whether it is of order 1/n alone.

X_n = X (1 + a / n + b / n^2 + ...), where X is the leading order and X_n the value for networks of width n. So n times
the excess (X_n - X) / X, always relative to the leading order, is a + b / n + ...: it is independent of n where the
correction is of order 1/n alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from ui.notation import with_error

LEVEL = 0.05
"""Probability that any of the tests of a page rejects although every hypothesis holds (Bonferroni)."""

LEFT_OUT = {"K0": 0.0, "V4": 1e-3}
"""Relative error of the leading order itself: terms are added to its series until those left out add less."""

COLUMNS = (
    "quantity, activation, weight_variance AS c_w, width, COUNT(*) AS simulations,\n"
    "    AVG(width * (simulated - predicted) / predicted) AS n_excess,\n"
    "    SUM(width * simulated_se / predicted * width * simulated_se / predicted) / COUNT(*) / COUNT(*)"
    " AS n_excess_variance"
)
"""Columns of a query on v_trajectories, grouped by the first four: the average of n (X_n - X) / X, and the square of
its standard error."""


_Groups: TypeAlias = list[tuple[tuple[Any, ...], pd.DataFrame]]
"""Quantity, activation and C_W, with the rows of each width."""


@dataclass(frozen=True)
class WidthFit:
    """n (X_n - X) / X = limit + slope / n, fitted to some widths by weighted least squares.

    Attributes:
        limit, limit_se: value at n -> infinity, the coefficient a of 1/n in X_n, and its standard error.
        slope: the coefficient b of 1/n^2 in X_n; 0 where only the limit is fitted.
        chi_squared: sum of squared residuals in units of their standard errors.
        degrees_of_freedom: number of widths minus number of parameters.
        p_value: probability of residuals as large or larger where the model holds; 1 without degrees of freedom.
    """

    limit: float
    limit_se: float
    slope: float
    chi_squared: float
    degrees_of_freedom: int
    p_value: float


def width_fit(width: np.ndarray, n_excess: np.ndarray, se: np.ndarray, *, with_slope: bool) -> WidthFit:
    """Fit the n-dependence of n (X_n - X) / X.

    Args:
        width, n_excess, se: (W,) widths n, the values and their standard errors, which are taken as Gaussian.
        with_slope: fit limit + slope / n instead of a constant limit.

    >>> fit = width_fit(np.array([16, 32, 128]), np.array([21.4, 16.5, 13.8]), np.ones(3), with_slope=False)
    >>> round(fit.chi_squared, 1), fit.p_value < 1e-6
    (29.7, True)
    """
    width = np.asarray(width, dtype=float)
    design = np.stack([np.ones_like(width), 1 / width], axis=1)[:, : 2 if with_slope else 1]
    weighted = design / np.asarray(se)[:, None]
    covariance = np.linalg.pinv(weighted.T @ weighted)
    found = covariance @ weighted.T @ (np.asarray(n_excess) / se)
    chi_squared = float(np.sum(((n_excess - design @ found) / se) ** 2))
    freedom = max(0, len(width) - design.shape[1])
    return WidthFit(
        limit=float(found[0]),
        limit_se=float(np.sqrt(covariance[0, 0])),
        slope=float(found[1]) if with_slope else 0.0,
        chi_squared=chi_squared,
        degrees_of_freedom=freedom,
        p_value=float(chdtrc(freedom, chi_squared)) if freedom else 1.0,
    )


def finite_width(table: pd.DataFrame) -> Iterable[str]:
    """Sentences about a table of COLUMNS.

    They give the excess of the widest networks for each quantity, activation and C_W, and the results of tests over all
    widths.
    """
    names = ["quantity", "activation", "c_w"]
    groups: _Groups = [(tuple(rows[names].iloc[0]), rows) for _, rows in table.sort_values("width").groupby(names)]
    for quantity in table["quantity"].unique():
        parts = []
        for (found, activation, c_w), rows in groups:
            if found == quantity:
                widest = rows.iloc[-1]
                size = with_error(widest["n_excess"], widest["n_excess_variance"] ** 0.5)
                parts.append(f"{activation}, C_W = {c_w:g}: {size}")
        yield (
            f"n times the excess of {_MEANT[quantity]} of one input over the leading order at T, relative to the"
            f" leading order, at n = {table['width'].max()}: {'; '.join(parts)}."
        )
    if table["width"].nunique() > 1:
        yield _tested(
            groups, with_slope=False, said="Corrections of order 1/n alone would make these independent of n:"
        )
    if table["width"].nunique() > 2:
        yield _tested(groups, with_slope=True, said="With corrections of order 1/n and 1/n^2 they would be a + b / n:")


_MEANT = {"K0": "the mean kernel E[G]", "V4": "V4 = n Var(G)"}


def _tested(groups: _Groups, *, with_slope: bool, said: str) -> str:
    refused = []
    for (quantity, activation, c_w), rows in groups:
        width = rows["width"].to_numpy()
        se = np.sqrt(rows["n_excess_variance"].to_numpy() + (LEFT_OUT[quantity] * width) ** 2)
        fit = width_fit(width, rows["n_excess"].to_numpy(), se, with_slope=with_slope)
        if fit.p_value < LEVEL / len(groups):
            refused.append(f"{quantity} of {activation} at C_W = {c_w:g} (p = {fit.p_value:.1g})")
    verdict = f"{len(refused)} of {len(groups)} rows" + (f", {', '.join(refused)}" if refused else "")
    return f"{said} chi^2 tests, {LEVEL:.0%} for all rows together, refute that in {verdict}."
