"""Computations for the session of a page: asking for them, ending them, and showing how far they are."""

from __future__ import annotations

from functools import cache
from typing import Any

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from ui.processes import Computation, Processes, Work

LONG_SECONDS = 10.0
"""A computation that is expected to take longer begins when somebody says so."""

MOMENT_SECONDS = 0.7
"""A page waits so long before it shows that something is being computed."""

POLL_SECONDS = 0.4


@cache
def processes() -> Processes:
    """The processes of this server; the first call starts one that waits for work."""
    return Processes(_is_there)


def _is_there(session: str) -> bool:
    return runtime.exists() and runtime.get_instance().is_active_session(session)


def _session() -> str:
    context = get_script_run_ctx()
    assert context is not None, "only pages ask"
    return context.session_id


def leave() -> None:
    """End what this session waits for."""
    processes().leave(_session())


def duration(seconds: float) -> str:
    """An estimated time in words, to about a digit.

    >>> duration(0.4), duration(37), duration(200), duration(9000)
    ('a second', '40 s', '3 minutes', '2.5 hours')
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{float(f'{seconds:.1g}'):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.2g} hours"


def computed(key: str, what: str, work: Work, *arguments: Any, expected: float, long: bool) -> Computation | None:
    """The computation of this key, of which the page shows how far it is and draws itself anew as parts arrive.

    ``what`` is computed, in words, and is expected to take so many seconds. What is ``long``, or was stopped, begins
    when somebody says so: None before that. Where it takes a moment only, it is done on return.
    """
    state = st.session_state
    asks = (long and not processes().known(key)) or state.get("stopped") == key
    if asks and state.get("agreed") != key:
        leave()
        row = st.container(horizontal=True, vertical_alignment="center")
        row.markdown(f"{what}: about {duration(expected)}.", width="content")
        if row.button("Compute", key=f"compute-{what}", type="primary"):
            state["agreed"] = key
            state.pop("stopped", None)
            st.rerun()
        return None
    found = processes().ask(_session(), key, work, *arguments, long=long)
    if not found.wait(MOMENT_SECONDS):
        _follow(found, expected, what)
    return found


def _follow(computation: Computation, expected: float, what: str) -> None:
    seen = len(computation.parts)

    @st.fragment(run_every=POLL_SECONDS)
    def follow() -> None:
        if computation.done or len(computation.parts) != seen:
            st.rerun()
        spent = computation.seconds
        waits = "" if computation.started is not None else "; it waits for others to end"
        late = ", longer than expected" if spent > 2 * expected + 5 else ""
        row = st.container(horizontal=True, vertical_alignment="center")
        row.progress(
            min(0.97, spent / max(expected, 0.1)),
            f"{what}: {spent:.0f} s of about {duration(expected)}{late}{waits}",
        )
        if row.button("Stop", key=f"stop-{what}"):
            leave()
            st.session_state["stopped"] = computation.key
            st.session_state.pop("agreed", None)
            st.rerun()

    follow()
