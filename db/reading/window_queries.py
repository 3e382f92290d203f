"""Validity windows by any parameters: their number for each combination, their ends, pages of a sorted table.

Every function is one statement on v_windows, or on v_width_windows; ``chosen`` maps columns of that view to the values
allowed in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import sqlalchemy as sa

from db.reading.queries import _READING_ORDER, _filtered, _frame
from db.schema.views import v_width_windows, v_windows
from db.session import Database

Chosen = Mapping[str, Sequence[Any]]

THEORY = ("closure", "closure_order", "nodes", "converged", "step", "continuous", "rtol", "next_order")
"""Columns that describe a theory; closure_order, nodes and step are absent where they have no meaning."""


def window_counts(db: Database, columns: Sequence[str], chosen: Chosen) -> pd.DataFrame:
    """Every combination of values of ``columns`` among stored windows, with the number of windows in column windows."""
    grouped = [v_windows.c[name] for name in columns]
    query = _filtered(v_windows, **chosen).with_only_columns(*grouped, sa.func.count().label("windows"))
    return _frame(db, query.group_by(*grouped).order_by(*grouped))


def window_ends(db: Database, columns: Sequence[str], chosen: Chosen) -> pd.DataFrame:
    """``columns`` of every window, and what its verdict consists of, in no particular order.

    Further columns are status, resolved_from, certified_until, refuted_from, total_time, depth and simulation_run_id
    (absent where the reference is no simulation).
    """
    further = ("status", "resolved_from", "certified_until", "refuted_from", "total_time", "depth", "simulation_run_id")
    named = dict.fromkeys((*columns, *further))
    return _frame(db, _filtered(v_windows, **chosen).with_only_columns(*(v_windows.c[name] for name in named)))


def window_page(
    db: Database,
    chosen: Chosen,
    *,
    order: str | None = None,
    descending: bool = False,
    limit: int | None = None,
    offset: int = 0,
) -> pd.DataFrame:
    """One page of v_windows, sorted by the column ``order`` (absent values last) or by default in reading order."""
    query = _filtered(v_windows, **chosen)
    if order is not None:
        column = v_windows.c[order]
        query = query.order_by((column.desc() if descending else column.asc()).nulls_last())
    return _frame(db, query.order_by(*_READING_ORDER).limit(limit).offset(offset))


def width_rows(db: Database, chosen: Chosen) -> pd.DataFrame:
    """The rows of v_width_windows, each prediction's by depth."""
    order = ("activation", "configuration_id", "prediction_run_id", "reference_kind", "reference_run_id", "quantity")
    query = _filtered(v_width_windows, **chosen)
    return _frame(db, query.order_by(*(v_width_windows.c[name] for name in (*order, "tolerance", "layer"))))
