"""The beginning of every page: opening the database, or a message that says what to do when there is none to read."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import plotly.graph_objects as go
import streamlit as st

from db.errors import UPGRADE_HINT, DatabaseMissing, DatabaseUnreachable, SchemaOutdated
from db.reading.restriction import RestrictedDatabase, Restriction
from db.reading.study_queries import run_counts
from db.session import Database, parse_url, sqlite_path
from db.settings import default_url, require_changes
from db.upkeep.migrate import require_current
from eftcore.errors import EftError
from ui.notation import markdown_text

PLOT = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}
"""Plotly settings of every interactive figure."""

ICON = Path(__file__).with_name("icon.svg")

_VIEWPORT = st.components.v2.component(
    "viewport",
    js="""export default ({ data, setStateValue }) => {
        const phone = window.matchMedia('(max-width: 900px)')
        const tell = () => { if (phone.matches !== data.narrow) setStateValue('narrow', phone.matches) }
        tell()
        phone.addEventListener('change', tell)
        return () => phone.removeEventListener('change', tell)
    }""",
)
"""Component that reports whether the page is shown on a phone, where panels stand one below the other, and only when
this changes."""


def plot(figure: go.Figure, key: str, *, name: str, alt: str, form: str = "png", **options: Any) -> None:
    """Show a figure, which its camera saves under this name, as "png" or "svg", with all of its text inside."""
    saving = {"format": form, "filename": name, "scale": 2}
    st.plotly_chart(figure, key=key, config={**PLOT, "toImageButtonOptions": saving}, alt=alt, **options)


_PROBLEM_TITLES: dict[type[EftError], str] = {
    DatabaseMissing: "There is no results database yet",
    SchemaOutdated: "The database belongs to another version",
    DatabaseUnreachable: "The database does not answer",
}


def watch_width() -> None:
    """Keep narrow() up to date; every page calls it once."""
    _VIEWPORT(key="viewport", data={"narrow": narrow()}, on_narrow_change=lambda: None)


def narrow() -> bool:
    """Whether the page is shown on a phone."""
    return bool(dict(st.session_state.get("viewport") or {}).get("narrow"))


@st.cache_resource(max_entries=4, on_release=Database.dispose)
def _connected(url: str, file_number: int) -> Database:
    return Database(url, read_only=True)


def _database(url: str) -> Database:
    """The database with one pool of connections for all sessions; opened anew when its file was replaced."""
    path = sqlite_path(parse_url(url))
    return _connected(url, path.stat().st_ino if path else 0)


def tell(problem: EftError) -> None:
    """Show what an error says. It may contain a path or a driver's message, which are not Markdown."""
    for each in problem.each:
        st.error(markdown_text(each.line))


def open_database() -> Database:
    """The results database, read-only, as far as the bar above the page restricts it.

    On a problem the page says what to do and its script stops.
    """
    try:
        url = default_url()
        require_current(url)
        return _seen(_database(url))
    except EftError as problem:
        st.title(_PROBLEM_TITLES.get(type(problem), "The results database cannot be used"))
        tell(problem)
        if problem.remedy.startswith(UPGRADE_HINT):
            st.code(_upgrade_commands(default_url(), fill=isinstance(problem, DatabaseMissing)), language="bash")
        st.caption("Nothing is created or changed by looking. Reload this page afterwards.")
        st.page_link("views/answer.py", label="Ask about a network: this needs no database")
        st.page_link("views/predict.py", label="Predict a network over depth: neither does this")
        st.stop()


def _upgrade_commands(url: str, *, fill: bool) -> str:
    """The commands that make this database ready, in any folder, and with ``fill`` put first results into it.

    An address with a password is not written out: the shell that starts them has it in EFT_DATABASE_URL.
    """
    path = sqlite_path(parse_url(url))
    chosen = "" if path is None else f" --db {shlex.quote(f'sqlite:///{path.absolute()}')}"
    return "\n".join(f"eft {command}{chosen}" for command in ["db upgrade", *["run quick"] * fill])


Made = TypeVar("Made")


def kept(db: Database, make: Callable[..., Made], *arguments: Any) -> Made:
    """A copy of what ``make(db, *arguments)`` gives, kept for all sessions while the database has no other results."""
    part = repr(getattr(db, "restriction", None))
    key = make.__qualname__, str(db.url), part, results_seen(), arguments
    found: Made = _kept(key, lambda: make(db, *arguments))
    return found


@st.cache_data(max_entries=64, show_spinner=False)
def _kept(key: tuple[Any, ...], _make: Callable[[], Any]) -> Any:
    return _make()


def see_results(mark: tuple[object, ...] | None) -> None:
    """Note which results (db.reading's ``newest_results``) the page that follows shows."""
    st.session_state["results"] = mark


def results_seen() -> tuple[object, ...] | None:
    """The mark of the results that the page shows."""
    mark: tuple[object, ...] | None = st.session_state.get("results")
    return mark


def restrict(restriction: Restriction) -> None:
    """Let the page that follows see this part of the database alone."""
    st.session_state["restriction"] = restriction


def _seen(db: Database) -> Database:
    restriction = st.session_state.get("restriction")
    return RestrictedDatabase(db, restriction) if restriction else db


def find_database() -> Database | None:
    """The results database, read-only; None where there is no database that can be read."""
    try:
        url = default_url()
        require_current(url)
        return _database(url)
    except EftError:
        return None


def peek_database() -> Database | None:
    """The database without a look at its revision; None where there is none. To query it may raise EftError."""
    try:
        return _database(default_url())
    except (EftError, OSError):
        return None


@contextmanager
def changing() -> Iterator[Database]:
    """The whole database, to be changed. Raises EnvironmentProblem in an explorer that only reads."""
    require_changes()
    whole = Database(default_url())
    try:
        yield whole
    finally:
        whole.dispose()


def nothing_recorded(db: Database, what: str) -> None:
    """Say that the database has nothing to show, why, and what to do; the script of the page stops."""
    if isinstance(db, RestrictedDatabase):
        st.title(f"No {what} among these")
        st.markdown("The studies and the search above leave nothing to show here: take one of them off.")
        st.stop()
    st.title(f"No {what} recorded yet")
    counts = run_counts(db)
    failed = sum(counts.loc[counts["status"] == "failed", "runs"])
    there = sum(counts.loc[counts["status"] == "succeeded", "runs"])
    if failed:
        st.markdown(
            f"The database is in order: {there} runs succeeded and **{failed} failed**. The studies page says why each "
            "of them failed; running the same study again computes only what is missing."
        )
        st.page_link("views/studies.py", label="Failures and their causes")
    elif there:
        st.markdown(
            f"The database is in order and holds {there} finished runs, but not yet what this page shows: the study is "
            "half-finished. Running it again computes only what is missing; reload this page afterwards."
        )
        st.page_link("views/studies.py", label="How far the studies are")
    else:
        st.markdown("The database is in order and empty here. Run a study, then reload this page:")
        st.code("eft run quick", language="bash")
    st.stop()
