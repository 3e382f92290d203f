"""A part of a database: the results of some studies, or those that a search finds. Every query of db.reading sees it.

What is asked for by its id (``queries.arrays``), progress of studies, and SQL that a user writes are not restricted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.reading.search import NAMES, OF_STUDIES, Condition, names_in, where
from db.schema.models import Study, StudyAnnotation, StudyRun, StudyTag
from db.schema.views import OF_RESULTS, OF_SIMULATION, v_runs, v_windows
from db.session import Database


@dataclass(frozen=True, kw_only=True)
class Restriction:
    """What is seen of a database.

    Attributes:
        studies: digests of studies; what is compared must belong to one of them together. Empty: no restriction.
        search: a condition on windows. Runs are seen that a window which it finds is made of, and simulations that it
            finds by themselves. None: no restriction.
    """

    studies: tuple[str, ...] = ()
    search: Condition | None = None

    def __bool__(self) -> bool:
        return bool(self.studies) or self.search is not None


class RestrictedDatabase(Database):
    """A database of which only a part is seen; it uses the connections of the whole."""

    def __init__(self, whole: Database, restriction: Restriction) -> None:
        self.url, self.read_only, self.engine = whole.url, whole.read_only, whole.engine
        self.restriction = restriction


def narrowed(db: Database, query: sa.Select[Any]) -> sa.Select[Any]:
    """The query with the restriction of its database, on every view of results that it reads."""
    if not isinstance(db, RestrictedDatabase):
        return query
    for view in query.columns_clause_froms:
        if view in OF_RESULTS:
            assert isinstance(view, sa.TableClause)
            query = query.where(*_conditions(view, db.restriction))
    return query


def _conditions(view: sa.TableClause, restriction: Restriction) -> list[sa.ColumnElement[bool]]:
    found = []
    if restriction.studies:
        found.append(_in_one_study(_run_ids(view), Study.digest.in_(restriction.studies)))
    if restriction.search is not None:
        found.append(_found(view, restriction.search))
    return found


def _run_ids(view: sa.TableClause) -> Sequence[sa.ColumnElement[Any]]:
    """The columns of a view that say which runs a row is made of."""
    for names in (
        ("run_id",),
        ("check_run_id",),
        ("prediction_run_id", "reference_run_id"),
        ("prediction_run_id", "measurement_run_id"),
        ("prediction_run_id", "simulation_run_id"),
        ("simulation_run_id",),
    ):
        if set(names) <= set(view.c.keys()):
            return [view.c[name] for name in names]
    raise AssertionError(f"{view.name} names no runs")


def _in_one_study(
    run_ids: Sequence[sa.ColumnElement[Any]], which: sa.ColumnElement[bool], *, tags: bool = False
) -> sa.ColumnElement[bool]:
    """Whether there is a study for which ``which`` holds, and to which all these runs belong."""
    members = [sa.alias(StudyRun.__table__) for _ in run_ids]
    query = sa.select(sa.literal(1)).select_from(Study).outerjoin(StudyAnnotation)
    if tags:
        query = query.join(StudyTag)
    for member, run_id in zip(members, run_ids, strict=True):
        query = query.join(member, sa.and_(member.c.study_id == Study.id, member.c.run_id == run_id))
    return query.where(which).correlate(*{column.table for column in run_ids}).exists()


def _found(view: sa.TableClause, search: Condition) -> sa.ColumnElement[bool]:
    """The rows of a view that a search finds."""

    def condition(on: sa.TableClause) -> sa.ColumnElement[bool]:
        def of_studies(
            name: str, holds: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[bool]]
        ) -> sa.ColumnElement[bool]:
            if name == "tag":
                return _in_one_study(_run_ids(on), holds(StudyTag.__table__.c.tag), tags=True)
            named = sa.or_(holds(Study.__table__.c.name), holds(StudyAnnotation.__table__.c.title))
            return _in_one_study(_run_ids(on), named)

        return where(search, on.c, of_studies)

    if view is v_windows:
        return condition(v_windows)
    windows = condition(v_windows)
    runs = sa.union(*(sa.select(run_id).where(windows) for run_id in _run_ids(v_windows)))
    made_of_them = sa.and_(*(run_id.in_(runs) for run_id in _run_ids(view)))
    if view is v_runs and {NAMES[name] for name in names_in(search)} <= {*OF_SIMULATION, *OF_STUDIES}:
        return sa.or_(made_of_them, sa.and_(v_runs.c.kind == "simulation", condition(v_runs)))
    return made_of_them
