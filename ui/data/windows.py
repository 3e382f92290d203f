"""The frames behind the windows page.

``build_*`` functions read a database and use neither Streamlit nor Plotly. The docstring of each gives the number of
SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pandas as pd

from db.reading.window_queries import THEORY, window_cells, window_counts, window_page
from db.session import Database
from eftcore.quantities import ORDER, QUANTITIES
from eftcore.specs import CLOSURES
from eftcore.words import window_text
from ui.data.naming import in_reading_order, name_configurations, name_theories, theory_names
from ui.data.predict import MOST_INPUTS
from ui.notation import CONFIGURATION, SETTINGS, number

PAGE_ROWS = 50
"""Number of windows on one page of the table and of the bars."""

MOST_INTERVALS = 600
"""Most windows that are drawn one by one; for more, the page asks for filters."""

PARAMETERS = {
    "closure": "closure",
    "activation": "activation σ",
    "weight_variance": "weight variance C_W",
    "bias_variance": "bias variance C_b",
    "block": "block",
    "normalisation": "normalisation",
    "hidden_ratio": "hidden ratio m/n",
    "hidden_weight_variance": "hidden weight variance C_1",
    "hidden_bias_variance": "hidden bias variance C_b1",
    "epsilon": "branch size ε",
    "depth": "layers L",
    "total_time": "total time T",
    "n_inputs": "inputs N",
    "kernel_label": "input kernel K⁰",
    "kernel_variance": "variance of K⁰",
    "kernel_correlation": "correlation of K⁰",
    "width": "width n",
    "samples": "networks M",
    **SETTINGS,
}
"""Columns of v_windows that may be an axis or a filter, in the order in which the page lists them."""

_REFERENCE = ["reference_order" if name == "closure_order" else f"reference_{name}" for name in THEORY]
"""Columns that describe the reference theory as THEORY describes a prediction; v_windows has all but one of them."""

SORT = {
    "configuration": None,
    "certified until": "certified_until",
    "refuted from": "refuted_from",
    "status": "status",
    "T": "total_time",
    "σ": "activation",
    "C_W": "weight_variance",
    "C_b": "bias_variance",
    "ε": "epsilon",
    "L": "depth",
    "N": "n_inputs",
    "K⁰": "kernel_label",
    "n": "width",
    "M": "samples",
    "theory": "closure",
    "quantity": "quantity",
}
"""Columns by which the table can be sorted, each with the column of v_windows that it shows."""


_PREDICT = {
    "sigma": "activation",
    "C_W": "weight_variance",
    "C_b": "bias_variance",
    "eps": "epsilon",
    "T": "total_time",
    "N": "n_inputs",
    "variance": "kernel_variance",
    "correlation": "kernel_correlation",
}
"""Parameters in the URL of the predict page, each with the column of v_windows that gives its value."""

_PREDICT_BRANCH = {
    "block": "block",
    "norm": "normalisation",
    "ratio": "hidden_ratio",
    "C_1": "hidden_weight_variance",
    "C_b1": "hidden_bias_variance",
}
"""The same for what a residual branch with two matrices is."""


@dataclass(frozen=True, kw_only=True)
class WindowFilter:
    """Which windows to show: those of one tolerance, so that they can be compared; other columns may be restricted.

    Attributes:
        tolerance: the tolerance tau.
        reference_kind: what the predictions are compared with, "simulation", "theory" or "measurement".
        allowed: allowed values by column of v_windows; an empty sequence restricts nothing.
    """

    tolerance: float
    reference_kind: str = "simulation"
    allowed: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def lists(self) -> dict[str, Sequence[Any]]:
        """Allowed values by column of v_windows, for the columns that are restricted."""
        chosen = {"tolerance": (self.tolerance,), "reference_kind": (self.reference_kind,)}
        return {**chosen, **{name: values for name, values in self.allowed.items() if values}}


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """The values that occur in stored windows, and the number of windows for each combination of values.

    Attributes:
        counts: a frame with columns reference_kind, quantity, tolerance, those of PARAMETERS, and windows.
    """

    counts: pd.DataFrame

    @property
    def parameters(self) -> list[str]:
        """The columns of PARAMETERS that have a value in these windows: a theory as the reference has no width."""
        return [name for name in PARAMETERS if self.counts[name].notna().any()]

    @property
    def closures(self) -> list[str]:
        """The closures, from the crudest to the finest."""
        return sorted(self.counts["closure"].unique(), key=CLOSURES.index)

    @property
    def quantities(self) -> list[str]:
        """The quantities, in the order in which tables list them."""
        return [name for name in QUANTITIES if name in set(self.counts["quantity"])]

    @property
    def tolerances(self) -> list[float]:
        """The tolerances, the smallest first."""
        return sorted(self.counts["tolerance"].unique().tolist())

    @property
    def default_tolerance(self) -> float:
        """The tolerance shown first: 5 % if it occurs, else the middle one."""
        return 0.05 if 0.05 in self.tolerances else self.tolerances[len(self.tolerances) // 2]

    def values(self, name: str) -> list[Any]:
        """Sorted values of a parameter, without absent ones."""
        found = self.counts[name].dropna().unique().tolist()
        return sorted(found, key=CLOSURES.index if name == "closure" else None)

    @property
    def differing(self) -> list[str]:
        """Parameters with more than one value, and the closure; without a label that only repeats numbers."""
        names = [name for name in self.parameters if name == "closure" or self.counts[name].nunique(dropna=False) > 1]
        numbers = ["n_inputs", "kernel_variance", "kernel_correlation"]
        said = len(self.counts[numbers].drop_duplicates()) == len(
            self.counts[[*numbers, "kernel_label"]].drop_duplicates()
        )
        return [name for name in names if name != "kernel_label" or not said]

    def matching(self, chosen: WindowFilter) -> pd.DataFrame:
        """The rows of ``counts`` that satisfy a filter."""
        keep = self.counts.isin({name: list(values) for name, values in chosen.lists().items()})
        return self.counts[keep[list(chosen.lists())].all(axis=1)]


@dataclass(frozen=True, kw_only=True)
class WindowsView:
    """One page of windows.

    Attributes:
        windows: rows of v_windows with the texts configuration and theory added, for the figure.
        table: the rows as the table shows them.
    """

    windows: pd.DataFrame
    table: pd.DataFrame


def build_window_options(db: Database, reference_kind: str = "simulation") -> WindowOptions:
    """The values for the filters of the windows page. One statement."""
    columns = ["reference_kind", "quantity", "tolerance", *PARAMETERS]
    return WindowOptions(counts=window_counts(db, columns, {"reference_kind": (reference_kind,)}))


def build_windows(
    db: Database,
    chosen: WindowFilter,
    differing: Sequence[str],
    page: int = 1,
    sort: str = "configuration",
    descending: bool = False,
) -> WindowsView:
    """One page of matching windows; the table shows the configuration columns ``differing``. One statement."""
    offset = (page - 1) * PAGE_ROWS
    place = {"limit": PAGE_ROWS, "offset": offset}
    rows = _window_page(db, chosen, order=SORT[sort], descending=descending, **place)
    windows = name_configurations(name_theories(rows))
    if SORT[sort] is None:
        windows = in_reading_order(windows)
    return WindowsView(windows=windows, table=windows_table(windows, differing))


def build_intervals(db: Database, chosen: WindowFilter, across: str, by: str) -> pd.DataFrame:
    """At most MOST_INTERVALS windows, one row each, with their positions on the axes. One statement.

    The positions are the texts across and by, and their ranks across_rank and by_rank.
    """
    rows = name_theories(_window_page(db, chosen, limit=MOST_INTERVALS))
    return _on_axes(rows, across, by).reset_index(drop=True)


def build_cells(db: Database, chosen: WindowFilter, across: str, by: str) -> pd.DataFrame:
    """The cells of the map: one row per quantity and pair of values of two parameters. One statement.

    Columns quantity, across, by (texts) and their ranks; windows (number of windows), unresolved (number of those that
    are too_noisy), certified_until and status (of the window with the smallest certified depth; too_noisy where none is
    resolved), certified_most, resolved_from, refuted_from, total_time, text (for a single window, its description),
    link (to the run of one simulation, see link_to; empty for a theory as reference).
    """
    parameters = [name for name in dict.fromkeys((across, by)) if name != "closure"]
    columns = ["quantity", *parameters, *(THEORY if "closure" in (across, by) else ())]
    found = window_cells(db, columns, chosen.lists())
    links = [_run_link(run) for run in found["simulation_run_id"]]
    rows = _on_axes(found.assign(link=links), across, by)
    cells = [_cell(group) for _, group in rows.groupby(["quantity", "across", "by"], sort=False)]
    return pd.DataFrame(cells)


def _cell(group: pd.DataFrame) -> dict[str, Any]:
    """One cell of the map, from its rows, one for each status."""
    noisy = group["status"] == "too_noisy"
    resolved = group[~noisy]
    first = (group if resolved.empty else resolved.sort_values("certified_least", na_position="first")).iloc[0]
    cell = {name: first[name] for name in group.columns if name not in ("windows", "certified_most")}
    cell |= {
        "windows": int(group["windows"].sum()),
        "unresolved": int(group.loc[noisy, "windows"].sum()),
        "certified_until": first["certified_least"],
        "certified_most": resolved["certified_most"].max(),
        "refuted_from": first["refuted_least"],
    }
    return {**cell, "text": window_text(cell)}


def _window_page(db: Database, chosen: WindowFilter, **place: Any) -> pd.DataFrame:
    """One page of rows of v_windows, with the column link added: to the simulation, else to the predict page."""
    rows = window_page(db, chosen.lists(), **place)
    links = [_run_link(row["simulation_run_id"]) or _prediction_link(row) for row in rows.to_dict("records")]
    return rows.assign(link=links)


def _run_link(simulation_run_id: Any) -> str:
    """Link to the run page of a simulation; empty where the reference is none."""
    return "" if pd.isna(simulation_run_id) else f"run?simulation={simulation_run_id}"


def _prediction_link(row: Mapping[Any, Any]) -> str:
    """Link to the predict page for a configuration; empty where its inputs would have to be uploaded."""
    if pd.isna(row["kernel_correlation"]) or row["n_inputs"] > MOST_INPUTS:
        return ""
    parameters = {name: row[column] for name, column in _PREDICT.items()}
    if row["block"] == "two_matrix":
        parameters |= {name: row[column] for name, column in _PREDICT_BRANCH.items() if not pd.isna(row[column])}
    return "predict?" + urlencode(parameters)


def _on_axes(rows: pd.DataFrame, across: str, by: str) -> pd.DataFrame:
    """Add the columns across and by, and sort by both."""
    texts, keys = {}, {}
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


def value_text(value: Any) -> str:
    """The text for the value of a parameter in a filter or on an axis.

    >>> value_text(0.1), value_text(64), value_text("tanh"), value_text(float("nan"))
    ('0.1', '64', 'tanh', '—')
    """
    return value if isinstance(value, str) else number(None if pd.isna(value) else float(value), 6)


def windows_table(windows: pd.DataFrame, differing: Sequence[str]) -> pd.DataFrame:
    """The table of windows (named by name_theories), after the configuration columns ``differing``."""
    table = windows[list(differing)].rename(columns=CONFIGURATION | SETTINGS)
    table["theory"] = windows["theory"]
    table["quantity"] = windows["quantity"]
    table["window t*"] = [window_text(row) for row in windows.to_dict("records")]
    table["seen from"] = windows["resolved_from"]
    table["certified until"] = windows["certified_until"]
    table["refuted from"] = windows["refuted_from"]
    table["T"] = windows["total_time"]
    table["status"] = windows["status"]
    if "M" not in table and windows["samples"].notna().any():
        table["M"] = windows["samples"]
    if windows["reference_closure"].notna().any():
        table["reference"] = theory_names(windows.reindex(columns=_REFERENCE))
    if windows["reference_widths"].notna().any():
        table["widths"], table["M"] = windows["reference_widths"], windows["reference_samples"]
    table.insert(0, "run", windows["link"].where(windows["link"] != ""))
    return table
