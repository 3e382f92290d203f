"""The studies page: progress of each study, failed runs, and how to continue a study."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.data.studies import StudyFile, build_failures, build_studies, build_study_files, may_be_running
from ui.shell import open_database

POLL_SECONDS = 5
MOST_FILES = 50

db = open_database()
st.title("Studies")
st.caption(
    "Runs recorded for each study file, and how many it asks for. A run that several studies need is computed once. "
    f"While a study grows this page asks again every {POLL_SECONDS} s, with one statement."
)


_COLUMNS = [
    *("name", "done", "predictions", "simulations", "measurements"),
    *("failed", "asked", "created_at", "updated_at"),
]


def _show(studies: pd.DataFrame) -> None:
    st.dataframe(
        studies[_COLUMNS],
        hide_index=True,
        row_height=30,
        placeholder="—",
        key="studies",
        column_config={
            "done": st.column_config.ProgressColumn("recorded", format="percent", min_value=0, max_value=1),
            "asked": st.column_config.NumberColumn("asked for", help="runs that the study file asks for"),
            "created_at": st.column_config.DatetimeColumn("first run", format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
            "updated_at": st.column_config.DatetimeColumn(
                "last result", format="YYYY-MM-DD HH:mm:ss", timezone="UTC", help="UTC"
            ),
        },
    )


def _offer(row: DeltaGenerator, file: StudyFile) -> None:
    label, key = f"Save {file.name}", f"save-{file.name}"
    row.download_button(label, file.toml, file.name, "application/toml", on_click="ignore", key=key)


first = build_studies(db)
if first.empty:
    st.info("No study has been run into this database yet.")
    st.code("eft run quick", language="bash")
    st.stop()
running = may_be_running(first, pd.Timestamp.now(tz="UTC"))


@st.fragment(run_every=POLL_SECONDS if running else None)
def progress() -> None:
    """The table of studies. It is refreshed automatically; once no study is running, the whole page is reloaded."""
    latest = build_studies(db) if st.session_state.get("polled") else first
    st.session_state["polled"] = running
    _show(latest)
    if running and not may_be_running(latest, pd.Timestamp.now(tz="UTC")):
        st.session_state["polled"] = False
        st.rerun()
    if running:
        st.caption("A study is being run, or was interrupted within the last two minutes.")


st.session_state["polled"] = False
progress()

files = build_study_files(first)
if not all(file.complete for file in files):
    st.subheader("How to go on", divider="gray")
    st.caption(
        "A study goes on where it ended: what is recorded or cached is not computed again. Save its file, as it was "
        "recorded, and run it in any folder; `--db` names another database than the usual one."
    )
for file in (file for file in files if not file.complete):
    row = st.container(horizontal=True, vertical_alignment="center")
    _offer(row, file)
    row.code(file.command, language="bash", width="content")
    if file.bundled is not None:
        row.caption("without saving it, where that study came with the program:", width="content")
        row.code(file.bundled, language="bash", width="content")
    for path in file.data:
        st.text(f"{file.study} reads {path}, from the folder of the study file.")
complete = [file for file in files if file.complete]
if complete:
    st.subheader("Files of complete studies", divider="gray")
    row = st.container(horizontal=True)
    for file in complete[:MOST_FILES]:
        _offer(row, file)
if first["failed"].sum():
    st.subheader("Failed runs and their causes", divider="gray")
    st.dataframe(
        build_failures(db),
        hide_index=True,
        row_height=30,
        key="failures",
        column_config={
            "what": st.column_config.TextColumn(width="medium"),
            "cause": st.column_config.TextColumn(width="large"),
            "when": st.column_config.DatetimeColumn("when (UTC)", format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
        },
    )
    st.caption(
        "A failed run is tried again by running its study again. Bad input fails again until the file is changed."
    )
