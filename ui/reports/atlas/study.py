"""Asking the database for results of one study."""

from __future__ import annotations

import re

import pandas as pd

from db.reading import queries
from db.session import Database
from eftcore.errors import InputError


def in_study(name: str, run_id: str = "prediction_run_id") -> str:
    """SQL condition that selects runs of the newest study of this name; older ones may have other contents."""
    newest = f"SELECT MAX(id) FROM studies WHERE name = '{name}'"
    return f"{run_id} IN (SELECT run_id FROM study_runs WHERE study_id = ({newest}))"


def ask(db: Database, sql: str) -> pd.DataFrame:
    """The answer of the database. Raises InputError where it has no rows, with the study that would make them."""
    table = queries.select(db, sql, max_rows=None)
    if table.empty:
        study = re.findall(r"studies WHERE name = '([^']+)'", sql)[-1]
        raise InputError("is not complete", place="study", value=study, remedy=f"`eft run {study}` goes on")
    return table
