"""Studies: how far they are, what users wrote about them, whether results are new. Every function is one statement."""

from __future__ import annotations

import pandas as pd
import sqlalchemy as sa

from db.reading.queries import _frame
from db.schema.models import Claim, ComparisonRow, Run, SavedView, Study, StudyAnnotation, StudyRun, StudyTag
from db.schema.types import UTCDateTime, utc_now
from db.session import Database


def run_counts(db: Database) -> pd.DataFrame:
    """Number of runs of each kind and status: columns kind, status, runs."""
    count = sa.func.count().label("runs")
    return _frame(db, sa.select(Run.kind, Run.status, count).group_by(Run.kind, Run.status))


def study_progress(db: Database) -> pd.DataFrame:
    """Progress of every study, newest first: one row per study, kind and status of runs.

    Columns are study_id, name, digest, title, notes, tags (comma-separated) and archived (as users wrote them),
    created_at, spec, runs_asked (absent where an older version of the program recorded the study), kind, status, runs
    (their number) and updated_at (of the newest run). A study without runs has one row in which the columns about runs
    are absent.
    """
    tags = sa.select(sa.func.aggregate_strings(StudyTag.tag, ", ")).where(StudyTag.study_id == Study.id)
    query = (
        sa.select(
            Study.id.label("study_id"),
            Study.name,
            Study.digest,
            StudyAnnotation.title,
            StudyAnnotation.notes,
            tags.scalar_subquery().label("tags"),
            sa.func.coalesce(StudyAnnotation.archived, sa.false()).label("archived"),
            Study.created_at,
            Study.spec,
            Study.runs_asked,
            Run.kind,
            Run.status,
            sa.func.count(Run.id).label("runs"),
            sa.func.max(Run.updated_at, type_=UTCDateTime()).label("updated_at"),
        )
        .outerjoin(StudyAnnotation)
        .outerjoin(StudyRun, StudyRun.study_id == Study.id)
        .outerjoin(Run, Run.id == StudyRun.run_id)
        .group_by(Study.id, StudyAnnotation.study_id, Run.kind, Run.status)
        .order_by(Study.id.desc())
    )
    return _frame(db, query)


def studies_at_work(db: Database) -> pd.DataFrame:
    """Claims of processes that execute a study now: digest of the claim (rows.study_claim), holder and claimed_at."""
    living = sa.select(Claim.digest, Claim.holder, Claim.claimed_at)
    return _frame(db, living.where(Claim.task.startswith("study "), Claim.expires_at >= utc_now()))


def study_list(db: Database) -> pd.DataFrame:
    """study_id, name, digest, title (absent where no user gave one) and archived of every study, newest first."""
    query = (
        sa.select(
            Study.id.label("study_id"),
            Study.name,
            Study.digest,
            StudyAnnotation.title,
            sa.func.coalesce(StudyAnnotation.archived, sa.false()).label("archived"),
        )
        .outerjoin(StudyAnnotation)
        .order_by(Study.id.desc())
    )
    return _frame(db, query)


def saved_views(db: Database) -> pd.DataFrame:
    """name, page and query string of every view that was saved, by name."""
    return _frame(db, sa.select(SavedView.name, SavedView.page, SavedView.query).order_by(SavedView.name))


def newest_results(db: Database) -> tuple[object, ...]:
    """A mark of the finished results in the database, which differs when there are other ones."""
    with db.reading() as session:
        finished = sa.select(sa.func.count()).select_from(Run).where(Run.status == "succeeded").scalar_subquery()
        compared = sa.select(sa.func.count(), sa.func.max(ComparisonRow.updated_at), finished)
        return tuple(session.execute(compared).one())
