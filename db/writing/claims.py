"""Claims: which process is computing which result, so that no result is computed twice and no run stays "running".

A claim is for the digest of a result and belongs to a holder (one per worker process). It expires by the clock of the
database unless the holder renews it. Then another holder may take it, and the run, having no valid claim, becomes
stale. The holder chooses how long its claims last, so that a process with other settings cannot end a live run.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.schema.models import Claim, Run
from db.schema.rows import computing_claim
from db.schema.statements import insert, utc_in
from db.schema.types import utc_now
from db.session import Database
from db.writing import lifecycle
from eftcore.errors import EnvironmentProblem

HEARTBEAT_SECONDS = 20.0
LEASE_SECONDS = 120.0
"""Seconds that a claim lasts without a heartbeat: five heartbeats may be lost."""

_NAMED = 3
"""Processes at work that a message names."""

logger = logging.getLogger(__name__)


def new_holder() -> str:
    """A name for this process as a holder of claims: its host, its process number, and a random part."""
    return f"{_here()}:{os.getpid()}:{secrets.token_hex(4)}"


def _here() -> str:
    """The host and its namespace of process numbers.

    Containers may share a host name, but each counts its processes separately.
    """
    name = socket.gethostname()
    try:
        return f"{name}:{machine()[:8]}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return f"{name}:{machine()}"


def machine() -> str:
    """The machine whatever its name, since it was started; containers on it are not told apart."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return f"{uuid.getnode():x}"


def claim(db: Database, digest: str, *, task: str, holder: str, **options: Any) -> bool:
    """Claim the computation of a result; False while another holder has a claim. ``options`` as in take()."""
    with db.session() as session:
        return take(session, digest, task=task, holder=holder, **options)


def take(
    session: Session,
    digest: str,
    *,
    task: str,
    holder: str,
    lease_seconds: float = LEASE_SECONDS,
    flow_run_id: str | None = None,
    task_run_id: str | None = None,
) -> bool:
    """claim() as part of a transaction. A transaction that also changes runs does so afterwards, to avoid deadlocks.

    Args:
        digest: what is claimed.
        task: a text that says what is being computed.
        lease_seconds: how long the claim lasts without a heartbeat.
        flow_run_id, task_run_id: ids of the flow run and the task run in Prefect.
    """
    about = {"task": task, "holder": holder, "flow_run_id": flow_run_id, "task_run_id": task_run_id}
    return bool(_taken(session, [digest], about, lease_seconds))


def claim_computing(
    db: Database,
    digests: Collection[str],
    *,
    holder: str,
    origin: Mapping[str, str | None],
    lease_seconds: float = LEASE_SECONDS,
) -> set[str]:
    """Claim the computation of stored results in one transaction; returns those that no other holder has claimed.

    These claims are beside those of runs: a run is claimed by the process of its study, and what it consists of by the
    process that computes it.

    Args:
        digests: digests of the results in the store.
        origin: ``flow_run_id`` and ``task_run_id``, as in take().
    """
    described = {"task": "computing", "holder": holder, "flow_run_id": None, "task_run_id": None, **origin}
    claimed = {computing_claim(digest): digest for digest in digests}
    order = sorted(claimed)  # in one order everywhere, so that two transactions do not wait for each other
    with db.session() as session:
        return {claimed[name] for name in _taken(session, order, described, lease_seconds)}


def _taken(session: Session, digests: Iterable[str], about: Mapping[str, Any], lease_seconds: float) -> list[str]:
    """Claim what no other holder has a valid claim to; returns the claimed digests."""
    when = {"claimed_at": utc_now(), "heartbeat_at": utc_now(), "expires_at": utc_in(session, lease_seconds)}
    statement = insert(session, Claim).values(**when)
    statement = statement.on_conflict_do_update(
        index_elements=["digest"],
        set_={name: statement.excluded[name] for name in (*about, *when)},
        where=sa.or_(Claim.holder == about["holder"], Claim.expires_at < utc_now()),
    )
    rows = [{"digest": digest, **about} for digest in digests]
    return list(session.execute(statement.returning(Claim.digest), rows).scalars())


def is_claimed(db: Database, digest: str) -> bool:
    """Whether anybody has a valid claim of this digest."""
    with db.reading() as session:
        valid = sa.select(Claim.digest).where(Claim.digest == digest, Claim.expires_at >= utc_now())
        return session.scalar(valid) is not None


def renew(db: Database, holder: str, lease_seconds: float = LEASE_SECONDS) -> set[str]:
    """Renew all claims of the holder (a heartbeat); returns the digests that it still holds.

    A run of the holder that was marked stale in the meantime is marked running again.
    """
    with db.session() as session:
        alive = {"heartbeat_at": utc_now(), "expires_at": utc_in(session, lease_seconds)}
        renewed = sa.update(Claim).where(Claim.holder == holder).values(alive).returning(Claim.digest)
        held = set(session.execute(renewed, execution_options={"synchronize_session": False}).scalars())
        if held:
            lifecycle.move(session, "running", Run.digest.in_(held), Run.status == "stale")
    return held


def release(db: Database, holder: str, digest: str | None = None) -> None:
    """Give up one claim of the holder, or all of them. A run that is still "running" then counts as stale."""
    with db.session() as session:
        statement = sa.delete(Claim).where(Claim.holder == holder)
        session.execute(statement if digest is None else statement.where(Claim.digest == digest))


def release_dead(db: Database) -> None:
    """Give up the claims of processes of this machine that have ended; those of other machines expire by themselves."""
    with db.session() as session:
        _release_dead(session)


def process_of(holder: str) -> int | None:
    """Number of the process that is this holder; None if it is one of another machine or container."""
    here, _, rest = holder.rpartition(":")[0].rpartition(":")
    return int(rest) if here == _here() else None


def _release_dead(session: Session) -> None:
    processes = {holder: process_of(holder) for holder in session.scalars(sa.select(Claim.holder).distinct())}
    gone = [holder for holder, process in processes.items() if process is not None and not _runs(process)]
    session.execute(sa.delete(Claim).where(Claim.holder.in_(gone)))


def refuse_while_at_work(session: Session) -> None:
    """Raise EnvironmentProblem while any process computes results; none can start before the transaction ends.

    Deletions call it first, since a running study would miss the deleted rows. Claims of processes of this machine that
    have ended do not count.
    """
    _let_nobody_start(session)
    _release_dead(session)
    living = sa.select(Claim).where(Claim.expires_at >= utc_now()).order_by(Claim.claimed_at, Claim.task)
    # of each process the first claim, which for that of a study is the study's; its parts end with a random one
    first = {claim.holder.rpartition(":")[0]: claim for claim in reversed(session.scalars(living).all())}
    if first:
        earliest = sorted(first.values(), key=lambda claim: claim.claimed_at)
        who = ", ".join(
            f"{claim.task} by {claim.holder} since {claim.claimed_at:%Y-%m-%d %H:%M:%S} UTC"
            for claim in earliest[:_NAMED]
        )
        if len(first) > _NAMED:
            who += f" and {len(first) - _NAMED} more"
        raise EnvironmentProblem(
            f"results are being computed for it ({who})",
            place="database",
            remedy=f"try again when that has ended, or, if its process was killed, {LEASE_SECONDS:.0f} seconds later",
        )


def _let_nobody_start(session: Session) -> None:
    """Lock the table of claims on PostgreSQL, so that nobody takes one; SQLite allows only one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text("LOCK TABLE claims IN SHARE ROW EXCLUSIVE MODE"))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def sweep_stale(db: Database) -> list[int]:
    """Mark as stale the running runs without a valid claim; returns their ids. Never touches a live run.

    A worker that was only slow marks its run as running again by its next heartbeat, or completes it.
    """
    with db.session() as session:
        _let_nobody_start(session)  # no worker may be between taking a claim and starting its run
        alive = sa.exists().where(Claim.digest == Run.digest, Claim.expires_at >= utc_now())
        return lifecycle.move(session, "stale", ~alive)


@contextmanager
def heartbeat(
    db: Database, holder: str, *, every: float = HEARTBEAT_SECONDS, lease_seconds: float = LEASE_SECONDS
) -> Iterator[None]:
    """Renew the holder's claims from a thread while the block runs; ``release`` gives up claims left at its end."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every):
            try:
                renew(db, holder, lease_seconds)
            except EnvironmentProblem as problem:  # the next heartbeat may succeed before the claims expire
                logger.warning("heartbeat of %s: %s", holder, problem)

    thread = threading.Thread(target=beat, name="eft-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
