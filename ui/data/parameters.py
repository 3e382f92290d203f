"""Which parameter decides how deep a theory holds: the frames behind the view "parameters" of the windows page.

``build_*`` functions read a database and use neither Streamlit nor Plotly. The docstring of each gives the number of
SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from db.reading.window_queries import THEORY, window_ends
from db.session import Database
from eftcore.quantities import ORDER
from eftcore.specs import CLOSURES
from eftcore.verdicts.sensitivity import full_grid, restricted_depths, variance_shares
from ui.data.naming import theory_names
from ui.data.windows import PARAMETERS, WindowFilter, value_text
from ui.notation import CONFIGURATION, SETTINGS, number

_NO_PARAMETERS = ("closure", "total_time", "kernel_label")
"""Columns that are no parameters of a network of their own: T is epsilon^2 L, and a label repeats numbers."""


def build_depths(db: Database, chosen: WindowFilter, parameters: Sequence[str]) -> pd.DataFrame:
    """The restricted depth min(t*, H) of every window, with what it is known of: one statement.

    Columns are the ``parameters``, quantity, theory, closure, status, total_time, horizon (H, the smallest T of these
    windows, the same for all), low and high (bounds of the depth, NaN where the reference tells nothing), depth (their
    middle).
    """
    named = [name for name in parameters if name not in _NO_PARAMETERS]
    rows = window_ends(db, ["quantity", *THEORY, *named], chosen.lists())
    horizon = float(rows["total_time"].min())
    low, high = restricted_depths(rows, horizon)
    kept = rows[list(dict.fromkeys([*named, "quantity", "closure", "status", "total_time"]))]
    found = kept.assign(theory=theory_names(rows[list(THEORY)]), horizon=horizon, low=low, high=high)
    found["middle"] = (found["low"] + found["high"]) / 2
    order = found["closure"].map(CLOSURES.index)
    return found.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def parameters_of(depths: pd.DataFrame) -> list[str]:
    """The parameters in which these windows differ, in the order of tables."""
    there = [name for name in PARAMETERS if name in depths and name not in _NO_PARAMETERS]
    return [name for name in there if depths[name].nunique(dropna=False) > 1]


def shares_of(depths: pd.DataFrame) -> pd.DataFrame:
    """Shares of the variance of the depth (eftcore.verdicts.sensitivity) of one theory and quantity, with symbols."""
    known = depths.dropna(subset=["low"])
    values = {symbol(name): known[name].tolist() for name in parameters_of(known)}
    return variance_shares(values, known["low"].to_numpy(), known["high"].to_numpy())


def said_of_shares(depths: pd.DataFrame) -> str:
    """What the shares rest on: how many windows are exact, bounds or unknown, and whether the design is complete."""
    known = depths.dropna(subset=["low"])
    horizon = float(depths["horizon"].iloc[0])
    beyond = int((known["low"] >= horizon).sum())
    told = [
        f"{len(known)} windows; of {beyond} only t* ≥ {number(horizon)} is known (the smallest T), which counts as "
        f"{number(horizon)}: shares are of min(t*, {number(horizon)})"
    ]
    if len(known) < len(depths):
        told.append(f"{len(depths) - len(known)} more are not resolved and left out")
    if not full_grid({name: known[name].tolist() for name in parameters_of(known)}):
        told.append(
            "the configurations are no full grid: parameters that vary together share what they explain, and "
            "first-order shares may add up to more than 1"
        )
    return "; ".join(told) + "."


def shares_table(shares: pd.DataFrame) -> pd.DataFrame:
    """Shares as texts, in per cent with standard errors."""
    return pd.DataFrame(
        {
            "parameter": shares["parameter"],
            "levels": shares["levels"],
            "alone / %": [_percent(*row) for row in zip(shares["first_order"], shares["first_order_se"], strict=True)],
            "with others / %": [_percent(*row) for row in zip(shares["total"], shares["total_se"], strict=True)],
            "alone by chance / %": [f"{100 * value:.0f}" for value in shares["by_chance"]],
            "compared": [f"{100 * value:.0f} %" for value in shares["compared"]],
        }
    )


def _percent(share: float, error: float) -> str:
    if np.isnan(share):
        return "—"
    return f"{100 * share:.0f} ± {'?' if np.isnan(error) else f'{100 * error:.0f}'}"


def averages(depths: pd.DataFrame, across: str) -> pd.DataFrame:
    """Mean of the depth over configurations, and its spread, for each theory, quantity and value of a parameter.

    Columns quantity, theory, across (text), across_rank, windows (known ones), mean, spread (standard deviation over
    configurations, NaN for one), least, most, beyond (how many are only known to be beyond the horizon), unknown.
    """
    theories = depths["theory"].drop_duplicates().tolist()
    rank = depths[across].rank(method="dense", na_option="top")
    rows = depths.assign(
        across=[value_text(value) for value in depths[across]],
        across_rank=rank,
        beyond=depths["low"] >= depths["horizon"],
        unknown=depths["low"].isna(),
    )
    grouped = rows.groupby(["quantity", "theory", "across", "across_rank"], sort=False)
    found = grouped.agg(
        windows=("middle", "count"),
        mean=("middle", "mean"),
        spread=("middle", "std"),
        least=("middle", "min"),
        most=("middle", "max"),
        beyond=("beyond", "sum"),
        unknown=("unknown", "sum"),
    )
    found = found.reset_index()
    keys = {"quantity": found["quantity"].map(ORDER), "place": found["theory"].map(theories.index)}
    order = found[["across_rank"]].assign(**keys).sort_values(["quantity", "place", "across_rank"])
    return found.loc[order.index].reset_index(drop=True)


def averages_table(found: pd.DataFrame, title: str) -> pd.DataFrame:
    """Averages as a table of numbers."""
    titles = {
        "quantity": "quantity",
        "theory": "theory",
        "across": title,
        "windows": "windows",
        "mean": "mean t*",
        "spread": "s.d. over configurations",
        "least": "least",
        "most": "most",
        "beyond": "only bounded below",
        "unknown": "not resolved",
    }
    return found[list(titles)].rename(columns=titles)


def symbol(name: str) -> str:
    """The usual symbol of a parameter.

    >>> symbol("weight_variance"), symbol("kernel_correlation")
    ('C_W', 'kernel correlation')
    """
    return {**CONFIGURATION, **SETTINGS}.get(name, name.replace("_", " "))
