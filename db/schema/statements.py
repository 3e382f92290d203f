"""Statements that SQLite and PostgreSQL write alike but SQLAlchemy offers only for each dialect separately."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def insert_plain(
    session: Session, model: type[Base], columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, renew: bool = False
) -> None:
    """Insert many rows of plain numbers and texts, a third of the time that SQLAlchemy takes for each value.

    Args:
        columns: their names, in the order of the values of each row.
        renew: overwrite rows whose primary key exists already; otherwise that is an error.
    """
    if not rows:
        return
    mark = "?" if session.get_bind().dialect.paramstyle == "qmark" else "%s"
    table = table_of(model)
    statement = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"
    if renew:
        keys = [column.name for column in table.primary_key]
        renewed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
        statement += f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {renewed}"
    session.connection().exec_driver_sql(statement, list(rows))


def get_or_create(session: Session, model: Any, row: dict[str, Any]) -> int:
    """Id of the row with the digest of ``row``; the row is inserted if there is none."""
    return get_or_create_all(session, model, [row])[row["digest"]]


def get_or_create_all(session: Session, model: Any, rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Ids by digest of the rows with the digests of ``rows``; those that do not exist are inserted."""
    wanted = {row["digest"]: row for row in rows}
    found = _ids(session, model, wanted)
    missing = [row for digest, row in wanted.items() if digest not in found]
    if missing:
        table = table_of(model)
        statement = insert(session, model).on_conflict_do_nothing(index_elements=["digest"])
        made = session.execute(statement.returning(table.c.digest, table.c.id), missing)
        found |= {digest: int(number) for digest, number in made}
        found |= _ids(session, model, wanted.keys() - found)  # another process inserted these meanwhile
    return found


def _ids(session: Session, model: Any, digests: Iterable[str]) -> dict[str, int]:
    wanted = list(digests)
    if not wanted:
        return {}
    found = session.execute(sa.select(model.digest, model.id).where(model.digest.in_(wanted)))
    return {digest: int(number) for digest, number in found}


def utc_in(session: Session, seconds: float) -> sa.ColumnElement[Any]:
    """The moment ``seconds`` from now, by the clock of the database."""
    if session.get_bind().dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:%M:%f000", "now", f"{seconds:+f} seconds", type_=UTCDateTime())
    return sa.type_coerce(utc_now(), UTCDateTime()) + sa.literal(timedelta(seconds=seconds), sa.Interval())
