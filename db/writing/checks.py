"""Recording checks of users' torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from db.schema.models import CheckedBlockRow, ModuleCheck
from db.schema.rows import block_rows, check_fields, module_row, quantile_rows
from db.schema.statements import table_of
from db.session import Database
from db.writing.lifecycle import enter
from db.writing.trajectories import add_quantiles, insert_trajectories, run_row, trajectory_rows
from eftcore.measure.kernels import measured_kernels

if TYPE_CHECKING:
    from eftcore.measure.checked import Check


def record_check(db: Database, found: Check, *, provenance: Mapping[str, Any]) -> int:
    """Record what ``eft.check`` found, with the kernels that it measured; returns the run id.

    A check that found the same of the same module, to the last digit, is recorded already and keeps its id.

    Args:
        provenance: as for other results, see db.writing.repository.record_prediction.

    Raises:
        InputError: more inputs than a record can hold; unknown provenance key, time without zone.
        EnvironmentProblem: the database cannot be used; nothing is half-written.
    """
    kernels = measured_kernels(found)
    spec = kernels.spec
    row = run_row(spec, check_fields(spec), provenance)
    trajectories, quantiles = trajectory_rows(kernels), quantile_rows(kernels)
    with db.session() as session:
        run_id, entered = enter(session, spec, row, None)
        if entered:
            insert_trajectories(session, run_id, *trajectories)
            add_quantiles(session, run_id, quantiles)
            session.execute(sa.insert(table_of(ModuleCheck)), [{"run_id": run_id, **module_row(found)}])
            blocks = [{"run_id": run_id, **block} for block in block_rows(found)]
            session.execute(sa.insert(table_of(CheckedBlockRow)), blocks)
        return run_id
