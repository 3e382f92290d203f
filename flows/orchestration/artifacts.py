"""Artifacts of a study for Prefect's pages: its validity windows as a table, its trajectories as pictures."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import pandas as pd
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from db.reading import queries
from db.session import Database
from db.settings import default_url, settings
from flows.tables import records
from flows.windows_table import LEGEND, windows_table
from flows.work.waiting import waits

PICTURES = 4
"""Most simulations that are drawn; Prefect stores artifacts in its own database, which should stay small."""

_COMPONENTS = {"V4": "00,00", "K1": "00"}


def publish_study(study: str, outcome: str) -> None:
    """Create the artifacts ``windows-NAME`` and ``study-NAME`` of the present flow run."""
    frame, pictures = _recorded(study)
    if frame.empty:
        return
    heading, table = windows_table(frame)
    key = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")
    create_table_artifact(key=f"windows-{key}", table=records(table), description=f"{heading}. {LEGEND}")
    address = settings().explorer_url.rstrip("/")
    runs = (f"[run {run}]({address}/run?simulation={run})" for run in pictures)
    links = ", ".join([f"[windows]({address}/windows)", *runs])
    text = [f"# {study}", f"{outcome}. {heading}.", f"Explorer: {links}.", *pictures.values()]
    create_markdown_artifact(key=f"study-{key}", markdown="\n\n".join(text), description=f"Study {study}")


@waits
def _recorded(study: str) -> tuple[pd.DataFrame, dict[int, str]]:
    """The windows of a study, and pictures of its first simulations by run id."""
    db = Database(default_url(), read_only=True)
    try:
        frame = queries.windows(db, study=study)
        runs = frame["simulation_run_id"].dropna().unique()
        return frame, {int(run): _picture_of(db, int(run)) for run in runs[:PICTURES]}
    finally:
        db.dispose()


def publish_checks(title: str, checks: list[dict[str, Any]]) -> None:
    """Create the artifact ``theorems`` of the present flow run."""
    create_table_artifact(key="theorems", table=checks, description=f"Exact statements of the theory on {title}")


def _picture_of(db: Database, simulation_run_id: int) -> str:
    components = sorted(set(_COMPONENTS.values()))
    frame = queries.trajectories(db, simulation_run_id=simulation_run_id, component=components)
    frame = frame[frame["component"] == frame["quantity"].map(_COMPONENTS)]
    first = frame.iloc[0]
    title = f"{first['activation']}, width {first['width']}, {first['kernel_label']}, run {simulation_run_id}"
    return f"**{title}**\n\n![V4 and K1 over time]({trajectories_picture(frame)})"


def trajectories_picture(frame: pd.DataFrame) -> str:
    """A PNG picture, as a data URI, of V4 and K1 over t: simulated, with two standard errors, and by each closure.

    Args:
        frame: rows of v_trajectories of one simulation, one component of each quantity.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3))
    figure.subplots_adjust(left=0.09, right=0.99, bottom=0.16, top=0.92, wspace=0.24)
    for axes, quantity in zip(figure.subplots(1, len(_COMPONENTS)), _COMPONENTS, strict=True):
        rows = frame[frame["quantity"] == quantity]
        if rows.empty:
            axes.set_axis_off()
            continue
        one = rows[rows["prediction_run_id"] == rows["prediction_run_id"].iloc[0]]
        spread = 2 * one["simulated_se"]
        axes.fill_between(one["time"], one["simulated"] - spread, one["simulated"] + spread, color="0.7", label="±2 se")
        axes.plot(one["time"], one["simulated"], color="0.3", linewidth=2, label="simulated")
        for _, theory in rows.dropna(subset="predicted").groupby("prediction_run_id", sort=True):
            closure = theory[["closure", "closure_order"]].iloc[0].dropna()
            axes.plot(theory["time"], theory["predicted"], "--", label=" ".join(map(str, closure)))
        axes.set_xlabel("t = ε² · layer")
        axes.set_ylabel(f"{quantity}[{_COMPONENTS[quantity]}]")
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))  # numbers of few digits: the margins are fixed
        axes.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
