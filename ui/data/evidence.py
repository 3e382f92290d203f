"""The recorded simulations nearest to a network that is asked about, and what they say of the theories."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

import eftcore as eft
from db.reading.nearest import nearest_simulations
from db.reading.window_queries import THEORY, window_page
from db.schema.rows import model_fields
from db.session import Database
from eftcore.words import theory_name, window_text
from ui.data.answer import THEORY_NAMES
from ui.notation import CONFIGURATION, number

_COMPARED = (
    *("weight_variance", "bias_variance", "epsilon", "depth"),
    *("hidden_ratio", "hidden_weight_variance", "hidden_bias_variance"),
)


def build_evidence(
    db: Database, model: eft.ResNet, kernel: eft.InputKernel, width: int, quantity: str, tolerance: float
) -> pd.DataFrame:
    """A row per simulation, nearest first; empty where there is none of such a network. At most two statements.

    Columns run (a link), network (in what it differs), inputs, n, M, τ, the recorded tolerance nearest to the one asked
    for, and for each theory that was held against it the layers, and t, down to which it stays within τ.
    """
    runs = nearest_simulations(db, model, kernel, width)
    if runs.empty:
        return pd.DataFrame()
    ids = [int(run) for run in runs["run_id"]]
    windows = window_page(db, {"simulation_run_id": ids, "quantity": [quantity]})
    mine = model_fields(model)
    rows = []
    for run in runs.to_dict("records"):
        row: dict[str, Any] = {
            "run": f"run?simulation={run['run_id']}",
            "network": _difference(run, mine),
            "inputs": run["kernel_label"],
            "n": int(run["width"]),
            "M": int(run["samples"]),
        }
        found = windows[windows["simulation_run_id"] == run["run_id"]]
        if not found.empty:
            nearest = min(found["tolerance"], key=lambda value: abs(math.log(value / tolerance)))
            row["τ"] = number(float(nearest))
            for window in found[found["tolerance"] == nearest].to_dict("records"):
                row[_name(window)] = _depth_text(window, float(run["epsilon"]))
        rows.append(row)
    return pd.DataFrame(rows)


def _name(window: Mapping[Any, Any]) -> str:
    """A theory as the answer names it, and by its settings where these are not those of the answer."""
    settings = [window[column] for column in THEORY if column != "next_order"]
    name = theory_name(*settings)
    closure = str(window["closure"])
    if window["step"] == "exact" and closure in THEORY_NAMES and name in (closure, f"{closure}, exact step"):
        return THEORY_NAMES[closure]
    return f"{name}, Euler steps" if window["step"] == "euler" else name


def _depth_text(window: Mapping[Any, Any], epsilon: float) -> str:
    """A window in layers, and in t where it has numbers.

    >>> window = {"status": "bounded", "resolved_from": 0.01, "certified_until": 0.16, "refuted_from": 0.28}
    >>> _depth_text({**window, "total_time": 2.0}, 0.1)
    'layer 16 - 28 (t = 0.16 - 0.28)'
    """
    times = window_text(window)
    ends = ("resolved_from", "certified_until", "refuted_from", "total_time")
    layers = {end: None if pd.isna(window[end]) else float(round(window[end] / epsilon**2)) for end in ends}
    text = window_text({**window, **layers})
    return f"layer {text} (t = {times})" if any(letter.isdigit() for letter in text) else text


def _difference(run: Mapping[Any, Any], mine: Mapping[str, Any]) -> str:
    """In what a recorded network differs from the one asked about."""
    parts = [
        f"{CONFIGURATION[name]} = {number(float(run[name]))}"
        for name in _COMPARED
        if not pd.isna(run[name]) and not math.isclose(float(run[name]), float(mine[name] or 0.0), rel_tol=1e-9)
    ]
    return ", ".join(parts) or "the same"
