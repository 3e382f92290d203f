"""The state machine of runs, the one place where a run gets or changes its status.

    pending --> running --> succeeded
       |          |  ^
       |          v  |
       +------> failed, stale

A run whose worker no longer renews its claim is stale; it may be started again, and a worker that was only slow may
still complete it. A failed run may be tried again. A run that succeeded never changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.schema.models import AlgorithmVersion, Claim, Configuration, Kernel, Run, Study, StudyRun
from db.schema.rows import model_fields
from db.schema.statements import get_or_create_all, insert, table_of
from db.schema.types import utc_now
from eftcore.errors import InputError
from eftcore.identity import digest_of
from eftcore.specs import AnySpec, CheckSpec

COMES_FROM: dict[str, tuple[str, ...]] = {
    "pending": ("failed", "stale"),
    "running": ("pending", "running", "failed", "stale"),
    "succeeded": ("pending", "running", "failed", "stale"),
    "failed": ("pending", "running", "failed", "stale"),
    "stale": ("running",),
}
"""Statuses that each status may follow; every status but stale may also be the first of a run. "running" may follow
"running" where another worker takes over."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run and the status that it is to get.

    Attributes:
        spec: what it computes.
        row: its columns of ``runs``, status and digest among them.
        announced: another digest under which it was entered before its own was known.
    """

    spec: AnySpec | CheckSpec
    row: dict[str, Any]
    announced: str | None = None


def enter(
    session: Session,
    spec: AnySpec | CheckSpec,
    row: dict[str, Any],
    study_id: int | None,
    announced: str | None = None,
) -> tuple[int, bool]:
    """Give a run the status of ``row``. Returns (id, whether the status changed); a run that succeeded is unchanged."""
    return enter_all(session, [Entry(spec=spec, row=row, announced=announced)], study_id)[row["digest"]]


def enter_all(session: Session, entries: Sequence[Entry], study_id: int | None) -> dict[str, tuple[int, bool]]:
    """Give each run the status of its row: (id, whether the status changed) by digest, as ``enter``.

    The claims of runs that ended are removed first; claims are written before runs everywhere, to avoid deadlocks.
    """
    if study_id is not None and session.get(Study, study_id) is None:
        raise InputError("there is no such study", place="study_id", value=study_id, remedy="record_study gives its id")
    configurations = _configuration_ids(session, [entry.spec for entry in entries])
    for algorithm, version in {(entry.row["kind"], entry.row["algorithm_version"]) for entry in entries}:
        register_version(session, algorithm, version)
    ended = [entry for entry in entries if entry.row["status"] in ("succeeded", "failed")]
    claimed = {digest for entry in ended for digest in (entry.row["digest"], entry.announced) if digest}
    if claimed:
        session.execute(sa.delete(Claim).where(Claim.digest.in_(claimed)))
    for entry, configuration_id in zip(entries, configurations, strict=True):
        entry.row["configuration_id"] = configuration_id
        if entry.announced is not None and entry.announced != entry.row["digest"]:
            _rename(session, entry.announced, entry.row["digest"])
    entered = _set_status(session, {entry.row["digest"]: entry.row for entry in entries})
    if study_id is not None:
        links = [
            {"study_id": study_id, "run_id": run_id} for run_id in sorted({run_id for run_id, _ in entered.values()})
        ]
        session.execute(insert(session, StudyRun).on_conflict_do_nothing(), links)
    return entered


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


def _set_status(session: Session, rows: dict[str, dict[str, Any]]) -> dict[str, tuple[int, bool]]:
    """Give the run of each digest the status and fields of its row if that status may follow the present one.

    Returns (id, whether the run was changed) by digest.
    """
    table = table_of(Run)
    # looked for in one order everywhere, so that no two processes wait for each other
    query = sa.select(Run.digest, Run.id, Run.status).where(Run.digest.in_(rows)).order_by(Run.digest).with_for_update()
    present = {digest: (int(run_id), status) for digest, run_id, status in session.execute(query)}
    entered: dict[str, tuple[int, bool]] = {}
    for new in _of_the_same_columns([row for digest, row in rows.items() if digest not in present]):
        statement = insert(session, Run).on_conflict_do_nothing(index_elements=["digest"])
        made = session.execute(statement.returning(table.c.digest, table.c.id), new)
        entered |= {digest: (int(run_id), True) for digest, run_id in made}
    if len(present) + len(entered) < len(rows):  # another process inserted some after our look
        found = session.execute(query)
        present |= {digest: (int(run_id), status) for digest, run_id, status in found if digest not in entered}
    for digest, (run_id, status) in present.items():
        entered[digest] = run_id, status in COMES_FROM[rows[digest]["status"]]
    for some in _of_the_same_columns([row for digest, row in rows.items() if digest in present and entered[digest][1]]):
        fields: dict[str, Any] = {name: sa.bindparam(f"to_{name}") for name in some[0]}
        changes = {"error_message": None, **fields, "updated_at": utc_now()}
        changed = [{f"to_{name}": value for name, value in row.items()} for row in some]
        for row, values in zip(some, changed, strict=True):
            values["at"] = present[row["digest"]][0]
        session.connection().execute(sa.update(table).where(table.c.id == sa.bindparam("at")).values(changes), changed)
    return {digest: entered[digest] for digest in rows}


def _of_the_same_columns(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows that one statement can write together."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault(tuple(sorted(row)), []).append(row)
    return list(alike.values())


def move(
    session: Session, status: str, *which: sa.ColumnElement[bool], fields: dict[str, Any] | None = None
) -> list[int]:
    """Give ``status`` to the matching runs whose present status it may follow; returns their ids."""
    changes = {"error_message": None, "updated_at": utc_now(), **(fields or {}), "status": status}
    allowed = sa.update(Run).where(*which, Run.status.in_(COMES_FROM[status]))
    moved = session.execute(allowed.values(changes).returning(Run.id), execution_options={"synchronize_session": False})
    return sorted(moved.scalars())


def _configuration_ids(session: Session, specs: Sequence[AnySpec | CheckSpec]) -> list[int]:
    """Ids of the configurations that these specs are about; those that are new are inserted."""
    identities = [spec.kernel.identity() for spec in specs]
    kernels = [digest_of(identity) for identity in identities]
    kernel_ids = get_or_create_all(
        session,
        Kernel,
        (
            {
                "digest": digest,
                "label": spec.kernel.label,
                "n_inputs": spec.kernel.n_inputs,
                "variance": spec.kernel.variance,
                "correlation": spec.kernel.correlation,
                "matrix": identity["matrix"],
            }
            for spec, identity, digest in zip(specs, identities, kernels, strict=True)
        ),
    )
    configurations = [
        digest_of({"model": spec.model.identity(), "kernel": identity})
        for spec, identity in zip(specs, identities, strict=True)
    ]
    ids = get_or_create_all(
        session,
        Configuration,
        (
            {"digest": digest, "kernel_id": kernel_ids[kernel], **model_fields(spec.model)}
            for spec, kernel, digest in zip(specs, kernels, configurations, strict=True)
        ),
    )
    return [ids[digest] for digest in configurations]
