"""Why a filter finds nothing, with the values that it could have asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from db.reading.queries import _filtered, _in_study
from db.schema.models import Study
from db.session import Database

MOST_NAMED = 20


def nothing_found(db: Database, view: sa.TableClause, run_ids: tuple[str, ...], asked: Mapping[str, Any]) -> str | None:
    """A text that says why no row of a view matches: which filters match nothing by themselves, and existing values.

    Args:
        run_ids: columns of the view that hold ids of runs; a filter by study applies to these.
        asked: columns of the view, or "study", with the values asked for; None for a column without a filter.

    Returns None where the view has no rows at all.
    """
    chosen = {name: value for name, value in asked.items() if value is not None}
    with db.reading() as session:

        def some(filters: Mapping[str, Any]) -> bool:
            query = _filtered(view, **{name: value for name, value in filters.items() if name != "study"})
            query = _in_study(query, filters.get("study"), *(view.c[name] for name in run_ids))
            return session.execute(query.limit(1)).first() is not None

        if not some({}):
            return None
        lines = []
        for name, value in chosen.items():
            if not some({name: value}):
                column = Study.name if name == "study" else view.c[name]
                there = session.scalars(sa.select(column).where(column.is_not(None)).distinct().order_by(column)).all()
                lines.append(_line(name, value, list(there)))
    if not lines:
        pairs = ", ".join(f"{name} = {value!r}" for name, value in chosen.items())
        return f"nothing matches {pairs} together, though there are rows for each alone; leave one out"
    return "\n".join(lines)


def _line(name: str, value: Any, there: list[Any]) -> str:
    if name == "study" and value in there:
        return f"study = {value!r}: has no rows here yet"
    named = ", ".join(str(item) for item in there[:MOST_NAMED]) or "none"
    more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
    return f"{name} = {value!r}: nothing matches; there are: {named}{more}"
