"""The picture of the atlas: how the error of V4 grows over depth, one panel for each activation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from db.session import Database
from ui.figures.panels import Curve, Panel, PanelFigure, in_rows
from ui.figures.style import INK, theory_lines
from ui.reports.atlas.lessons import COST, IN_STUDY, THEORY, V4_TOLERANCE
from ui.reports.atlas.study import ask

COLUMNS = 3
LIMIT = {"color": INK, "dash": "dot"}

SQL = (
    f"SELECT activation, {THEORY}, closure, closure_order, time, error\nFROM v_theory_errors\n"
    "WHERE quantity = 'V4' AND weight_variance = 2 AND bias_variance = 0 AND epsilon = 0.1 AND kernel_variance = 2\n"
    f"    AND kernel_correlation = 0.3 AND layer > 0\n    AND {IN_STUDY}\n"
    "ORDER BY activation, closure, closure_order, layer"
)


def atlas_figure(db: Database) -> PanelFigure:
    """Relative error of V4 against the exact leading order at C_W = 2, C_b = 0, eps = 0.1, K^0 = 2, rho = 0.3.

    Raises InputError where the database lacks these results.
    """
    errors = ask(db, SQL)
    lines = theory_lines(errors)
    ends = np.array([0.0, errors["time"].max()])
    panels = [
        Panel(
            "error of V<sub>4</sub>",
            (
                *(_curve(theory, lines[theory], rows[rows["theory"] == theory]) for theory in COST if theory in lines),
                Curve(f"tolerance {V4_TOLERANCE:.0%}", LIMIT, ends, np.full(2, V4_TOLERANCE)),
            ),
            title=str(activation),
            logarithmic=True,
        )
        for activation, rows in errors.groupby("activation", sort=False)
    ]
    return PanelFigure(
        "windows",
        "Relative error of V4 against the exact leading order over depth; C_W = 2, C_b = 0, epsilon = 0.1, two inputs"
        " of variance 2 and correlation 0.3.",
        in_rows(panels, COLUMNS),
        shared_values=True,
    )


def _curve(theory: str, line: dict[str, str], rows: pd.DataFrame) -> Curve:
    return Curve(theory, line, rows["time"].to_numpy(), rows["error"].to_numpy())
