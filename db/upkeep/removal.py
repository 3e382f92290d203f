"""Deleting studies, runs, and rows that nothing needs any more. Each function has a dry run.

Nothing is deleted while a study is running: it might need the deleted rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.schema.models import Base, Claim, Configuration, Kernel, Run, Study, StudyRun
from db.schema.statements import utc_in
from db.session import Database, sqlite_path
from db.writing import claims
from eftcore.errors import InputError

_DAY = 24 * 3600.0


def delete_study(db: Database, study: str, *, dry_run: bool = False) -> dict[str, int]:
    """Delete a study (name or digest) and its runs that no other study uses; returns the deleted rows by table.

    Raises InputError when there is no such study, EnvironmentProblem while results are being computed.
    """
    chosen = sa.select(Study.id).where(sa.or_(Study.name == study, Study.digest == study))
    with _removing(db, dry_run) as (session, gone):
        studies = session.scalars(chosen).all()
        if not studies:
            raise InputError("there is no such study in the database", place="study", value=study)
        theirs = sa.select(StudyRun.run_id).where(StudyRun.study_id.in_(studies))
        shared = sa.select(StudyRun.run_id).where(StudyRun.study_id.not_in(studies))
        session.execute(sa.delete(Run).where(Run.id.in_(theirs), Run.id.not_in(shared)))
        session.execute(sa.delete(Study).where(Study.id.in_(studies)))
    return gone


def delete_runs(db: Database, run_ids: Sequence[int], *, dry_run: bool = False) -> dict[str, int]:
    """Delete runs with their trajectories and comparisons; returns the number of deleted rows by table.

    Raises InputError when one of them does not exist, EnvironmentProblem while results are being computed.
    """
    wanted = {int(run_id) for run_id in run_ids}
    with _removing(db, dry_run) as (session, gone):
        missing = wanted - set(session.scalars(sa.select(Run.id).where(Run.id.in_(wanted))))
        if missing:
            raise InputError("there is no such run", place="run_id", value=sorted(missing))
        session.execute(sa.delete(Run).where(Run.id.in_(wanted)))
    return gone


def collect_garbage(db: Database, *, unsuccessful: bool = False, dry_run: bool = False) -> dict[str, int]:
    """Delete rows that nothing needs; returns their number by table. An SQLite file then returns its free space.

    These are configurations and kernels without runs, studies without runs that were created more than a day ago, and
    claims that expired more than a day ago.

    Raises EnvironmentProblem while results are being computed.

    Args:
        unsuccessful: also runs that failed, are stale, or have been pending for a day.
    """
    with _removing(db, dry_run) as (session, gone):
        yesterday = utc_in(session, -_DAY)
        if unsuccessful:
            forgotten = sa.and_(Run.status == "pending", Run.updated_at < yesterday)
            session.execute(sa.delete(Run).where(sa.or_(Run.status.in_(("failed", "stale")), forgotten)))
        session.execute(sa.delete(Claim).where(Claim.expires_at < yesterday))
        members = sa.select(StudyRun.study_id)
        session.execute(sa.delete(Study).where(Study.id.not_in(members), Study.created_at < yesterday))
        session.execute(sa.delete(Configuration).where(Configuration.id.not_in(sa.select(Run.configuration_id))))
        session.execute(sa.delete(Kernel).where(Kernel.id.not_in(sa.select(Configuration.kernel_id))))
    if not dry_run and sqlite_path(db.url) is not None:
        with db.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("VACUUM")
    return gone


@contextmanager
def _removing(db: Database, dry_run: bool) -> Iterator[tuple[Session, dict[str, int]]]:
    """One transaction, rolled back in a dry run; its end fills the dictionary with the deleted rows by table."""
    gone: dict[str, int] = {}
    with db.session() as session:
        if not dry_run:
            claims.refuse_while_at_work(session)
        before = _count(session)
        yield session, gone
        after = _count(session)
        gone.update({name: before[name] - left for name, left in after.items() if left < before[name]})
        if dry_run:
            session.rollback()


def _count(session: Session) -> dict[str, int]:
    tables = Base.metadata.sorted_tables
    columns = [sa.select(sa.func.count()).select_from(table).scalar_subquery() for table in tables]
    counts = session.execute(sa.select(*columns)).one()
    return {table.name: int(count) for table, count in zip(tables, counts, strict=True)}
