"""The frames behind the windows page.

``build_*`` functions read a database and use neither Streamlit nor Plotly. The docstring of each gives the number of
SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pandas as pd

from db.reading.spreadsheets import csv_bytes
from db.reading.window_queries import THEORY, window_counts, window_page
from db.session import Database
from eftcore.quantities import QUANTITIES
from eftcore.specs import CLOSURES
from eftcore.words import window_text
from ui.data.naming import in_reading_order, name_configurations, name_theories, theory_names
from ui.data.predict import MOST_INPUTS
from ui.notation import CONFIGURATION, SETTINGS, number

MOST_ROWS = 10_000
"""Most windows in the table; for more, the page asks for filters."""

BARS = 30
"""Most bars, one for each configuration and theory, on one page of the figure; where there are no more in all, bars are
what the page shows first."""

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
"""The same for what a residual branch is."""


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
    """All windows that match, at most MOST_ROWS.

    Attributes:
        windows: rows of v_windows, with the columns theory and link added.
        table: the rows as the table shows them.
    """

    windows: pd.DataFrame
    table: pd.DataFrame


def build_window_options(db: Database, reference_kind: str = "simulation") -> WindowOptions:
    """The values for the filters of the windows page. One statement."""
    columns = ["reference_kind", "quantity", "tolerance", *PARAMETERS]
    return WindowOptions(counts=window_counts(db, columns, {"reference_kind": (reference_kind,)}))


def build_windows(
    db: Database, chosen: WindowFilter, differing: Sequence[str], sort: str = "configuration", descending: bool = False
) -> WindowsView:
    """All matching windows, sorted; the table shows the configuration columns ``differing``. One statement."""
    windows = name_theories(window_rows(db, chosen, order=SORT[sort], descending=descending, limit=MOST_ROWS))
    if SORT[sort] is None:
        windows = in_reading_order(windows.assign(configuration=windows["reference_run_id"]))
    return WindowsView(windows=windows, table=windows_table(windows, differing))


def bar_pages(windows: pd.DataFrame) -> int:
    """On how many pages the bars of these windows stand."""
    return -(-len(windows[_BAR].drop_duplicates()) // BARS)


def bars_page(windows: pd.DataFrame, page: int) -> pd.DataFrame:
    """The windows of one page of bars, with the text configuration added.

    >>> rows = pd.DataFrame({"reference_run_id": 1, "prediction_run_id": range(40), "activation": "tanh"})
    >>> [len(bars_page(rows, page)) for page in range(1, bar_pages(rows) + 1)]
    [30, 10]
    """
    row = windows.groupby(_BAR, sort=False).ngroup() // BARS
    return name_configurations(windows[row == page - 1])


_BAR = ["reference_run_id", "prediction_run_id"]
"""Columns of v_windows that belong to one bar."""


def build_csv(db: Database, chosen: WindowFilter, sort: str, descending: bool) -> bytes:
    """All matching windows as CSV, also those beyond MOST_ROWS: a column for each parameter. One statement.

    The headings say the units, and no number has more digits than twelve.
    """
    windows = name_theories(window_rows(db, chosen, order=SORT[sort], descending=descending))
    texts = {name: title for name, title in PARAMETERS.items() if name != "closure" and windows[name].notna().any()}
    table = windows[list(texts)].rename(columns=texts)
    table.insert(0, "theory", windows["theory"])
    table.insert(1, "quantity", windows["quantity"])
    table["tolerance τ (relative)"] = windows["tolerance"]
    table["reference"] = windows["reference_kind"]
    for name, title in _ENDS.items():
        table[f"{title} (t = ε² ℓ)"] = windows[name]
        table[f"{title} (layer ℓ)"] = layers_at(windows, name)
    table["status"] = windows["status"]
    table["confidence"] = windows["confidence"]
    for name in ("simulation_run_id", "prediction_run_id"):
        table[name] = windows[name]
    return csv_bytes(table.map(lambda value: float(f"{value:.12g}") if isinstance(value, float) else value))


def layers_at(windows: pd.DataFrame, name: str) -> pd.Series[Any]:
    """The layer at a time t of each window; absent where there is none."""
    layers = (windows[name] / windows["total_time"] * windows["depth"].astype(float)).round()
    return layers.astype("Int64")


_ENDS = {"resolved_from": "seen from", "certified_until": "certified until", "refuted_from": "refuted from"}
"""Columns of v_windows that are times, with their titles."""


def file_name(chosen: WindowFilter, *, what: str = "windows") -> str:
    """Name of a file of these windows, without its ending: what they are restricted to, and the tolerance.

    >>> file_name(WindowFilter(tolerance=0.05, allowed={"activation": ["tanh"], "quantity": ["V4"], "depth": []}))
    'windows-tanh-V4-5pct'
    >>> file_name(WindowFilter(tolerance=0.005, reference_kind="theory", allowed={"epsilon": [0.1, 0.2]}))
    'windows-theory-epsilon-0.1-0.2-0.5pct'
    """
    parts = [what] if chosen.reference_kind == "simulation" else [what, chosen.reference_kind]
    for name, values in chosen.allowed.items():
        texts = [value_text(value) for value in values]
        parts += texts if all(isinstance(value, str) for value in values) or not texts else [name, *texts]
    tolerance = f"{number(100 * chosen.tolerance)}pct"
    return re.sub(r"[^\w.,=-]+", "_", "-".join([*parts, tolerance]))


def said_of(chosen: WindowFilter, common: str) -> list[str]:
    """Lines that say which windows these are, below a figure: tolerance, reference, what is common, filters."""
    kinds = {"simulation": "simulations", "theory": "the exact leading order", "measurement": "the measured next order"}
    first = f"relative error within τ = {number(100 * chosen.tolerance)} % of {kinds[chosen.reference_kind]}"
    filters = [
        f"{PARAMETERS.get(name, name)} = {', '.join(value_text(value) for value in values)}"
        for name, values in chosen.allowed.items()
        if values
    ]
    lines = [f"{first}; all: {common}" if common else first]
    return [*lines, f"only {'; '.join(filters)}"] if filters else lines


def window_rows(db: Database, chosen: WindowFilter, **place: Any) -> pd.DataFrame:
    """Rows of v_windows, with the column link added: to the simulation, else to the predict page. One statement."""
    rows = window_page(db, chosen.lists(), **place)
    without = iter(rows[rows["simulation_run_id"].isna()].to_dict("records"))
    links = [_run_link(run) or _prediction_link(next(without)) for run in rows["simulation_run_id"]]
    return rows.assign(link=links)


def _run_link(simulation_run_id: Any) -> str:
    """Link to the run page of a simulation; empty where the reference is none."""
    return "" if pd.isna(simulation_run_id) else f"run?simulation={simulation_run_id}"


def _prediction_link(row: Mapping[Any, Any]) -> str:
    """Link to the predict page for a configuration; empty where its inputs would have to be uploaded."""
    if pd.isna(row["kernel_correlation"]) or row["n_inputs"] > MOST_INPUTS:
        return ""
    parameters = {name: row[column] for name, column in _PREDICT.items()}
    branch = {name: row[column] for name, column in _PREDICT_BRANCH.items() if not pd.isna(row[column])}
    parameters |= {name: value for name, value in branch.items() if value != "one_matrix"}
    return "predict?" + urlencode(parameters)


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
    said = windows[["status", "resolved_from", "certified_until", "refuted_from", "total_time"]]
    table["window t*"] = [window_text(row) for row in said.to_dict("records")]
    table["seen from"] = windows["resolved_from"]
    table["certified until"] = windows["certified_until"]
    table["until layer"] = layers_at(windows, "certified_until")
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
