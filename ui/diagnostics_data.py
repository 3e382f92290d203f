"""Why a closure fails on a configuration: the equation's residual, Wick orders, the exact statements as checks.

Each takes seconds and is computed when asked for. What the installed eftcore does not offer is not offered here.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pandas as pd

from db.stored_results import StoredSample
from eftcore.results import Theory
from eftcore.specs import InputKernel, ResNet, default_depths
from ui.notation import TIME, number

RESIDUAL, ORDERS, CHECKS = "equation residual", "Wick orders", "exact statements"
_MODULES = {RESIDUAL: "eftcore.residuals", ORDERS: "eftcore.wick_orders", CHECKS: "eftcore.theorems"}

NORM = "Frobenius norm, per unit t"
HIGHEST_ORDER = 24
_LAYERS = 20


def available() -> list[str]:
    """The diagnostics at hand, in reading order."""
    return [name for name, module in _MODULES.items() if find_spec(module) is not None]


def residual_frame(reference: Theory | StoredSample) -> pd.DataFrame:
    """Size over depth of what the G-only covariance equation misses on a reference, and of its parts.

    Columns TIME, NORM and part. A recorded simulation lacks the increments' covariance, so that its source and
    transport errors cannot be told apart; a better theory has no source error at leading order.
    """
    norms = import_module("eftcore.residuals").equation_residual(reference).norms()
    parts = {"change": "change of V4", "residual": "residual"}
    if isinstance(reference, StoredSample):
        parts |= {"step": "step", "transport": "source and transport"}
        parts |= {"residual_se": "standard error of the residual (bound)"} if "residual_se" in norms else {}
    else:
        parts |= {"step": "step", "transport": "transport"}
    long = norms.melt(id_vars="time", value_vars=list(parts), var_name="part", value_name=NORM)
    return long.assign(part=long["part"].map(parts)).rename(columns={"time": TIME})


def orders_frame(model: ResNet, kernel: InputKernel) -> pd.DataFrame:
    """What each Wick order adds at T: columns quantity, order, size (Frobenius), share of what G-only misses."""
    contributions = import_module("eftcore.wick_orders").wick_contributions(
        model, kernel, order=HIGHEST_ORDER, depths=default_depths(model.depth, _LAYERS)
    )
    frame = contributions.frame()
    return frame.loc[frame["depth"] == frame["depth"].max(), ["quantity", "order", "size", "share"]]


def checks_frame(model: ResNet, kernel: InputKernel) -> pd.DataFrame:
    """The exact statements on this configuration, each with its statistic, law and verdict; texts."""
    found = import_module("eftcore.theorems").check_theorems(model, kernel)
    return pd.DataFrame(
        {
            "statement": [check.name for check in found],
            "it says": [check.statement for check in found],
            "statistic": [number(check.statistic, 3) for check in found],
            "where it holds": [check.law for check in found],
            "p-value": [number(check.p_value, 3) for check in found],
            "bound": [number(check.bound, 2) for check in found],
            "verdict": ["holds" if check.passed else "FAILS" for check in found],
        }
    )
