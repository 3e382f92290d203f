"""Validity windows by any parameters: how many there are of each, cells of a map, pages of a sorted table.

Every function is one statement on v_windows; ``chosen`` maps columns to the values allowed in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import sqlalchemy as sa

from db.queries import _filtered, _frame
from db.session import Database
from db.views import v_windows

Chosen = Mapping[str, Sequence[Any]]

THEORY = ("closure", "closure_order", "nodes")
"""Columns that name a theory; closure_order and nodes are absent where they have no meaning."""

_READING = ("activation", "configuration_id", "width", "quantity", "closure", "tolerance")
_RUNS = ("prediction_run_id", "simulation_run_id")


def window_counts(db: Database, columns: Sequence[str], chosen: Chosen | None = None) -> pd.DataFrame:
    """Every combination of values that stored windows take in ``columns``, with their number in the column windows."""
    grouped = [v_windows.c[name] for name in columns]
    query = _filtered(v_windows, **(chosen or {})).with_only_columns(*grouped, sa.func.count().label("windows"))
    return _frame(db, query.group_by(*grouped).order_by(*grouped))


def window_cells(db: Database, columns: Sequence[str], chosen: Chosen) -> pd.DataFrame:
    """Windows gathered by ``columns`` and status.

    Adds to these: windows (their number), certified_least, certified_most, refuted_least, refuted_most,
    total_time (the largest) and simulation_run_id (one of the simulations).
    """
    grouped = [v_windows.c[name] for name in (*columns, "status")]
    certified, refuted, total = (v_windows.c[name] for name in ("certified_until", "refuted_from", "total_time"))
    least, most = sa.func.min, sa.func.max
    query = _filtered(v_windows, **chosen).with_only_columns(
        *grouped,
        sa.func.count().label("windows"),
        least(certified, type_=sa.Double()).label("certified_least"),
        most(certified, type_=sa.Double()).label("certified_most"),
        least(refuted, type_=sa.Double()).label("refuted_least"),
        most(refuted, type_=sa.Double()).label("refuted_most"),
        most(total, type_=sa.Double()).label("total_time"),
        least(v_windows.c.simulation_run_id, type_=sa.Integer()).label("simulation_run_id"),
    )
    return _frame(db, query.group_by(*grouped))


def window_page(
    db: Database,
    chosen: Chosen,
    *,
    order: str | None = None,
    descending: bool = False,
    limit: int | None = None,
    offset: int = 0,
) -> pd.DataFrame:
    """Columns of v_windows, by the column ``order`` (absent values last), else in reading order."""
    query = _filtered(v_windows, **chosen)
    if order is not None:
        column = v_windows.c[order]
        query = query.order_by((column.desc() if descending else column.asc()).nulls_last())
    query = query.order_by(*(v_windows.c[name] for name in (*_READING, *_RUNS)))
    return _frame(db, query.limit(limit).offset(offset))
