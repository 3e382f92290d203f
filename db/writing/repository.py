"""Recording results, each in a short transaction; recording the same digest again changes nothing.

Two processes that record the same result at once end with one row: the second waits for the first (SQLite: BEGIN
IMMEDIATE; PostgreSQL: the unique digest) and then finds the row there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.schema.models import (
    KINDS,
    Claim,
    ComparisonRow,
    Configuration,
    Kernel,
    KernelQuantile,
    Run,
    Study,
    StudyRun,
    ValidityWindow,
    WidthWindow,
)
from db.schema.rows import (
    PrecisionTarget,
    measurement_fields,
    prediction_fields,
    simulation_fields,
    width_rows,
)
from db.schema.statements import get_or_create, upsert
from db.schema.types import plain_json
from db.session import Database
from db.writing import claims
from db.writing.finished import (
    Finished,
    insert_comparison,
    measurement,
    of_another_configuration,
    prediction,
    record_results,
    simulation,
)
from db.writing.lifecycle import Entry, enter, enter_all
from db.writing.trajectories import run_row
from eftcore.errors import InputError
from eftcore.results import Theory
from eftcore.specs import QUANTILES_SINCE, AnySpec, MeasurementSpec, PredictionSpec

if TYPE_CHECKING:
    import pandas as pd

    from eftcore.ensemble.next_order import MeasuredNextOrder
    from eftcore.ensemble.sample import Sample
    from eftcore.verdicts.windows import Comparison

__all__ = [
    "PrecisionTarget",
    "find_run",
    "judged_widths",
    "judged_windows",
    "lacking_quantiles",
    "mark_failed",
    "mark_pending",
    "mark_running",
    "record_comparison",
    "record_measurement",
    "record_prediction",
    "record_simulation",
    "record_study",
    "record_widths",
    "succeeded_runs",
]


def record_study(db: Database, *, name: str, digest: str, spec: Mapping[str, Any], runs_asked: int) -> int:
    """Record a study file as it is run; returns its id (the same one for the same digest).

    ``runs_asked`` is the number of runs that it asks for. A study that was recorded without this number, or with
    another one, gets it.
    """
    row = {"name": name, "digest": digest, "spec": plain_json(dict(spec)), "runs_asked": runs_asked}
    with db.session() as session:
        study_id = get_or_create(session, Study, row)
        differs = sa.and_(Study.id == study_id, Study.runs_asked.is_distinct_from(runs_asked))
        session.execute(sa.update(Study).where(differs).values(runs_asked=runs_asked))
        return study_id


def record_prediction(
    db: Database, theory: Theory, *, provenance: Mapping[str, Any], study_id: int | None = None
) -> int:
    """Record a prediction with its trajectories; returns the run id (the same one for the same spec).

    Args:
        theory: the result of eftcore.predict.
        provenance: any of PROVENANCE_KEYS; ``started_at`` is a datetime with time zone or its ISO text.
        study_id: the study that asked for it.

    Raises:
        InputError: unknown provenance key, time without zone, no such study.
        EnvironmentProblem: the database cannot be used; nothing is half-written.
    """
    return _record(db, prediction(theory, provenance), study_id)


def record_simulation(
    db: Database,
    sample: Sample,
    *,
    provenance: Mapping[str, Any],
    study_id: int | None = None,
    details: Mapping[str, Any] | None = None,
    targets: Sequence[PrecisionTarget] = (),
    stopped_because: str | None = None,
    announced: str | None = None,
) -> int:
    """Record a merged simulation with its trajectories and standard errors; otherwise like record_prediction.

    When an earlier simulation of the same ensemble is part of this one (a top-up), the run says which it extends. A run
    that succeeded before the database had quantiles of the kernel gets them.

    Args:
        details: further facts about the simulation, JSON-able, such as the precision reached.
        targets: the target precision of the simulation, at most one for each quantity.
        stopped_because: "met" (target reached), "cap" (largest number of networks) or "count" (number that was asked).
        announced: the digest under which it was marked pending or running before its shards were known.
    """
    result = simulation(
        sample, provenance, details=details, targets=targets, stopped_because=stopped_because, announced=announced
    )
    return _record(db, result, study_id)


def record_measurement(
    db: Database, measured: MeasuredNextOrder, *, provenance: Mapping[str, Any], study_id: int | None = None
) -> int:
    """Record a measurement of the next order in 1/n; otherwise like record_prediction."""
    return _record(db, measurement(measured, provenance), study_id)


def _record(db: Database, result: Finished, study_id: int | None) -> int:
    return record_results(db, [result], study_id=study_id)[result.digest]


def mark_pending(
    db: Database,
    spec: AnySpec,
    *,
    study_id: int | None = None,
    digest: str | None = None,
    samples: int | None = None,
) -> int:
    """Record that a run is going to be computed; returns its id. A run that is running or succeeded is left unchanged.

    Args:
        digest: for a simulation, its identity with its shards (Sample.digest). Where the shards are not known yet, any
            digest of the request; see ``announced`` of record_simulation. Not needed for other runs.
        samples: for a simulation, the number of networks wanted, or the largest number where it is not known yet.
    """
    wanted = Wanted(spec=spec, digest=digest, samples=samples)
    (run_id,) = mark_all_pending(db, [wanted], study_id=study_id).values()
    return run_id


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A run that is to be computed; ``digest`` and ``samples`` of a simulation as in mark_pending."""

    spec: AnySpec
    digest: str | None = None
    samples: int | None = None


def mark_all_pending(db: Database, runs: Sequence[Wanted], *, study_id: int | None = None) -> dict[str, int]:
    """mark_pending for many runs in one transaction; returns their ids by digest."""
    entries = []
    for wanted in runs:
        fields = _wanted_fields(wanted.spec, wanted.digest, wanted.samples) | {"status": "pending"}
        entries.append(Entry(spec=wanted.spec, row=run_row(wanted.spec, fields, {})))
    with db.session() as session:
        return {digest: run_id for digest, (run_id, _) in enter_all(session, entries, study_id).items()}


def mark_running(
    db: Database,
    spec: AnySpec,
    *,
    holder: str,
    provenance: Mapping[str, Any],
    study_id: int | None = None,
    digest: str | None = None,
    samples: int | None = None,
    lease_seconds: float = claims.LEASE_SECONDS,
) -> int | None:
    """Claim a run and record that it is being computed. Returns its id, or None if it succeeded or another computes it.

    claims.heartbeat() renews the claim; a run without a valid claim becomes stale (claims.sweep_stale).

    Args:
        holder: name of the process that computes the run, from claims.new_holder().
        digest, samples: as in mark_pending.
    """
    fields = _wanted_fields(spec, digest, samples) | {"status": "running"}
    row = run_row(spec, fields, provenance)
    with db.session() as session:
        claim = {"task": row["kind"], "holder": holder, "lease_seconds": lease_seconds}
        claim |= {name: row[name] for name in ("flow_run_id", "task_run_id")}
        if not claims.take(session, row["digest"], **claim):
            return None
        run_id, entered = enter(session, spec, row, study_id)
        if not entered:
            session.execute(sa.delete(Claim).where(Claim.digest == row["digest"]))
        return run_id if entered else None


def mark_failed(
    db: Database,
    spec: AnySpec,
    *,
    error: str,
    provenance: Mapping[str, Any],
    study_id: int | None = None,
    digest: str | None = None,
    samples: int | None = None,
) -> int:
    """Record that a run failed and why; returns its id. A run that succeeded before is left unchanged.

    Args:
        error: the error message.
        digest, samples: as in mark_pending; a later success of the same digest replaces the failure.
    """
    failure = {"status": "failed", "error_message": error or "no message"}
    row = run_row(spec, _wanted_fields(spec, digest, samples) | failure, provenance)
    with db.session() as session:
        return enter(session, spec, row, study_id)[0]


def record_comparison(db: Database, *, prediction_run_id: int, reference_run_id: int, comparison: Comparison) -> int:
    """Record errors over depth and validity windows; returns the comparison's id.

    Recording a comparison again overwrites the rows of the same layer or tolerance and keeps the others, so that
    windows at more tolerances can be added later.

    Args:
        reference_run_id: the run that the prediction is compared with: a simulation, a better prediction, or a
            measurement.

    Raises:
        InputError: a run does not exist or did not succeed, the first is no prediction, both are the same run, or their
            configurations differ.
    """
    # ids from a frame are numpy integers, which SQLite would store as bytes
    pair = {"prediction_run_id": int(prediction_run_id), "reference_run_id": int(reference_run_id)}
    if pair["prediction_run_id"] == pair["reference_run_id"]:
        raise InputError(
            "is the prediction itself",
            place="reference_run_id",
            value=pair["reference_run_id"],
            remedy="compare it with another run",
        )
    with db.session() as session:
        _check_pair(session, **pair, kinds=KINDS)
        return insert_comparison(session, pair, comparison)


def record_widths(db: Database, *, prediction_run_id: int, reference_run_id: int, widths: pd.DataFrame) -> None:
    """Record from which widths on a prediction holds; rows of the same quantity, tolerance and layer are overwritten.

    Args:
        reference_run_id: the prediction of the exact closure with its next order from which this follows; it may be the
            judged prediction itself.
        widths: as eftcore.verdicts.widths.widths_of gives them.

    Raises:
        InputError: a run does not exist or did not succeed, is no prediction, the reference has no next order, or their
            configurations differ.
    """
    pair = {"prediction_run_id": int(prediction_run_id), "reference_run_id": int(reference_run_id)}
    rows = width_rows(**pair, widths=widths)
    with db.session() as session:
        _, reference = _check_pair(session, **pair, kinds=("prediction",))
        if not reference.next_order:
            raise InputError(
                "has no next order in 1/n",
                place="reference_run_id",
                value=reference.id,
                remedy="predict it with closure = 'exact' and next_order = True",
            )
        upsert(session, WidthWindow, rows)


def find_run(db: Database, digest: str) -> Run | None:
    """The run with this identity, whatever its status; None when there is none."""
    with db.reading() as session:
        return session.scalar(sa.select(Run).where(Run.digest == digest))


def succeeded_runs(db: Database, study: str, digests: Sequence[str]) -> dict[str, int]:
    """Ids of those runs of a study (its digest) that succeeded, by digest."""
    query = (
        sa.select(Run.digest, Run.id)
        .join(StudyRun, StudyRun.run_id == Run.id)
        .join(Study, Study.id == StudyRun.study_id)
        .where(Study.digest == study, Run.digest.in_(digests), Run.status == "succeeded")
    )
    if not digests:
        return {}
    with db.reading() as session:
        return {run.digest: run.id for run in session.execute(query)}


def judged_windows(db: Database, references: Sequence[int]) -> set[tuple[int, int, float]]:
    """(reference run, prediction run, tolerance) of the windows against references; older verdicts are left out."""
    query = (
        sa.select(ComparisonRow.reference_run_id, ComparisonRow.prediction_run_id, ValidityWindow.tolerance)
        .join(ValidityWindow, ValidityWindow.comparison_id == ComparisonRow.id)
        .where(ComparisonRow.reference_run_id.in_(references), ValidityWindow.confidence.is_not(None))
        .distinct()
    )
    return _triples(db, query, references)


def judged_widths(db: Database, references: Sequence[int]) -> set[tuple[int, int, float]]:
    """(reference run, prediction run, tolerance) of the windows in width that follow from references."""
    query = (
        sa.select(WidthWindow.reference_run_id, WidthWindow.prediction_run_id, WidthWindow.tolerance)
        .where(WidthWindow.reference_run_id.in_(references))
        .distinct()
    )
    return _triples(db, query, references)


def _triples(db: Database, query: sa.Select[int, int, float], references: Sequence[int]) -> set[tuple[int, int, float]]:
    if not references:
        return set()
    with db.reading() as session:
        return {(reference, prediction, tolerance) for reference, prediction, tolerance in session.execute(query)}


def lacking_quantiles(db: Database, runs: Sequence[int]) -> set[int]:
    """Those of these runs that are simulations whose samples have quantiles that the database does not have.

    Samples of older versions have none, nor has a network in which every kernel is 0.
    """
    if not runs:
        return set()
    query = (
        sa.select(Run.id)
        .join(Configuration, Configuration.id == Run.configuration_id)
        .join(Kernel, Kernel.id == Configuration.kernel_id)
        .where(
            Run.id.in_(runs),
            Run.kind == "simulation",
            Run.algorithm_version >= QUANTILES_SINCE,
            sa.or_(Kernel.variance > 0, Configuration.bias_variance > 0),
            ~sa.exists().where(KernelQuantile.run_id == Run.id),
        )
    )
    with db.reading() as session:
        return set(session.scalars(query))


def _wanted_fields(spec: AnySpec, digest: str | None, samples: int | None) -> dict[str, Any]:
    if isinstance(spec, PredictionSpec):
        return prediction_fields(spec)
    if isinstance(spec, MeasurementSpec):
        return measurement_fields(spec)
    if digest is None or samples is None:
        raise InputError(
            "a simulation without results needs digest and samples",
            place="digest" if digest is None else "samples",
            remedy="give Sample.digest of what is wanted, and its number of networks",
        )
    return simulation_fields(spec, digest, samples)


def _check_pair(
    session: Session, *, prediction_run_id: int, reference_run_id: int, kinds: tuple[str, ...]
) -> tuple[Run, Run]:
    """Both runs. Raises InputError unless they succeeded, are a prediction and one of ``kinds``, and of one network."""
    prediction = _finished(session, "prediction_run_id", prediction_run_id, ("prediction",))
    reference = _finished(session, "reference_run_id", reference_run_id, kinds)
    if prediction.configuration_id != reference.configuration_id:
        raise of_another_configuration(prediction_run_id=prediction_run_id, reference_run_id=reference_run_id)
    return prediction, reference


def _finished(session: Session, name: str, run_id: int, kinds: tuple[str, ...]) -> Run:
    run = session.get(Run, run_id)
    if run is None or run.kind not in kinds or run.status != "succeeded":
        found = "no such run" if run is None else f"a {run.kind} with status {run.status}"
        raise InputError(f"must be a {' or '.join(kinds)} that succeeded, and is {found}", place=name, value=run_id)
    return run
