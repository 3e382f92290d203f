"""How far a study is, configuration by configuration, and how long it will still take.

``build_*`` functions read a database and do not use Streamlit. The docstring of each gives the number of SQL statements
that it executes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from db.reading import queries
from db.session import Database
from ui.data.naming import split_columns
from ui.notation import CONFIGURATION, configuration_text

MOST_CONFIGURATIONS = 200
"""Most rows of the table of configurations; those that are not complete come first."""

_SPEED_FROM = 100
"""Number of simulations by which the speed is judged where the study itself has not finished any."""


def build_runs(db: Database, study: str) -> pd.DataFrame:
    """The runs of a study (its digest), with the column work: neuron updates of a simulation, 0 of others. One
    statement."""
    return _with_work(queries.runs(db, study=study))


def build_speed(db: Database) -> float | None:
    """Neuron updates in a second of the newest simulations in the database; None where there is none. One statement."""
    return _speed(_with_work(queries.runs(db, kind="simulation", status="succeeded", limit=_SPEED_FROM)))


def seconds_left(runs: pd.DataFrame, earlier: float | None, since: pd.Timestamp, now: pd.Timestamp) -> float | None:
    """Seconds that a study which is being executed will still take, as fast as since then; None where nothing tells.

    The simulations decide. Where none of them has finished, the speed is that of ``earlier`` ones, and the time that
    those which are running have taken counts as done.

    Args:
        runs: as build_runs gives them.
        earlier: as build_speed gives it.
        since: when the process that executes the study began.
    """
    left = runs[runs["status"].isin(("pending", "running", "stale"))]
    work = float(left["work"].sum())
    finished = runs[(runs["status"] == "succeeded") & (runs["updated_at"] > since)]
    done, elapsed = float(finished["work"].sum()), (now - since).total_seconds()
    if work == 0:
        return 0.0 if left.empty else None
    if done > 0 and elapsed > 0:
        return work / (done / elapsed)
    if earlier is None:
        return None
    begun = left.loc[left["status"] == "running", "started_at"].dropna()
    spent = (now - begun.min()).total_seconds() if len(begun) else 0.0
    return max(0.0, work / earlier - spent)


def configurations_frame(runs: pd.DataFrame, left: float | None) -> pd.DataFrame:
    """One row for each configuration, unfinished ones first: what it is, runs by status, done (share), left (seconds).

    Args:
        runs: as build_runs gives them.
        left: seconds that the whole study will take; each configuration has its share by its work.
    """
    if runs.empty:
        return pd.DataFrame(columns=["configuration", "done", "recorded", "asked", "at work", "failed", "left"])
    _, differing = split_columns(runs)
    differing = [name for name in differing if name in CONFIGURATION and name not in _OF_ONE_RUN]
    waiting = runs["status"].isin(("pending", "running", "stale"))
    whole = float(runs.loc[waiting, "work"].sum())
    rows = []
    for number, part in runs.groupby("configuration_id", sort=False):
        first = part.iloc[0].to_dict()
        work = float(part.loc[part["status"].isin(("pending", "running", "stale")), "work"].sum())
        recorded = int((part["status"] == "succeeded").sum())
        rows.append(
            {
                "configuration": configuration_text(first, differing) or configuration_text(first, ["activation"]),
                "done": recorded / len(part),
                "recorded": recorded,
                "asked": len(part),
                "at work": int((part["status"] == "running").sum()),
                "failed": int((part["status"] == "failed").sum()),
                "left": math.nan if left is None else left * work / whole if whole else 0.0,
                "number": number,
            }
        )
    table = pd.DataFrame(rows)
    # those at work, those that wait, those that are complete; each as they were asked for
    order = table.assign(waits=table["done"] >= 1, idle=table["at work"] == 0).sort_values(["waits", "idle", "number"])
    return order.drop(columns=["waits", "idle", "number"]).reset_index(drop=True).head(MOST_CONFIGURATIONS)


_OF_ONE_RUN: Sequence[str] = ("width", "samples")
"""Columns in which runs of one configuration differ."""


def time_text(seconds: float | None) -> str:
    """A time to wait, as exactly as it can be known.

    >>> time_text(3.2), time_text(74.0), time_text(4000.0), time_text(200_000.0), time_text(None)
    ('some seconds', 'about 70 s', 'about 70 min', 'about 60 h', '—')
    """
    if seconds is None or math.isnan(seconds):
        return "—"
    if seconds < 10:
        return "some seconds"
    for unit, size in (("s", 1.0), ("min", 60.0), ("h", 3600.0)):
        if seconds < 100 * size or unit == "h":
            return f"about {float(f'{seconds / size:.1g}'):.0f} {unit}"
    raise AssertionError


def _with_work(runs: pd.DataFrame) -> pd.DataFrame:
    sizes = runs[["samples", "depth", "width", "n_inputs"]].astype("float64")
    return runs.assign(work=sizes.prod(axis=1, skipna=False).fillna(0.0))


def _speed(simulations: pd.DataFrame) -> float | None:
    taken = simulations["elapsed_seconds"].fillna(simulations["worker_seconds"])
    found = (simulations["work"] / taken)[taken > 0].median()
    return None if pd.isna(found) else float(found)
