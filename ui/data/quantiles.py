"""The kernel of one network, on the run page: quantiles as simulated, and by the law from theory.

The docstring of each ``build_*`` function gives the number of SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from db.reading import queries
from db.reading.stored_results import stored_results
from db.session import Database
from eftcore.errors import InputError, LawWarning
from eftcore.results import Theory
from eftcore.theory.next_order.law import KernelLaw, Law, kernel_law
from ui.notation import number, rounded

NO_NEXT_ORDER = (
    "The law from theory needs the next order in 1/n of this network, which is not stored: run a study whose closures"
    ' hold { name = "exact", next_order = true }.'
)
OUT_OF_RANGE = (
    "The law was not measured for networks like this one everywhere; its intervals may be wrong at {} of {} t."
)


@dataclass(frozen=True, eq=False)
class Compared:
    """Quantiles of a simulation beside those of the law from theory.

    Attributes:
        rows: v_quantiles with the column law, NaN where there is none.
        run_id: the prediction that the law follows from; None without a law.
        said: why there is no law, or where it may be wrong; empty if neither.
    """

    rows: pd.DataFrame
    run_id: int | None
    said: str


def build_quantiles(db: Database, simulation_run_id: int, components: list[str] | None = None) -> pd.DataFrame:
    """Quantiles of these diagonal entries, or of all, of one simulation: v_quantiles. One statement."""
    return queries.quantiles(db, simulation_run_id=simulation_run_id, component=components)


def build_compared(db: Database, simulated: pd.DataFrame) -> Compared:
    """The rows of build_quantiles with the law from theory at the same layers and probabilities.

    It follows from a stored prediction of the same configuration by the exact closure with its next order: the newest
    that is not superseded, and layer by layer rather than in continuous depth. Two statements at most.
    """
    without = simulated.assign(law=np.nan)
    if simulated.empty:
        return Compared(without, None, "")
    configuration, width = (int(simulated[name].iloc[0]) for name in ("configuration_id", "width"))
    runs = queries.runs(
        db, kind="prediction", status="succeeded", closure="exact", configuration_id=configuration
    ).query("next_order")
    if runs.empty:
        return Compared(without, None, NO_NEXT_ORDER)
    best = runs.sort_values(["superseded", "continuous", "run_id"], ascending=[True, True, False])
    run_id = int(best["run_id"].iloc[0])
    theory = stored_results(db, [run_id])[run_id]
    assert isinstance(theory, Theory)
    try:
        law = kernel_law(theory, width)
    except InputError:
        said = f"Run {run_id} was recorded without T, which the law needs: delete it and run its study again."
        return Compared(without, None, said)
    return _compared(simulated, law, run_id)


def _compared(simulated: pd.DataFrame, law: KernelLaw, run_id: int) -> Compared:
    found = pd.Series(np.nan, index=simulated.index)
    outside: set[int] = set()
    absent: dict[str, str] = {}
    places = simulated[["component", "layer"]].drop_duplicates()
    for component, layer in zip(places["component"], places["layer"], strict=True):
        rows = simulated[(simulated["component"] == component) & (simulated["layer"] == layer)]
        try:
            entry = _entry(law, component, int(layer))
        except InputError as error:
            absent[component] = error.reason
            continue
        found[rows.index] = entry.quantile(rows["probability"].to_numpy())
        if not entry.in_range:
            outside.add(int(layer))
    said = [f"No law of G{component} everywhere: {reason}." for component, reason in absent.items()]
    if outside:
        said.append(OUT_OF_RANGE.format(len(outside), simulated["layer"].nunique()))
    return Compared(simulated.assign(law=found), run_id, " ".join(said))


def _entry(law: KernelLaw, component: str, layer: int) -> Law:
    """The law of a diagonal entry such as "00" or "12-12"; whether it is in range is asked of it, not of warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        return law.entry(int(component[: len(component) // 2]), layer=layer)


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
