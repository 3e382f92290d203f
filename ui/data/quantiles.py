"""The kernel of one network, on the run page: quantiles as simulated, and by the law from theory.

The docstring of each ``build_*`` function gives the number of SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from db.reading import queries
from db.session import Database
from ui.notation import number, rounded


def build_quantiles(db: Database, simulation_run_id: int, components: list[str] | None = None) -> pd.DataFrame:
    """Quantiles of these diagonal entries, or of all, of one simulation: v_quantiles. One statement."""
    return queries.quantiles(db, simulation_run_id=simulation_run_id, component=components)


def agreement_text(rows: pd.DataFrame) -> str:
    """How many quantiles of the law lie within the bounds of the simulated ones, and how far off it is at most.

    >>> frame = pd.DataFrame({"value": [2.0, 4.0], "low": [1.9, 3.9], "high": [2.1, 4.1], "law": [2.05, 4.4]})
    >>> agreement_text(frame)
    'Of 2 quantiles with bounds 1 have the law within them; it is off by up to 10 %.'
    """
    known = rows.dropna(subset=["law", "low", "high"])
    within = int(known["law"].between(known["low"], known["high"]).sum())
    most = ((rows["law"] - rows["value"]).abs() / rows["value"]).max()
    return (
        f"Of {len(known)} quantiles with bounds {within} have the law within them; it is off by up to"
        f" {number(100 * float(most), 2)} %."
    )


def quantiles_table(rows: pd.DataFrame, time: float) -> pd.DataFrame:
    """Quantiles at one recorded t, as texts: simulated, its 95 % bounds, by the law if any; a row per probability."""
    table = pd.DataFrame(
        [
            {
                "component": row["component"],
                "probability": number(row["probability"]),
                "simulated": rounded(row["value"], _spread(row)),
                "95 % bounds": f"{rounded(row['low'], _spread(row))} … {rounded(row['high'], _spread(row))}",
                "by the law": rounded(row["law"], _spread(row)),
                "the law lies": _place(row),
            }
            for row in rows[rows["time"] == time].to_dict("records")
        ]
    )
    return table if rows["law"].notna().any() else table.drop(columns=["by the law", "the law lies"])


def _spread(row: dict[Any, Any]) -> float:
    """The standard error of a simulated quantile, by its bounds."""
    return float(row["high"] - row["low"]) / 4


def _place(row: dict[Any, Any]) -> str:
    """Where the law's quantile lies with respect to the bounds of the simulated one."""
    if row["law"] < row["low"]:
        return "below"
    if row["law"] > row["high"]:
        return "above"
    return "within" if row["low"] <= row["law"] <= row["high"] else "—"
