"""Validity windows over two parameters, for the map and the intervals of the windows page.

``build_*`` functions read a database and use neither Streamlit nor Plotly. The docstring of each gives the number of
SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from db.reading.window_queries import THEORY, window_ends
from db.session import Database
from eftcore.quantities import ORDER
from eftcore.specs import CLOSURES
from eftcore.verdicts.together import state_together
from eftcore.words import window_text
from ui.data.naming import name_theories, theory_names
from ui.data.windows import WindowFilter, value_text, window_rows

MOST_INTERVALS = 600
"""Most windows that are drawn one by one; for more, the page asks for filters."""

STATES = ("beyond", "bounded", "undecided", "too_noisy")
"""Statuses of a window, which a cell counts."""


def build_intervals(db: Database, chosen: WindowFilter, across: str, by: str) -> pd.DataFrame:
    """At most MOST_INTERVALS windows, one row each, with their positions on the axes. One statement.

    The positions are the texts across and by, and their ranks across_rank and by_rank; runs is a tuple of the
    simulation, empty for another reference.
    """
    rows = name_theories(window_rows(db, chosen, limit=MOST_INTERVALS))
    return _on_axes(rows.assign(runs=_runs(rows)), across, by).reset_index(drop=True)


def build_cells(db: Database, chosen: WindowFilter, across: str, by: str) -> pd.DataFrame:
    """The cells of the map: one row per quantity and pair of values of two parameters. One statement.

    Columns quantity, across, by (texts) and their ranks; windows (number of windows), the number that has each of
    STATES, status (what they say together, see eftcore.verdicts.together), share and layers (medians, over windows that
    are resolved, of the certified part of T and of the last certified layer; 0 where nothing is certified, NaN where
    none is resolved), share_least and share_most (smallest and largest part), text (of a single window, its
    description), runs (ids of the simulations).
    """
    parameters = [name for name in dict.fromkeys((across, by)) if name != "closure"]
    found = window_ends(db, ["quantity", *parameters, *(THEORY if "closure" in (across, by) else ())], chosen.lists())
    share = (found["certified_until"] / found["total_time"]).fillna(0.0)
    resolved = found["status"] != "too_noisy"
    measured = {"share": share.where(resolved), "layer": (share * found["depth"]).astype(float).round().where(resolved)}
    rows = _on_axes(found.assign(**measured), across, by)
    cells = [_cell(group) for _, group in rows.groupby(["quantity", "across", "by"], sort=False)]
    return pd.DataFrame(cells)


def _cell(group: pd.DataFrame) -> dict[str, Any]:
    """One cell of the map, from its windows."""
    counts = {status: int((group["status"] == status).sum()) for status in STATES}
    first = group.iloc[0]
    return {
        **{name: first[name] for name in ("quantity", "across", "by", "across_rank", "by_rank")},
        "windows": len(group),
        **counts,
        "status": state_together(**counts),
        "share": group["share"].median(),
        "layers": group["layer"].median(),
        "share_least": group["share"].min(),
        "share_most": group["share"].max(),
        "text": window_text(first.to_dict()) if len(group) == 1 else "",
        "runs": tuple(dict.fromkeys(run for runs in _runs(group) for run in runs)),
    }


def _runs(rows: pd.DataFrame) -> pd.Series[Any]:
    """The simulation of each row, as a tuple of its id; empty where the reference is none."""
    found = [() if pd.isna(run) else (int(run),) for run in rows["simulation_run_id"]]
    return pd.Series(found, index=rows.index, dtype=object)


def _on_axes(rows: pd.DataFrame, across: str, by: str) -> pd.DataFrame:
    """Add the columns across and by, and sort by both."""
    texts: dict[str, list[str]] = {}
    keys: dict[str, pd.Series[Any]] = {}
    for axis, name in (("across", across), ("by", by)):
        if name == "closure":
            texts[axis] = theory_names(rows[list(THEORY)])
            keys[axis] = rows["closure"].map(CLOSURES.index) * 1000 + rows["closure_order"].fillna(0).astype(float)
        else:
            texts[axis] = [value_text(value) for value in rows[name]]
            keys[axis] = rows[name]
    order = pd.DataFrame({**keys, "quantity": rows["quantity"].map(ORDER)})
    order = order.sort_values(["quantity", "across", "by"], na_position="first")
    ranks = {f"{axis}_rank": order[axis].rank(method="dense", na_option="top") for axis in ("across", "by")}
    return rows.assign(**texts).loc[order.index].assign(**ranks)


def runs_of(picked: pd.DataFrame) -> list[int]:
    """Ids of the simulations of cells or windows, each once, in their order.

    >>> runs_of(pd.DataFrame({"runs": [(3, 5), (5, 4), ()]}))
    [3, 5, 4]
    """
    return list(dict.fromkeys(int(run) for runs in picked["runs"] for run in runs))
