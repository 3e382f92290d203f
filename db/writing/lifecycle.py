"""The state machine of runs, the one place where a run gets or changes its status.

    pending --> running --> succeeded
       |          |  ^
       |          v  |
       +------> failed, stale

A run whose worker no longer renews its claim is stale; it may be started again, and a worker that was only slow may
still complete it. A failed run may be tried again. A run that succeeded never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.schema.models import AlgorithmVersion, Claim, Configuration, Kernel, Run, Study, StudyRun
from db.schema.rows import model_fields
from db.schema.statements import get_or_create, insert
from db.schema.types import utc_now
from eftcore.errors import InputError
from eftcore.identity import digest_of
from eftcore.inputs.kernel import InputKernel
from eftcore.specs import AnySpec, CheckSpec, ResNet

COMES_FROM: dict[str, tuple[str, ...]] = {
    "pending": ("failed", "stale"),
    "running": ("pending", "running", "failed", "stale"),
    "succeeded": ("pending", "running", "failed", "stale"),
    "failed": ("pending", "running", "failed", "stale"),
    "stale": ("running",),
}
"""Statuses that each status may follow; every status but stale may also be the first of a run. "running" may follow
"running" where another worker takes over."""


def enter(
    session: Session,
    spec: AnySpec | CheckSpec,
    row: dict[str, Any],
    study_id: int | None,
    announced: str | None = None,
) -> tuple[int, bool]:
    """Give a run the status of ``row``. Returns (id, whether the status changed); a run that succeeded is unchanged.

    The claim of a run that ended is removed first; claims are written before runs everywhere, to avoid deadlocks.
    """
    if study_id is not None and session.get(Study, study_id) is None:
        raise InputError("there is no such study", place="study_id", value=study_id, remedy="record_study gives its id")
    row["configuration_id"] = _configuration_id(session, spec.model, spec.kernel)
    register_version(session, row["kind"], row["algorithm_version"])
    if row["status"] in ("succeeded", "failed"):
        digests = {row["digest"], announced or row["digest"]}
        session.execute(sa.delete(Claim).where(Claim.digest.in_(digests)))
    if announced is not None and announced != row["digest"]:
        _rename(session, announced, row["digest"])
    run_id, entered = _set_status(session, row)
    if study_id is not None:
        link = {"study_id": study_id, "run_id": run_id}
        session.execute(insert(session, StudyRun).values(link).on_conflict_do_nothing())
    return run_id, entered


def _rename(session: Session, announced: str, digest: str) -> None:
    """Give the row under which a simulation was announced the digest of its result, or delete it if that exists."""
    unfinished = (Run.digest == announced, Run.status != "succeeded")
    if session.scalar(sa.select(Run.id).where(Run.digest == digest)) is None:
        session.execute(sa.update(Run).where(*unfinished).values(digest=digest))
    else:
        session.execute(sa.delete(Run).where(*unfinished))


def extended_run(session: Session, row: Mapping[str, Any], run_id: int) -> int | None:
    """Id of the largest finished simulation of the same ensemble that this one extends; None if there is none.

    The run ``row`` contains every shard of it, except that the last shard may have more networks here.
    """
    ours = dict(row["shards"])
    earlier = sa.select(Run.id, Run.shards).where(
        Run.ensemble_digest == row["ensemble_digest"],
        Run.status == "succeeded",
        Run.id != run_id,
        Run.samples < row["samples"],
    )
    for earlier_id, shards in session.execute(earlier.order_by(Run.samples.desc(), Run.id.desc())):
        if shards and all(ours.get(index, 0) >= count for index, count in shards):
            return int(earlier_id)
    return None


def register_version(session: Session, algorithm: str, version: int) -> None:
    """Runs made by older versions of the algorithm are shown as superseded from now on."""
    known = session.scalar(sa.select(AlgorithmVersion.version).where(AlgorithmVersion.algorithm == algorithm))
    if known is None or known < version:
        statement = insert(session, AlgorithmVersion).values(algorithm=algorithm, version=version)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["algorithm"], set_={"version": version}, where=AlgorithmVersion.version < version
            )
        )


def _set_status(session: Session, row: dict[str, Any]) -> tuple[int, bool]:
    """Give the run of this digest the status and fields of ``row`` if that status may follow the present one.

    Returns (id, whether the run was changed).
    """
    statement = insert(session, Run).values(row).on_conflict_do_nothing(index_elements=["digest"]).returning(Run.id)
    run_id = session.execute(statement).scalar()
    if run_id is None:
        run_id = next(iter(move(session, row["status"], Run.digest == row["digest"], fields=row)), None)
    if run_id is not None:
        return int(run_id), True
    return int(session.execute(sa.select(Run.id).where(Run.digest == row["digest"])).scalar_one()), False


def move(
    session: Session, status: str, *which: sa.ColumnElement[bool], fields: dict[str, Any] | None = None
) -> list[int]:
    """Give ``status`` to the matching runs whose present status it may follow; returns their ids."""
    changes = {"error_message": None, "updated_at": utc_now(), **(fields or {}), "status": status}
    allowed = sa.update(Run).where(*which, Run.status.in_(COMES_FROM[status]))
    moved = session.execute(allowed.values(changes).returning(Run.id), execution_options={"synchronize_session": False})
    return sorted(moved.scalars())


def _configuration_id(session: Session, model: ResNet, kernel: InputKernel) -> int:
    identity = kernel.identity()
    kernel_id = get_or_create(
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
    return get_or_create(
        session,
        Configuration,
        {
            "digest": digest_of({"model": model.identity(), "kernel": identity}),
            "kernel_id": kernel_id,
            **model_fields(model),
        },
    )
