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
from db.reading.study_queries import studies_at_work, study_progress
from db.schema.models import ASKED_KINDS
from db.schema.rows import study_claim
from db.session import Database
from db.settings import bundled_studies
from ui.data.study_file import data_files, recorded_study_toml

MOST_FAILURES = 50


def build_studies(db: Database) -> pd.DataFrame:
    """One row per study, newest first. Two statements.

    Columns study_id, key (its name, with its id where several have that name), name, digest, title, notes, tags and
    archived (as users wrote them), state (RUNNING, COMPLETE, FAILED or UNFINISHED), holder and claimed_at (of the
    process that executes it; absent where none does), created_at, updated_at (of its newest run), predictions,
    simulations, measurements, failed (numbers of runs), asked (runs that the study asks for; absent where an older
    version of the program recorded it), done (succeeded / asked, at most 1), spec (content of the study file).
    """
    rows, claims = study_progress(db), studies_at_work(db).to_dict("records")
    studies = []
    for study_id, part in rows.groupby("study_id", sort=False):
        first = part.iloc[0]
        good = part[part["status"] == "succeeded"]
        counts = {f"{kind}s": int(good.loc[good["kind"] == kind, "runs"].sum()) for kind in ASKED_KINDS}
        failed = int(part.loc[part["status"] == "failed", "runs"].sum())
        asked = first["runs_asked"]
        done = math.nan if pd.isna(asked) else min(1.0, sum(counts.values()) / asked)
        claim = next((row for row in claims if row["digest"] == study_claim(first["digest"], row["holder"])), None)
        written = {name: first[name] for name in ("name", "digest", "title", "notes", "tags", "created_at")}
        studies.append(
            {
                "study_id": study_id,
                **written,
                "archived": bool(first["archived"]),
                "state": RUNNING if claim else COMPLETE if done >= 1 else FAILED if failed else UNFINISHED,
                "holder": claim and claim["holder"],
                "claimed_at": claim and claim["claimed_at"],
                "updated_at": part["updated_at"].max(),
                **counts,
                "failed": failed,
                "asked": asked,
                "done": done,
                "spec": _plain(first["spec"]),
            }
        )
    texts = dict.fromkeys(("title", "notes", "tags", "holder"), "object")  # in which what is absent stays None
    columns = {name: [study[name] for study in studies] for name in _COLUMNS}
    found = pd.DataFrame({name: pd.Series(values, dtype=texts.get(name)) for name, values in columns.items()})
    found["asked"] = found["asked"].astype("Int64")
    several = found["name"].duplicated(keep=False)
    found["key"] = found["name"].where(~several, found["name"] + "-" + found["study_id"].astype(str))
    return found


RUNNING, COMPLETE, FAILED, UNFINISHED = "running", "complete", "failed runs", "unfinished"
"""States of a study: some process executes it now; every run that it asks for succeeded; some failed; others are
missing, and no process computes them."""

_COLUMNS = [
    *("study_id", "name", "digest", "title", "notes", "tags", "archived", "state", "holder", "claimed_at"),
    *("created_at", "updated_at", "predictions", "simulations", "measurements", "failed", "asked", "done", "spec"),
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
        several = row["key"] != row["name"]
        name = f"{row['key']}.toml"
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
