"""What a page shows of the studies that were started from pages: how far they are, why they ended, and how to stop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import streamlit as st

from ui import running
from ui.notation import markdown_text

LOOK_SECONDS = 3
"""Time after which what runs is looked at again."""

_TOLD_FOR = timedelta(minutes=10)
"""How long after its start a job that ended well is still told of."""

_LINES = 8


def show_jobs() -> None:
    """Every job that runs, failed, or was started a short while ago. Call it in a fragment that looks again."""
    for job in running.jobs():
        if job.code is None:
            row = st.container(horizontal=True, vertical_alignment="center")
            if row.button("Stop", key=f"stop-{job.path}"):
                job.stop()
                row.caption("It is ending, and keeps what is finished.", width="content")
            last = job.said[-1:] or ["starting: its first seconds go into a Prefect server"]
            row.text(f"{job.title}: {last[0]}", width="content")
        elif job.code == 0:
            if datetime.now(UTC) - job.started < _TOLD_FOR:
                st.success(markdown_text(f"{job.title} has ended."))
        elif job.stopped:
            st.info(markdown_text(f"{job.title} was stopped; what was finished is kept, and it can go on from there."))
        else:
            st.error(markdown_text(f"{job.title} ended with exit code {job.code}:"))
            st.code("\n".join(job.said[-_LINES:]), language=None)
