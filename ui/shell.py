"""What every page starts with: the database, or what to do when there is none to read."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from db.errors import DatabaseMissing, DatabaseUnreachable, SchemaOutdated
from db.migrate import require_current
from db.session import Database, default_url
from eftcore.errors import EftError

ICON = Path(__file__).with_name("icon.svg")

_PROBLEM_TITLES: dict[type[EftError], str] = {
    DatabaseMissing: "There is no results database yet",
    SchemaOutdated: "The database belongs to another version",
    DatabaseUnreachable: "The database does not answer",
}


@st.cache_resource
def _database(url: str) -> Database:
    return Database(url, read_only=True)


def open_database() -> Database:
    """The results database, read-only; on a problem the page says what to do and ends here."""
    try:
        url = default_url()
        require_current(url)
        return _database(url)
    except EftError as problem:
        st.title(_PROBLEM_TITLES.get(type(problem), "The results database cannot be used"))
        # st.text: a message may hold a path or a driver's words, which are not markup
        st.text(str(problem))
        st.caption("Nothing is created or changed by looking. Reload this page afterwards.")
        st.stop()


def nothing_recorded(what: str, command: str) -> None:
    """Say that the database is in order but holds nothing to show, and how to fill it; the page ends here."""
    st.title(f"No {what} recorded yet")
    st.markdown("The database is in order and empty here. Run a study, then reload this page:")
    st.code(command, language="bash")
    st.stop()
