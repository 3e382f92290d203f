"""The frames behind the windows page, and the names of configurations and theories.

``build_*`` functions read a database and know nothing of Streamlit or Plotly. Each says how many SQL statements it
costs; the tests hold it to that.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from db import queries
from db.session import Database
from eftcore.specs import CLOSURES
from ui.notation import CONFIGURATION, QUANTITIES, configuration_text, window_text

PAGE_ROWS = 60
"""Windows on one page of the table and its chart."""


@dataclass(frozen=True, kw_only=True)
class WindowFilter:
    """Which windows to show: an empty tuple restricts nothing; the tolerance is always one, so that bars compare."""

    tolerance: float
    activation: tuple[str, ...] = ()
    closure: tuple[str, ...] = ()
    quantity: tuple[str, ...] = ()

    def lists(self) -> dict[str, Any]:
        """Column of v_windows: the values allowed in it, where it is restricted."""
        named = {"tolerance": (self.tolerance,), "activation": self.activation}
        named |= {"closure": self.closure, "quantity": self.quantity}
        return {name: values for name, values in named.items() if values}


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """Which values stored windows take, and how many windows each combination has.

    Attributes:
        counts: activation, closure, quantity, tolerance, windows.
    """

    counts: pd.DataFrame

    @property
    def activations(self) -> list[str]:
        """In alphabetical order."""
        return sorted(self.counts["activation"].unique())

    @property
    def closures(self) -> list[str]:
        """From the crudest to the finest."""
        return sorted(self.counts["closure"].unique(), key=CLOSURES.index)

    @property
    def quantities(self) -> list[str]:
        """In reading order."""
        return [name for name in QUANTITIES if name in set(self.counts["quantity"])]

    @property
    def tolerances(self) -> list[float]:
        """From the strictest up."""
        return sorted(self.counts["tolerance"].unique().tolist())

    @property
    def default_tolerance(self) -> float:
        """5 % where it was asked for, else the middle one."""
        return 0.05 if 0.05 in self.tolerances else self.tolerances[len(self.tolerances) // 2]

    def total(self, chosen: WindowFilter) -> int:
        """How many windows match."""
        keep = self.counts.isin({name: list(values) for name, values in chosen.lists().items()})
        return int(self.counts.loc[keep[list(chosen.lists())].all(axis=1), "windows"].sum())


@dataclass(frozen=True, kw_only=True)
class WindowsView:
    """One page of windows.

    Attributes:
        windows: columns of v_windows, with configuration and theory (text) added; for the figure.
        table: what the table shows: only configuration columns that differ.
        common: the configuration columns that do not, in words.
    """

    windows: pd.DataFrame
    table: pd.DataFrame
    common: str


def build_window_options(db: Database) -> WindowOptions:
    """Filters of the windows page. One statement."""
    counts = queries.select(
        db,
        "SELECT activation, closure, quantity, tolerance, count(*) AS windows"
        " FROM v_windows GROUP BY activation, closure, quantity, tolerance",
    )
    return WindowOptions(counts=counts)


def build_windows(db: Database, chosen: WindowFilter, page: int = 1) -> WindowsView:
    """One page of matching windows. One statement."""
    rows = queries.windows(db, **chosen.lists(), limit=PAGE_ROWS, offset=(page - 1) * PAGE_ROWS)
    windows = in_reading_order(name_configurations(name_theories(rows)))
    common, differing = split_columns(windows)
    return WindowsView(windows=windows, table=windows_table(windows, differing), common=common)


def split_columns(rows: pd.DataFrame) -> tuple[str, list[str]]:
    """The configuration columns that are the same in all rows, in words, and the names of those that differ."""
    differing = [column for column in CONFIGURATION if rows[column].nunique(dropna=False) > 1]
    same = [column for column in CONFIGURATION if column not in differing]
    return configuration_text(rows.iloc[0].to_dict(), same), differing


def name_theories(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the column theory: the closure, with its order, and with its nodes where a fixed rule was used."""
    names = [
        theory_name(closure, order, nodes)
        for closure, order, nodes in zip(rows["closure"], rows["closure_order"], rows["nodes"], strict=True)
    ]
    return _tell_apart(rows.assign(theory=names), "theory", "prediction_run_id", within="simulation_run_id")


def theory_name(closure: str, order: float | None, nodes: float | None) -> str:
    """A prediction in two words.

    >>> theory_name("g_only", None, None), theory_name("wick", 8, None), theory_name("g_only", None, 32)
    ('g_only', 'wick m=8', 'g_only 32-node')
    """
    name = closure if pd.isna(order) else f"{closure} m={order:.0f}"
    return name if pd.isna(nodes) else f"{name} {nodes:.0f}-node"


def name_configurations(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the column configuration: one line of what differs between the rows."""
    _, differing = split_columns(rows)
    names = [configuration_text(row, differing) for row in rows[differing].to_dict("records")]
    return _tell_apart(rows.assign(configuration=names), "configuration", "simulation_run_id")


def in_reading_order(windows: pd.DataFrame) -> pd.DataFrame:
    """Configurations as they come, in each the closures from the crudest to the finest, quantities in reading order."""
    keys = pd.DataFrame(
        {
            "configuration": pd.factorize(windows["configuration"])[0],
            "closure": windows["closure"].map(CLOSURES.index),
            "quantity": windows["quantity"].map(QUANTITIES.index),
            "tolerance": windows["tolerance"],
            "prediction_run_id": windows["prediction_run_id"],
        }
    )
    return windows.loc[keys.sort_values(keys.columns.tolist()).index].reset_index(drop=True)


def _tell_apart(rows: pd.DataFrame, name: str, identity: str, within: str | None = None) -> pd.DataFrame:
    """Append the run's number to names that several runs would share."""
    keys: list[Hashable] = [name] if within is None else [within, name]
    shared = rows.groupby(keys, sort=False)[identity].transform("nunique") > 1
    numbered = [
        f"{text} · run {run_id}".removeprefix(" · ") for text, run_id in zip(rows[name], rows[identity], strict=True)
    ]
    renamed = rows.copy()
    renamed[name] = rows[name].where(~shared, pd.Series(numbered, index=rows.index))
    return renamed


def windows_table(windows: pd.DataFrame, differing: list[str]) -> pd.DataFrame:
    """The table of windows (named by name_theories), after the configuration columns ``differing``."""
    table = windows[differing].rename(columns=CONFIGURATION)
    table["theory"] = windows["theory"]
    table["quantity"] = windows["quantity"]
    table["window t*"] = [window_text(row) for row in windows.to_dict("records")]
    table["certified until"] = windows["certified_until"]
    table["refuted from"] = windows["refuted_from"]
    table["T"] = windows["total_time"]
    table["status"] = windows["status"]
    table["M"] = windows["samples"]
    table.insert(0, "run", windows["simulation_run_id"].map("run?simulation={}".format))
    return table
