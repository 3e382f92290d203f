"""Databases of released revisions, to be put on either kind of database."""

from __future__ import annotations

import shutil
from pathlib import Path

import sqlalchemy as sa

from db.upkeep import migrate

RELEASED = sorted((Path(__file__).parents[1] / "released").glob("*.db"))
"""A database as each released revision left it: one study, two simulations of real networks, a failed run; the later
runs up to number 40 were deleted. From 0002 on also a top-up, a Wick prediction that chose its order, a pending run;
from 0003 on a closure held against that prediction; from 0004 on windows that say from where they are resolved; from
0005 on elapsed times; from 0008 on a prediction with the next order in 1/n; from 0009 on from which widths on its
predictions hold; from 0010 on its third cumulant; from 0011 on a measurement of it; from 0014 on what users wrote.
None says how many runs its study asks for, and its simulations are of a version without histograms."""


def put_released(url: sa.URL, path: Path) -> None:
    """The database of a released revision as it was: the file itself, or its rows on PostgreSQL."""
    if url.get_backend_name() == "sqlite":
        shutil.copy(path, str(url.database))
        return
    migrate.upgrade(url, path.stem)
    old, new = sa.create_engine(f"sqlite:///{path}"), sa.create_engine(url)
    tables = sa.MetaData()
    tables.reflect(new, only=lambda name, _: name != migrate.VERSION_TABLE)
    with old.connect() as source, new.begin() as target:
        for table in tables.sorted_tables:
            rows = source.execute(sa.select(table)).mappings().all()
            if rows:
                target.execute(table.insert(), [dict(row) for row in rows])
            if "id" in table.c:
                last = source.scalar(sa.text(f"SELECT seq FROM sqlite_sequence WHERE name = '{table.name}'"))
                target.execute(sa.select(sa.func.setval(f"{table.name}_id_seq", last)))
    old.dispose()
    new.dispose()


def contents(url: sa.URL, tables: set[str]) -> dict[str, list[str]]:
    """Every row of some tables, as text."""
    engine = sa.create_engine(url)
    stored = sa.MetaData()
    stored.reflect(engine, only=sorted(tables))
    with engine.connect() as connection:
        found = {
            table.name: sorted(str(sorted(row.items())) for row in connection.execute(sa.select(table)).mappings())
            for table in stored.sorted_tables
        }
    engine.dispose()
    return found
