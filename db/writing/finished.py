"""Finished runs, and comparisons between them, recorded many in one transaction.

What is recorded of a result is made before the transaction starts, so that others wait for it as short as can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.schema.models import (
    AIMED_AT,
    STOP_REASONS,
    ComparisonRow,
    ErrorMetric,
    Run,
    SimulationPrecision,
    ValidityWindow,
)
from db.schema.rows import (
    PrecisionTarget,
    error_rows,
    measurement_fields,
    precision_row,
    prediction_fields,
    quantile_rows,
    simulation_fields,
    window_rows,
)
from db.schema.statements import insert, insert_plain, table_of, upsert
from db.schema.types import plain_json, utc_now
from db.session import Database
from db.writing.lifecycle import Entry, enter_all, extended_run
from db.writing.trajectories import Rows, Values, add_quantiles, insert_trajectories, run_row, trajectory_rows
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory

if TYPE_CHECKING:
    from eftcore.ensemble.next_order import MeasuredNextOrder
    from eftcore.ensemble.sample import Sample
    from eftcore.verdicts.windows import Comparison


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run with everything that is recorded of it; ``prediction`` and others make it.

    Attributes:
        entry: the run with its status.
        trajectories: as trajectory_rows gives them.
        precision: rows of simulation_precision, without the run.
        quantiles: rows of kernel_quantiles, without the run.
        targets: the precision that a simulation was run for, at most one for each quantity.
    """

    entry: Entry
    trajectories: tuple[Rows, Values]
    precision: Rows = field(default_factory=list)
    quantiles: Rows = field(default_factory=list)
    targets: Sequence[PrecisionTarget] = ()

    @property
    def digest(self) -> str:
        """Identity of the run."""
        return str(self.entry.row["digest"])


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A prediction that was held against a reference, each by the digest of its run."""

    prediction: str
    reference: str
    comparison: Comparison


def prediction(theory: Theory, provenance: Mapping[str, Any]) -> Finished:
    """What is recorded of a prediction. Raises InputError as db.writing.repository.record_prediction."""
    fields = prediction_fields(theory.spec) | {
        "converged": bool(theory.converged),
        "details": plain_json(theory.details),
    }
    if isinstance(theory.order, int):
        fields["closure_order"] = theory.order
    row = run_row(theory.spec, fields, provenance)
    return Finished(entry=Entry(spec=theory.spec, row=row), trajectories=trajectory_rows(theory))


def measurement(measured: MeasuredNextOrder, provenance: Mapping[str, Any]) -> Finished:
    """What is recorded of a measurement. Raises InputError as ``prediction``."""
    row = run_row(measured.spec, measurement_fields(measured.spec), provenance)
    return Finished(entry=Entry(spec=measured.spec, row=row), trajectories=trajectory_rows(measured))


def simulation(
    sample: Sample,
    provenance: Mapping[str, Any],
    *,
    details: Mapping[str, Any] | None = None,
    targets: Sequence[PrecisionTarget] = (),
    stopped_because: str | None = None,
    announced: str | None = None,
) -> Finished:
    """What is recorded of a simulation; the arguments are those of db.writing.repository.record_simulation."""
    shards = [[int(index), int(count)] for index, count in sample.shards]
    fields = simulation_fields(sample.spec, sample.digest, int(sample.samples)) | {"shards": shards}
    if details is not None:
        fields["details"] = plain_json(dict(details))
    if stopped_because is not None and stopped_because not in STOP_REASONS:
        raise InputError(f"must be one of {', '.join(STOP_REASONS)}", place="stopped_because", value=stopped_because)
    if stopped_because is not None:
        fields["stopped_because"] = stopped_because
    named = [target.quantity for target in targets]
    if len(set(named)) < len(named) or not set(named) <= set(AIMED_AT):
        raise InputError(f"must be at most one for each of {', '.join(AIMED_AT)}", place="targets", value=named)
    return Finished(
        entry=Entry(spec=sample.spec, row=run_row(sample.spec, fields, provenance), announced=announced),
        trajectories=trajectory_rows(sample),
        precision=[precision_row(QUANTITIES[name], sample) for name in AIMED_AT],
        quantiles=quantile_rows(sample) if sample.has_quantiles else [],
        targets=targets,
    )


def record_results(
    db: Database, results: Sequence[Finished], compared: Sequence[Compared] = (), *, study_id: int | None = None
) -> dict[str, int]:
    """Record finished runs, and comparisons between them, in one transaction; returns the run ids by digest.

    Raises:
        InputError: no such study, or the runs of a comparison belong to two configurations.
        EnvironmentProblem: the database cannot be used; nothing is half-written.
    """
    with db.session() as session:
        entered = enter_all(session, [result.entry for result in results], study_id)
        for result in sorted(results, key=lambda result: entered[result.digest][0]):
            run_id, is_new = entered[result.digest]
            if is_new:
                insert_trajectories(session, run_id, *result.trajectories)
            if result.precision:
                _complete(session, run_id, result, is_new=is_new)
        configurations = {result.digest: result.entry.row["configuration_id"] for result in results}
        for each in compared:
            pair = {
                "prediction_run_id": entered[each.prediction][0],
                "reference_run_id": entered[each.reference][0],
            }
            if configurations[each.prediction] != configurations[each.reference]:
                raise of_another_configuration(**pair)
            insert_comparison(session, pair, each.comparison)
        return {digest: run_id for digest, (run_id, _) in entered.items()}


def insert_comparison(session: Session, pair: dict[str, int], comparison: Comparison) -> int:
    """Insert a comparison of two runs, or overwrite its rows of the same layer or tolerance; returns its id."""
    statement = insert(session, ComparisonRow).values(pair)
    statement = statement.on_conflict_do_update(index_elements=list(pair), set_={"updated_at": utc_now()})
    comparison_id = int(session.execute(statement.returning(ComparisonRow.id)).scalar_one())
    insert_plain(session, ErrorMetric, *error_rows(comparison_id, comparison), renew=True)
    upsert(session, ValidityWindow, window_rows(comparison_id, comparison))
    return comparison_id


def of_another_configuration(*, prediction_run_id: int, reference_run_id: int) -> InputError:
    """The error of a comparison between runs that are not about the same configuration."""
    return InputError(
        f"belongs to another configuration than run {prediction_run_id}",
        place="reference_run_id",
        value=reference_run_id,
        remedy="compare like with like",
    )


def _complete(session: Session, run_id: int, result: Finished, *, is_new: bool) -> None:
    """Add what only a simulation has.

    Quantiles, targets and why it ended are not part of the result: they are also recorded for a run that had finished
    before.
    """
    row = result.entry.row
    changes: dict[str, Any] = {}
    if is_new:
        precision = [{"run_id": run_id, **item} for item in result.precision]
        session.execute(sa.insert(table_of(SimulationPrecision)), precision)
        if (extends := extended_run(session, row, run_id)) is not None:
            changes["extends_run_id"] = extends
    elif "stopped_because" in row:
        changes["stopped_because"] = row["stopped_because"]
    if changes:
        session.execute(sa.update(Run).where(Run.id == run_id).values(changes))
    add_quantiles(session, run_id, result.quantiles)
    for target in result.targets:
        aimed = sa.update(SimulationPrecision).where(
            SimulationPrecision.run_id == run_id, SimulationPrecision.quantity == target.quantity
        )
        session.execute(aimed.values(target.row()))
