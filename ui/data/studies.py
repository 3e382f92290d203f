"""The frames behind the studies page: progress of each study, failed runs and their causes.

``build_*`` functions read a database and do not use Streamlit. The docstring of each gives the number of SQL statements
that it executes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from db.reading import queries
from db.reading.study_queries import study_progress
from db.schema.models import ASKED_KINDS
from db.session import Database
from db.settings import bundled_studies
from ui.data.study_file import data_files, recorded_study_toml

FRESH_SECONDS = 120
"""An incomplete study whose last result is younger than this may be running."""

MOST_FAILURES = 50


def build_studies(db: Database) -> pd.DataFrame:
    """One row per study, newest first. One statement.

    Columns study_id, name, created_at, updated_at (of its newest run), predictions, simulations, measurements, failed
    (numbers of runs), asked (runs that the study asks for; absent where an older version of the program recorded it),
    done (succeeded / asked, at most 1), spec (content of the study file).
    """
    rows = study_progress(db)
    studies = []
    for study_id, part in rows.groupby("study_id", sort=False):
        first = part.iloc[0]
        good = part[part["status"] == "succeeded"]
        counts = {f"{kind}s": int(good.loc[good["kind"] == kind, "runs"].sum()) for kind in ASKED_KINDS}
        failed = int(part.loc[part["status"] == "failed", "runs"].sum())
        spec = _plain(first["spec"])
        asked = first["runs_asked"]
        studies.append(
            {
                "study_id": study_id,
                "name": first["name"],
                "created_at": first["created_at"],
                "updated_at": part["updated_at"].max(),
                **counts,
                "failed": failed,
                "asked": asked,
                "done": math.nan if pd.isna(asked) else min(1.0, sum(counts.values()) / asked),
                "spec": spec,
            }
        )
    return pd.DataFrame(studies, columns=_COLUMNS).astype({"asked": "Int64"})


_COLUMNS = [
    "study_id",
    "name",
    "created_at",
    "updated_at",
    "predictions",
    "simulations",
    "measurements",
    "failed",
    "asked",
    "done",
    "spec",
]


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """A recorded study as a file to save under ``name``.

    ``command``, run in the folder of the file, finishes the study. ``bundled`` is a command that does so without the
    file if the bundled study of that name is unchanged; None if there is no such bundled study. ``data`` lists the
    files of real inputs that the study file needs beside it.
    """

    study: str
    name: str
    toml: str
    command: str
    bundled: str | None
    data: list[str]
    complete: bool


def build_study_files(studies: pd.DataFrame) -> list[StudyFile]:
    """A file for each study (rows of build_studies); names of several studies get the study's id. No statement."""
    files = []
    for row in studies.to_dict("records"):
        several = (studies["name"] == row["name"]).sum() > 1
        name = f"{row['name']}-{row['study_id']}.toml" if several else f"{row['name']}.toml"
        files.append(
            StudyFile(
                study=row["name"],
                name=name,
                toml=recorded_study_toml(row["spec"]),
                command=f"eft run {name}",
                bundled=f"eft run {row['name']}" if row["name"] in bundled_studies() and not several else None,
                data=data_files(row["spec"]),
                complete=row["done"] >= 1,
            )
        )
    return files


def _plain(spec: Any) -> Mapping[str, Any]:
    plain: Mapping[str, Any] = json.loads(spec) if isinstance(spec, str) else spec
    return plain


def may_be_running(studies: pd.DataFrame, now: pd.Timestamp) -> bool:
    """Whether any study with runs that neither succeeded nor failed yet has a result of the last FRESH_SECONDS."""
    counts = [f"{kind}s" for kind in ASKED_KINDS]
    open_ones = studies[(studies["done"] < 1) & (studies[counts].sum(axis=1) + studies["failed"] < studies["asked"])]
    pairs = zip(open_ones["updated_at"], open_ones["created_at"], strict=True)
    newest = pd.Series([created if pd.isna(updated) else updated for updated, created in pairs])
    return bool(((now - newest).dt.total_seconds() < FRESH_SECONDS).any()) if len(open_ones) else False


def build_failures(db: Database) -> pd.DataFrame:
    """The newest failed runs: id, description, cause and time of each. One statement."""
    rows = queries.runs(db, status="failed", limit=MOST_FAILURES)
    what = [_what(row) for row in rows.to_dict("records")]
    return pd.DataFrame(
        {"run": rows["run_id"], "what": what, "cause": rows["error_message"], "when": rows["updated_at"]}
    )


def _what(row: Mapping[Any, Any]) -> str:
    if row["kind"] == "prediction":
        return f"{row['closure']}: {row['activation']}, {row['kernel_label']}"
    if row["kind"] == "measurement":
        return f"next order, measured: {row['activation']}, {row['kernel_label']}"
    return f"simulation, n = {row['width']}, M = {row['samples']}: {row['activation']}, {row['kernel_label']}"
