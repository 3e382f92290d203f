"""Windows in depth and in width as readable tables: a line for each closure and quantity, a column per tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from db.reading.distinguishing import SIMULATION_SETTINGS, distinguishing
from eftcore.quantities import QUANTITIES
from eftcore.words import ONE_MATRIX, block_text, theory_name, width_text, window_text

_CONFIGURATION = {
    "activation": "activation",
    "weight_variance": "C_W",
    "bias_variance": "C_b",
    "block": "block",
    "epsilon": "epsilon",
    "total_time": "T",
    "kernel_label": "inputs",
    "width": "width",
    "samples": "networks",
    "reference": "held against",
    "nodes": "nodes",
    "superseded": "superseded",
}
"""Columns that describe a configuration, with their headings."""

_IN_WIDTH = {
    "time" if name == "total_time" else name: "t" if name == "total_time" else title
    for name, title in _CONFIGURATION.items()
    if name not in ("width", "samples")
}
"""The same for windows in width: they are at one time, and of no network of one width."""

_SETTINGS = {
    "step": "step",
    "rtol": "rtol",
    **{name: name for name in SIMULATION_SETTINGS},
    "reference_step": "step of reference",
    "reference_nodes": "nodes of reference",
    "reference_rtol": "rtol of reference",
    "reference_samples": "networks of reference",
}
"""Columns that are shown where lines differ only in them, with their headings."""

LEGEND = (
    "t = epsilon^2 * layer up to which the relative error stays within 1 %, 5 % and so on. 'a - b': it leaves between\n"
    "a and b; '< b': before b; '> T': not before T; '> a ?': certified up to a, undecided after; 'seen from c': the\n"
    "reference is too imprecise before c; 'not resolved': everywhere. All of a window holds together at 95 %."
)

WIDTH_LEGEND = (
    "Neurons per layer from which on the relative error stays within 1 %, 5 % and so on. Held against theory (the\n"
    "next order in 1/n): 'a (b - c)': from a on, with its bounds; 'no width': the closure alone is wrong by more;\n"
    "'not known': the next order is too uncertain. Against simulations: 'a - b': wrong by more at width a, within it\n"
    "at b and at every wider one that was simulated; '> a', '<= b': one of the two is known; 'not known': too noisy."
)


def windows_table(windows: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """A heading with the values that all rows share, and the table of the values that differ.

    ``windows`` has the columns of the view v_windows. Settings are shown where rows differ only in them.
    """
    return _table(windows, _CONFIGURATION, window_text)


def widths_table(widths: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """As windows_table, for rows of the view v_width_windows."""
    leading = widths.assign(next_order=False)  # only the leading order is judged, also where the next one is known
    return _table(leading, _IN_WIDTH, width_text)


def _table(
    windows: pd.DataFrame, configuration: Mapping[str, str], text: Callable[[Mapping[Any, Any]], str]
) -> tuple[str, pd.DataFrame]:
    windows = windows.assign(
        block=[block_text(row) for row in windows.to_dict("records")],
        reference=[_reference(row) for row in windows.to_dict("records")],
        reference_step=_step(windows["reference_step"], windows["reference_continuous"]),
        step=_step(windows["step"], windows["continuous"]),
        quantity=pd.Categorical(windows["quantity"], list(QUANTITIES)),
        superseded=windows["superseded"].map({True: "yes", False: "no"}),
    ).sort_values([*configuration, "quantity", "prediction_run_id", "tolerance"])
    windows = windows.astype(object).where(windows.notna(), None)
    alike = [*configuration, "quantity", "tolerance", "closure", "closure_order"]
    telling = distinguishing(windows, alike, [name for name in _SETTINGS if name in windows])
    distinct = {name: windows[name].dropna().unique() for name in configuration}
    common = {name: next(iter(values), None) for name, values in distinct.items() if len(values) <= 1}
    lines: dict[tuple[object, ...], dict[str, object]] = {}
    for row in windows.to_dict("records"):
        key = (row["prediction_run_id"], row["reference_run_id"], row["quantity"])
        line = lines.setdefault(
            key,
            {
                **{configuration[name]: row[name] for name in configuration if name not in common},
                "quantity": row["quantity"],
                "closure": _predicted(row),
                **{_SETTINGS[name]: row[name] for name in telling},
            },
        )
        line[_percent(row["tolerance"])] = text(row)
    said = {
        configuration[name]: _shown(value) for name, value in common.items() if value not in (None, "no", ONE_MATRIX)
    }
    heading = ", ".join(f"{title} {text}" for title, text in said.items())
    table = pd.DataFrame(list(lines.values()))
    tolerances = [_percent(tolerance) for tolerance in sorted(windows["tolerance"].unique())]
    return heading, table[[*table.columns.difference(tolerances, sort=False), *tolerances]]


def _step(step: pd.Series[str], continuous: pd.Series[bool]) -> pd.Series[str]:
    """The rule by which a theory steps through depth; "continuous" for the limit of small steps."""
    return step.mask(continuous.fillna(False).astype(bool), "continuous")


def _reference(row: Mapping[Any, Any]) -> str:
    """A theory by its name and order, a measurement by its widths, a simulation by its kind."""
    kind = row["reference_kind"]
    if kind == "measurement":
        return f"measurement, widths {row['reference_widths']}"
    if kind != "theory":
        return str(kind)
    return theory_name(row["reference_closure"], row["reference_order"], next_order=row["reference_next_order"])


def _predicted(row: Mapping[Any, Any]) -> str:
    """The closure with its order; nodes and steps have separate columns where rows differ in them."""
    converged = row.get("converged") if row.get("nodes") is None else None
    return theory_name(row["closure"], row["closure_order"], converged=converged, next_order=row["next_order"])


def _percent(tolerance: float) -> str:
    return f"{100 * tolerance:.4g} %"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
