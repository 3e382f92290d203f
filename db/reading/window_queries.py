"""Validity windows by any parameters: their number for each combination, cells of a map, pages of a sorted table.

Every function but the last is one statement on v_windows or, with reference="theory", on v_theory_windows; ``chosen``
maps columns of that view to the values allowed in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import pandas as pd
import sqlalchemy as sa

from db.reading.queries import _filtered, _frame, _reading_order, theory_windows, windows
from db.schema.views import v_theory_windows, v_windows
from db.session import Database

Chosen = Mapping[str, Sequence[Any]]

Reference: TypeAlias = Literal["simulation", "theory"]
"""What the predictions are compared with."""

THEORY = ("closure", "closure_order", "nodes", "converged", "step", "continuous", "rtol")
"""Columns that describe a theory; closure_order, nodes and step are absent where they have no meaning."""

_VIEWS = {"simulation": v_windows, "theory": v_theory_windows}
_REFERENCE_RUN = {"simulation": "simulation_run_id", "theory": "reference_run_id"}


def window_counts(
    db: Database, columns: Sequence[str], chosen: Chosen | None = None, *, reference: Reference = "simulation"
) -> pd.DataFrame:
    """Every combination of values of ``columns`` among stored windows, with the number of windows in column windows."""
    view = _VIEWS[reference]
    grouped = [view.c[name] for name in columns]
    query = _filtered(view, **(chosen or {})).with_only_columns(*grouped, sa.func.count().label("windows"))
    return _frame(db, query.group_by(*grouped).order_by(*grouped))


def window_cells(
    db: Database, columns: Sequence[str], chosen: Chosen, *, reference: Reference = "simulation"
) -> pd.DataFrame:
    """Windows grouped by ``columns`` and status, one row per group.

    Further columns are windows (their number), resolved_from (the latest), certified_least and certified_most,
    refuted_least and refuted_most (smallest and largest certified_until and refuted_from), total_time (the largest) and
    simulation_run_id or reference_run_id (one of the references).
    """
    view, run = _VIEWS[reference], _REFERENCE_RUN[reference]
    grouped = [view.c[name] for name in (*columns, "status")]
    certified, refuted, total = (view.c[name] for name in ("certified_until", "refuted_from", "total_time"))
    resolved = view.c["resolved_from"]
    least, most = sa.func.min, sa.func.max
    query = _filtered(view, **chosen).with_only_columns(
        *grouped,
        sa.func.count().label("windows"),
        most(resolved, type_=sa.Double()).label("resolved_from"),
        least(certified, type_=sa.Double()).label("certified_least"),
        most(certified, type_=sa.Double()).label("certified_most"),
        least(refuted, type_=sa.Double()).label("refuted_least"),
        most(refuted, type_=sa.Double()).label("refuted_most"),
        most(total, type_=sa.Double()).label("total_time"),
        least(view.c[run], type_=sa.Integer()).label(run),
    )
    return _frame(db, query.group_by(*grouped))


def window_page(
    db: Database,
    chosen: Chosen,
    *,
    reference: Reference = "simulation",
    order: str | None = None,
    descending: bool = False,
    limit: int | None = None,
    offset: int = 0,
) -> pd.DataFrame:
    """One page of the view, sorted by the column ``order`` (absent values last) or by default in reading order."""
    view = _VIEWS[reference]
    query = _filtered(view, **chosen)
    if order is not None:
        column = view.c[order]
        query = query.order_by((column.desc() if descending else column.asc()).nulls_last())
    return _frame(db, query.order_by(*_reading_order(view)).limit(limit).offset(offset))


def study_windows(db: Database, study: str) -> pd.DataFrame:
    """Windows of a study (name or digest): rows of v_windows, then rows of v_theory_windows. Two statements.

    The columns are those of the views of which the study has rows.
    """
    frames = [windows(db, study=study), theory_windows(db, study=study)]
    found = [frame for frame in frames if len(frame)]
    return pd.concat(found, ignore_index=True) if len(found) > 1 else (found or frames)[0]
