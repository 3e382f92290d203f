"""The plane of depth and width: where each theory's V4 stays within a tolerance, by theory and by simulations.

At width n V4 is V4 + D/n + O(1/n^2). The border of the leading order and of each closure follows from V4 and D
(docs/theory.md, eq. 9.8). That of the next order, V4 + D/n, is known to its size alone: it leaves out about
(D / (n V4))^2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from db.session import Database
from eftcore.ensemble.bands import NORMAL
from ui.figures.panels import Curve, Panel, PanelFigure, in_rows
from ui.figures.style import CLOSURE_LINE, INK, VERMILION
from ui.notation import number
from ui.reports.atlas.study import ask, in_study

STUDY = "plane"
TOLERANCE = 0.05
COLUMNS = 3

LABELS = {"g_only": "g_only", "sigma": "sigma", "exact": "exact leading order"}
NEXT = "next order (D / nV<sub>4</sub>)² = tolerance"
NEXT_LINE = {"color": INK, "dash": "dot"}

MOST_POINTS = 8
"""Depths at which simulations are drawn in a panel."""

WINDOWS = (
    "SELECT activation, closure, reference_kind, layer, time, width, width_low, width_high, status\n"
    f"FROM v_width_windows\nWHERE quantity = 'V4' AND tolerance = {TOLERANCE} AND layer > 0\n"
    f"    AND {in_study(STUDY)}\n"
    "ORDER BY activation, closure, reference_kind, layer"
)

NEXT_ORDER = (
    "SELECT v.activation, v.width, v.layer, v.time, v.simulated, v.simulated_se, v.predicted,\n"
    "    d.predicted AS next_order\n"
    "FROM v_trajectories v JOIN v_trajectories d\n"
    "    ON d.prediction_run_id = v.prediction_run_id AND d.simulation_run_id = v.simulation_run_id\n"
    "    AND d.layer = v.layer AND d.component = v.component AND d.quantity = 'D'\n"
    "WHERE v.quantity = 'V4' AND v.component = '00,00' AND v.layer > 0 AND v.closure = 'exact'\n"
    f"    AND v.{in_study(STUDY)}\n    AND v.{in_study(STUDY, 'simulation_run_id')}\n"
    "ORDER BY v.activation, v.layer, v.width"
)

COST = (
    "SELECT activation, time,\n"
    "    MAX(CASE WHEN reference_kind = 'theory' THEN width END) AS neurons,\n"
    "    MAX(CASE WHEN reference_kind = 'theory' THEN width_low END) AS at_least,\n"
    "    MAX(CASE WHEN reference_kind = 'theory' THEN width_high END) AS at_most,\n"
    "    MAX(CASE WHEN reference_kind = 'simulation' THEN width_low END) AS simulation_fails_at,\n"
    "    MAX(CASE WHEN reference_kind = 'simulation' THEN width_high END) AS simulation_holds_at\n"
    f"FROM v_width_windows\nWHERE closure = 'exact' AND quantity = 'V4' AND tolerance = {TOLERANCE}\n"
    f"    AND layer > 0 AND layer * 4 % depth = 0\n    AND {in_study(STUDY)}\n"
    "GROUP BY activation, time\nORDER BY activation, time"
)


def plane_figure(db: Database) -> PanelFigure:
    """The width from which on each theory's V4 is within 5 %, over depth, one panel for each activation.

    Lines are theory; bars are simulations: V4 is off by more than the tolerance at the width of the lower end, and by
    less at that of the upper end and all larger ones. Raises InputError where the database lacks these results.
    """
    following = dict(iter(ask(db, NEXT_ORDER).groupby("activation")))
    panels = [
        Panel(
            "width n",
            (*_borders(rows, following[name]), *_simulated(rows, following[name])),
            title=str(name),
            logarithmic=True,
        )
        for name, rows in ask(db, WINDOWS).groupby("activation", sort=False)
    ]
    return PanelFigure(
        "plane",
        f"From which width on a theory's V4 stays within {TOLERANCE:.0%} over depth t; C_W = 2, C_b = 0, epsilon = 0.1,"
        " one input of variance 2. A theory can be trusted above its line. Bars: simulations of many widths, which are"
        " beyond the tolerance at the lower end and within it from the upper end on.",
        in_rows(panels, COLUMNS),
        shared_values=True,
    )


def _borders(windows: pd.DataFrame, following: pd.DataFrame) -> Iterable[Curve]:
    theory = windows[windows["reference_kind"] == "theory"]
    for closure, label in LABELS.items():
        rows = theory[theory["closure"] == closure]
        yield Curve(label, CLOSURE_LINE[closure], rows["time"].to_numpy(), rows["width"].to_numpy(dtype=float))
    once = following.drop_duplicates("layer")
    size = (once["next_order"] / once["predicted"]).abs().to_numpy() / TOLERANCE**0.5
    yield Curve(NEXT, NEXT_LINE, once["time"].to_numpy(), np.maximum(size, 1.0))


def _simulated(windows: pd.DataFrame, following: pd.DataFrame) -> Iterable[Curve]:
    simulated = windows[(windows["reference_kind"] == "simulation") & (windows["closure"] == "exact")]
    yield _bars("exact leading order, simulated", VERMILION, simulated)
    yield _bars("next order, simulated", INK, next_order_widths(following))


def _bars(label: str, color: str, rows: pd.DataFrame) -> Curve:
    rows = rows.dropna(subset=["width_low", "width_high"])
    rows = rows.iloc[:: max(1, -(-len(rows) // MOST_POINTS))]
    low, high = (rows[name].to_numpy(dtype=float) for name in ("width_low", "width_high"))
    middle = np.sqrt(low * high)
    return Curve(
        label, {"color": color}, rows["time"].to_numpy(), middle, np.stack([middle - low, high - middle]), "points"
    )


def next_order_widths(rows: pd.DataFrame) -> pd.DataFrame:
    """Between which simulated widths V4 + D/n comes within the tolerance, for each depth.

    ``rows`` has a row for each layer and width, with the columns of ``NEXT_ORDER``. Returns time, width_low (the widest
    at which it is surely off by more than the tolerance) and width_high (the narrowest from which on it surely is not);
    NaN where there is none. Each statement holds with 95 %.
    """
    found: list[dict[str, Any]] = []
    for time, part in rows.sort_values("width").groupby("time"):
        width, value, error = (part[name].to_numpy(dtype=float) for name in ("width", "simulated", "simulated_se"))
        off = np.abs(part["predicted"].to_numpy() + part["next_order"].to_numpy() / width - value)
        fails = off - NORMAL * error > TOLERANCE * value
        holds = off + NORMAL * error <= TOLERANCE * value
        unsure = width[~holds].max(initial=0.0)
        found.append(
            {
                "time": time,
                "width_low": width[fails].max() if fails.any() else np.nan,
                "width_high": width[width > unsure].min() if (width > unsure).any() else np.nan,
            }
        )
    return pd.DataFrame(found, columns=["time", "width_low", "width_high"])


def cost(table: pd.DataFrame) -> Iterable[str]:
    """Sentences on how many neurons per layer each activation needs, and whether simulations agree."""
    last = table[table["time"] == table["time"].max()].sort_values("neurons")
    parts = [f"{row.activation} {number(row.neurons, 3)}" for row in last.itertuples()]
    yield (
        f"For the exact leading order of V4 within {TOLERANCE:.0%} at t = {number(float(last['time'].iloc[0]))} a layer"
        f" needs this many neurons: {', '.join(parts)}."
    )
    bounded = table.dropna(subset=["simulation_fails_at", "simulation_holds_at"])
    inside = (bounded["at_most"] >= bounded["simulation_fails_at"]) & (
        bounded["at_least"] <= bounded["simulation_holds_at"]
    )
    yield (
        f"Simulations bound this width from both sides in {len(bounded)} of the {len(table)} rows below; in"
        f" {int(inside.sum())} of these theory's range meets theirs."
    )
