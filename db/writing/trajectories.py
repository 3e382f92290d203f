"""What every recorded result has: its row among the runs, its trajectories, and quantiles where it has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.schema.models import KernelQuantile, KernelTrajectory, TrajectoryValue
from db.schema.rows import VALUE_COLUMNS, Result, blob_row, provenance_fields, value_rows
from db.schema.statements import insert, insert_plain, table_of
from eftcore.quantities import QUANTITIES
from eftcore.specs import AnySpec, CheckSpec

Rows = list[dict[str, Any]]
Values = list[tuple[Any, ...]]


def run_row(spec: AnySpec | CheckSpec, fields: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Row of runs of a result; ``fields`` are those of its kind. Raises InputError as provenance_fields."""
    row = {"status": "succeeded"} | provenance_fields(provenance) | dict(fields)
    row["spec"] = spec.model_dump(mode="json", exclude={"model", "kernel", "version"})
    row["algorithm_version"] = spec.version
    return row


def trajectory_rows(result: Result) -> tuple[Rows, Values]:
    """Rows of kernel_trajectories, and plain ones of trajectory_values; computed before the transaction starts."""
    layers = list(result.spec.depths or ())
    blobs = [blob_row(quantity, result) for quantity in QUANTITIES.values()]
    values = [row for quantity in QUANTITIES.values() for row in value_rows(quantity, result, layers)]
    return [blob for blob in blobs if blob is not None], values


def add_quantiles(session: Session, run_id: int, rows: Rows) -> None:
    """Insert the quantiles of a run unless the database has them."""
    if (
        rows
        and session.scalar(sa.select(KernelQuantile.run_id).where(KernelQuantile.run_id == run_id).limit(1)) is None
    ):
        keys = [column.name for column in table_of(KernelQuantile).primary_key]
        statement = insert(session, KernelQuantile).on_conflict_do_nothing(index_elements=keys)
        session.execute(statement, [{"run_id": run_id, **row} for row in rows])


def insert_trajectories(session: Session, run_id: int, blobs: Rows, values: Values) -> None:
    """Insert what trajectory_rows gives for a run that is new."""
    session.execute(sa.insert(table_of(KernelTrajectory)), [{"run_id": run_id, **blob} for blob in blobs])
    insert_plain(session, TrajectoryValue, ("run_id", *VALUE_COLUMNS), [(run_id, *value) for value in values])
