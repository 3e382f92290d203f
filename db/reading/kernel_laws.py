"""Simulated quantiles of the kernel of one network beside those of its law from theory (docs/theory.md, 10.2).

The law is not stored, since it follows from a stored prediction of the exact closure with its next order.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from db.reading import queries
from db.reading.stored_results import stored_results
from db.session import Database
from eftcore.errors import InputError, LawWarning
from eftcore.results import Theory
from eftcore.theory.next_order.law import KernelLaw, Law, kernel_law

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
        rows: v_quantiles with the columns law, the quantile by the law, and law_probability, the probability that the
            law gives to networks below the simulated quantile; both NaN where there is none.
        run_id: the prediction that the law follows from; None without a law.
        said: why there is no law, or where it may be wrong; empty if neither.
    """

    rows: pd.DataFrame
    run_id: int | None
    said: str


def quantiles_beside_law(db: Database, simulated: pd.DataFrame) -> Compared:
    """The rows of v_quantiles of one simulation with the law from theory at the same layers and probabilities.

    It follows from a stored prediction of the same configuration by the exact closure with its next order: the newest
    that is not superseded, and layer by layer rather than in continuous depth. Two statements at most.
    """
    without = simulated.assign(law=np.nan, law_probability=np.nan)
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
    found, below = (pd.Series(np.nan, index=simulated.index) for _ in range(2))
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
        below[rows.index] = entry.cdf(rows["value"].to_numpy())
        if not entry.in_range:
            outside.add(int(layer))
    said = [f"No law of G{component} everywhere: {reason}." for component, reason in absent.items()]
    if outside:
        said.append(OUT_OF_RANGE.format(len(outside), simulated["layer"].nunique()))
    return Compared(simulated.assign(law=found, law_probability=below), run_id, " ".join(said))


def _entry(law: KernelLaw, component: str, layer: int) -> Law:
    """The law of a diagonal entry such as "00" or "12-12"; whether it is in range is asked of it, not of warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        return law.entry(int(component[: len(component) // 2]), layer=layer)
