"""Writing results: one short transaction for each, idempotent by digest.

Two processes that record the same result at once end with one row: the second waits for the first (SQLite: BEGIN
IMMEDIATE; PostgreSQL: the unique digest) and then finds the row there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.models import (
    Base,
    ComparisonRow,
    Configuration,
    ErrorMetric,
    Kernel,
    KernelTrajectory,
    Run,
    Study,
    StudyRun,
    TrajectoryValue,
    ValidityWindow,
)
from db.rows import (
    Trajectory,
    blob_row,
    error_rows,
    prediction_fields,
    provenance_fields,
    simulation_fields,
    value_rows,
    window_rows,
)
from db.session import Database
from db.types import plain_json, utc_now
from eftcore.errors import InputError
from eftcore.results import Theory
from eftcore.specs import ALGORITHM_VERSION, EnsembleSpec, InputKernel, PredictionSpec, ResNet, digest_of

if TYPE_CHECKING:
    from eftcore.ensemble.sample import Sample
    from eftcore.windows import Comparison


def record_study(db: Database, *, name: str, digest: str, spec: Mapping[str, Any]) -> int:
    """Record a study file as it is run; returns its id (the same one for the same digest)."""
    with db.session() as session:
        return _get_or_create(session, Study, {"name": name, "digest": digest, "spec": plain_json(dict(spec))})


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
    fields = prediction_fields(theory.spec) | {
        "converged": bool(theory.converged),
        "details": plain_json(theory.details),
    }
    resolved = theory.details.get("order")
    if fields["closure_order"] is None and theory.spec.order == "auto" and isinstance(resolved, int):
        fields["closure_order"] = resolved
    quantities = (("K0", theory.mean), ("V4", theory.covariance), ("K1", theory.correction), ("U1", theory.source))
    trajectories = [
        Trajectory(quantity, values, numerical_error=theory.numerical_error.get(quantity))
        for quantity, values in quantities
        if values is not None
    ]
    return _record_run(db, theory.spec, fields, trajectories, provenance, study_id)


def record_simulation(
    db: Database,
    sample: Sample,
    *,
    provenance: Mapping[str, Any],
    study_id: int | None = None,
    details: Mapping[str, Any] | None = None,
    answers: str | None = None,
) -> int:
    """Record a merged simulation with its trajectories and standard errors. As record_prediction.

    Args:
        details: more about it, JSON-able, such as the precision reached.
        answers: digest under which a failure to simulate this may be recorded (see mark_failed); that record goes.
    """
    shards = [[int(index), int(count)] for index, count in sample.shards]
    fields = simulation_fields(sample.spec, sample.digest, int(sample.samples)) | {"shards": shards}
    if details is not None:
        fields["details"] = plain_json(dict(details))
    trajectories = [
        Trajectory("K0", sample.mean, sample.mean_se),
        Trajectory("V4", sample.covariance, sample.covariance_se),
        Trajectory("K1", sample.correction, sample.correction_se),
        Trajectory("U1", sample.source, sample.source_se),
    ]
    run_id = _record_run(db, sample.spec, fields, trajectories, provenance, study_id)
    if answers is not None:
        with db.session() as session:
            session.execute(sa.delete(Run).where(Run.digest == answers, Run.status == "failed"))
    return run_id


def mark_failed(
    db: Database,
    spec: PredictionSpec | EnsembleSpec,
    *,
    error: str,
    provenance: Mapping[str, Any],
    study_id: int | None = None,
    digest: str | None = None,
    samples: int | None = None,
) -> int:
    """Record that a run failed and why; returns its id. A run that succeeded before stays as it is.

    Args:
        error: what went wrong, for people.
        digest: identity of the simulation that was wanted: Sample.digest, so that its later success replaces the
            failure, or, where the shards are not known beforehand, what record_simulation will be told as ``answers``;
            a prediction has its own.
        samples: networks wanted, for a simulation.
    """
    if isinstance(spec, PredictionSpec):
        fields = prediction_fields(spec)
    elif digest is None or samples is None:
        raise InputError("mark_failed: a failed simulation needs digest (Sample.digest of what was wanted) and samples")
    else:
        fields = simulation_fields(spec, digest, samples)
    fields |= {"status": "failed", "error_message": error or "no message"}
    return _record_run(db, spec, fields, [], provenance, study_id)


def record_comparison(db: Database, *, prediction_run_id: int, simulation_run_id: int, comparison: Comparison) -> int:
    """Record errors over depth and validity windows; returns the comparison's id.

    Recording again renews the rows of the same layer or tolerance and keeps the others, so windows at more tolerances
    can be added later.

    Raises:
        InputError: one of the runs does not exist, is of the other kind, failed, or has another configuration.
    """
    # ids out of a frame are numpy's, which SQLite would store as bytes
    pair = {"prediction_run_id": int(prediction_run_id), "simulation_run_id": int(simulation_run_id)}
    with db.session() as session:
        _check_pair(session, **pair)
        statement = _insert(session, ComparisonRow).values(pair)
        statement = statement.on_conflict_do_update(index_elements=list(pair), set_={"updated_at": utc_now()})
        comparison_id = int(session.execute(statement.returning(ComparisonRow.id)).scalar_one())
        _upsert(session, ErrorMetric, error_rows(comparison_id, comparison))
        _upsert(session, ValidityWindow, window_rows(comparison_id, comparison))
        return comparison_id


def find_run(db: Database, digest: str) -> Run | None:
    """The run with this identity, finished or failed; None when there is none."""
    with db.reading() as session:
        return session.scalar(sa.select(Run).where(Run.digest == digest))


def _record_run(
    db: Database,
    spec: PredictionSpec | EnsembleSpec,
    fields: dict[str, Any],
    trajectories: list[Trajectory],
    provenance: Mapping[str, Any],
    study_id: int | None,
) -> int:
    # everything that can be refused or takes time happens before the transaction starts
    row = {"status": "succeeded"} | provenance_fields(provenance) | fields
    row["spec"] = spec.model_dump(mode="json", exclude={"model", "kernel"})
    row["algorithm_version"] = ALGORITHM_VERSION[fields["kind"]]
    layers = list(spec.depths or ())
    blobs = [blob_row(item) for item in trajectories]
    values = [tidy for item in trajectories for tidy in value_rows(item, layers, spec.kernel.n_inputs)]
    with db.session() as session:
        row["configuration_id"] = _configuration_id(session, spec.model, spec.kernel)
        run_id, is_new = _claim_run(session, row)
        if is_new and blobs:
            session.execute(sa.insert(_table(KernelTrajectory)), [{"run_id": run_id, **blob} for blob in blobs])
            session.execute(sa.insert(_table(TrajectoryValue)), [{"run_id": run_id, **value} for value in values])
        if study_id is not None:
            if session.get(Study, study_id) is None:
                raise InputError(f"study_id = {study_id}: there is no such study; record_study gives its id")
            link = {"study_id": study_id, "run_id": run_id}
            session.execute(_insert(session, StudyRun).values(link).on_conflict_do_nothing())
        return run_id


def _claim_run(session: Session, row: dict[str, Any]) -> tuple[int, bool]:
    """The only place where a run gets or changes its status: (id, whether the results are ours to write).

    A failed run may fail again or succeed; a succeeded one is never touched.
    """
    statement = _insert(session, Run).values(row).on_conflict_do_nothing(index_elements=["digest"]).returning(Run.id)
    run_id = session.execute(statement).scalar()
    if run_id is None:
        retry = sa.update(Run).where(Run.digest == row["digest"], Run.status == "failed")
        changes = {"error_message": None, "updated_at": utc_now()} | row
        run_id = session.execute(retry.values(changes).returning(Run.id)).scalar()
    if run_id is not None:
        return int(run_id), True
    return int(session.execute(sa.select(Run.id).where(Run.digest == row["digest"])).scalar_one()), False


def _configuration_id(session: Session, model: ResNet, kernel: InputKernel) -> int:
    identity = kernel.identity()
    kernel_id = _get_or_create(
        session,
        Kernel,
        {
            "digest": digest_of(identity),
            "label": kernel.label,
            "n_inputs": kernel.n_inputs,
            "variance": kernel.variance,
            "correlation": kernel.correlation,
            "matrix": identity["matrix"],
        },
    )
    return _get_or_create(
        session,
        Configuration,
        {
            "digest": digest_of({"model": model.identity(), "kernel": identity}),
            "kernel_id": kernel_id,
            "activation": model.activation,
            "weight_variance": model.weight_variance,
            "bias_variance": model.bias_variance,
            "epsilon": model.epsilon,
            "depth": model.depth,
            "total_time": model.total_time,
        },
    )


def _check_pair(session: Session, prediction_run_id: int, simulation_run_id: int) -> None:
    wanted = {"prediction": prediction_run_id, "simulation": simulation_run_id}
    configurations = set()
    for kind, run_id in wanted.items():
        run = session.get(Run, run_id)
        if run is None or run.kind != kind or run.status != "succeeded":
            found = "no such run" if run is None else f"a {run.kind} that {run.status}"
            raise InputError(f"{kind}_run_id = {run_id}: must be a {kind} that succeeded; this is {found}")
        configurations.add(run.configuration_id)
    if len(configurations) > 1:
        raise InputError(
            f"runs {prediction_run_id} and {simulation_run_id} belong to different configurations;"
            " compare like with like"
        )


def _get_or_create(session: Session, table: type[Study | Kernel | Configuration], row: dict[str, Any]) -> int:
    statement = _insert(session, table).values(row).on_conflict_do_nothing(index_elements=["digest"])
    created = session.execute(statement.returning(table.id)).scalar()
    if created is not None:
        return int(created)
    return int(session.execute(sa.select(table.id).where(table.digest == row["digest"])).scalar_one())


def _upsert(session: Session, table: type[Base], rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    statement = _insert(session, table)
    keys = [column.name for column in _table(table).primary_key]
    renewed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=renewed), rows)


def _insert(session: Session, table: type[Base]) -> Any:
    """INSERT with ON CONFLICT, which both databases have in the same form but SQLAlchemy keeps per dialect."""
    maker = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[session.get_bind().dialect.name]
    return maker(_table(table))


def _table(model: type[Base]) -> sa.Table:
    assert isinstance(model.__table__, sa.Table)
    return model.__table__
