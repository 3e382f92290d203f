"""Why a closure fails on a configuration: the equation's residual, Wick orders, the exact statements as checks.

Each takes seconds and is computed only when the user asks for it.
"""

from __future__ import annotations

from typing import cast

import pandas as pd

from db.reading.stored_results import StoredSample
from eftcore.inputs.kernel import InputKernel
from eftcore.results import Theory
from eftcore.specs import ResNet, default_depths
from eftcore.verdicts.residuals import equation_residual
from eftcore.verdicts.wick_orders import wick_contributions
from ui.notation import TIME, number

RESIDUAL, ORDERS, CHECKS = "equation residual", "Wick orders", "exact statements"
DIAGNOSTICS = (RESIDUAL, ORDERS, CHECKS)

NORM = "Frobenius norm, per unit t"
HIGHEST_ORDER = 24
_LAYERS = 20


def residual_frame(reference: Theory | StoredSample) -> pd.DataFrame:
    """Norms over depth of the residual of the G-only covariance equation on a reference, and of the residual's parts.

    Columns TIME, NORM and part. To separate source and transport errors, a simulation must have Sigma, which runs
    recorded by an older version of the program lack; a better theory has no source error at leading order.
    """
    norms = equation_residual(cast("Theory", reference)).norms()  # it reads only attributes that a StoredSample has too
    parts = {"change": "change of V4", "residual": "residual", "step": "step"}
    if not isinstance(reference, StoredSample):
        parts |= {"transport": "transport"}
    elif reference.increment_covariance is None:
        parts |= {"transport": "source and transport"}
    else:
        parts |= {"source": "source", "transport": "transport"}
    if "residual_se" in norms:
        parts |= {"residual_se": "standard error of the residual (bound)"}
    long = norms.melt(id_vars="time", value_vars=list(parts), var_name="part", value_name=NORM)
    return long.assign(part=long["part"].map(parts)).rename(columns={"time": TIME})


def orders_frame(model: ResNet, kernel: InputKernel) -> pd.DataFrame:
    """Contribution of each Wick order at T: columns quantity, order, size (Frobenius), share of what G-only misses."""
    depths = default_depths(model.depth, _LAYERS)
    frame = wick_contributions(model, kernel, order=HIGHEST_ORDER, depths=depths).frame()
    last: pd.DataFrame = frame.loc[frame["depth"] == frame["depth"].max(), ["quantity", "order", "size", "share"]]
    return last


def checks_frame(model: ResNet, kernel: InputKernel) -> pd.DataFrame:
    """Checks of the exact statements on this configuration: statistic, law and verdict of each, as texts."""
    from eftcore.verdicts.theorems import check_theorems  # imported here, since it is slow to import

    found = check_theorems(model, kernel)
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
