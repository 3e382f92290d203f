"""Statements that SQLite and PostgreSQL write alike but SQLAlchemy offers only for each dialect separately."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.schema.models import Base
from db.schema.types import UTCDateTime, utc_now


def table_of(model: type[Base]) -> sa.Table:
    """The table behind a model."""
    assert isinstance(model.__table__, sa.Table)
    return model.__table__


def insert(session: Session, model: type[Base]) -> Any:
    """An INSERT statement that allows ON CONFLICT."""
    maker = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[session.get_bind().dialect.name]
    return maker(table_of(model))


def upsert(session: Session, model: type[Base], rows: list[dict[str, Any]]) -> None:
    """Insert rows; a row whose primary key exists already is overwritten."""
    if not rows:
        return
    statement = insert(session, model)
    keys = [column.name for column in table_of(model).primary_key]
    renewed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=renewed), rows)


def get_or_create(session: Session, model: Any, row: dict[str, Any]) -> int:
    """Id of the row with the digest of ``row``; the row is inserted if there is none."""
    statement = insert(session, model).values(row).on_conflict_do_nothing(index_elements=["digest"])
    created = session.execute(statement.returning(model.id)).scalar()
    if created is not None:
        return int(created)
    return int(session.execute(sa.select(model.id).where(model.digest == row["digest"])).scalar_one())


def utc_in(session: Session, seconds: float) -> sa.ColumnElement[Any]:
    """The moment ``seconds`` from now, by the clock of the database."""
    if session.get_bind().dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:%M:%f000", "now", f"{seconds:+f} seconds", type_=UTCDateTime())
    return sa.type_coerce(utc_now(), UTCDateTime()) + sa.literal(timedelta(seconds=seconds), sa.Interval())
