"""The columns that distinguish the rows of a table, for tables on a terminal or a page. Needs no database."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

SIMULATION_SETTINGS = ("estimator", "seed", "sampler", "dtype")
"""Columns by which simulations of one configuration, width and number of networks may differ."""


def distinguishing(rows: pd.DataFrame, shown: Sequence[str], settings: Sequence[str]) -> list[str]:
    """The columns of ``settings`` in which two rows differ although they agree in all columns ``shown``.

    >>> rows = pd.DataFrame({"closure": ["g_only", "g_only", "wick"], "step": ["euler", "exact", "exact"], "rtol": 0.1})
    >>> distinguishing(rows, ["closure"], ["step", "rtol"]), distinguishing(rows[1:], ["closure"], ["step", "rtol"])
    (['step'], [])
    """
    alike = rows.groupby(list(shown), dropna=False, observed=True, sort=False)
    return [name for name in settings if (alike[name].nunique(dropna=False) > 1).any()]
