"""The bar above every page: which studies and results are seen, saved views, the link, and whether results are new."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from db.reading.restriction import Restriction
from db.reading.search import Condition, parse
from db.reading.study_queries import newest_results, saved_views
from db.session import Database
from db.writing import care
from eftcore.errors import EftError
from ui import address
from ui.data.choices import StudyChoice, build_choices, choice_of, digests_of
from ui.notation import markdown_text
from ui.shell import changing, narrow, peek_database, restrict, results_seen, see_results, tell

STUDIES, SEARCH = "study", "search"
"""Names in the address of every page."""

LOOK_SECONDS = 5


def show(page: str) -> None:
    """Draw the bar of a page (the last part of its path), and restrict what it sees of the database."""
    restrict(Restriction())
    row = st.container(horizontal=True, vertical_alignment="center", key="bar")
    told = st.container()
    db = peek_database()
    try:
        choices = [] if db is None else build_choices(db)
        see_results(None if db is None else newest_results(db))
    except EftError:  # the page says what is wrong
        db = None
    if db is None:
        with row:
            address.copy_button()
        return
    _follow(page, choices)
    place = row.popover(_selection_label(), key="selection") if narrow() else row
    studies = _choose_studies(place, told, choices) if choices else []
    search = _choose_search(place, told)
    restrict(Restriction(studies=digests_of(choices, studies), search=search))
    with row:
        _views(db, page)
        address.copy_button()
        _watch(db)


def _follow(page: str, choices: Sequence[StudyChoice]) -> None:
    """Take over what a link between pages asks for; else the bar keeps its values when another page is opened."""
    if "bar page" in st.session_state and st.session_state["bar page"] != page:
        if studies := [name for name in st.query_params.get_all(STUDIES) if choice_of(choices, name) is not None]:
            st.session_state[STUDIES] = studies
        if search := st.query_params.get(SEARCH):
            st.session_state[SEARCH] = search
    st.session_state["bar page"] = page


def said() -> list[str]:
    """Lines that say what the bar restricts a page to, for a picture or a file; none where it restricts nothing."""
    studies, search = st.session_state.get(STUDIES), st.session_state.get(SEARCH)
    lines = [f"studies: {', '.join(studies)}"] if studies else []
    return [*lines, f"search: {search.strip()}"] if search and search.strip() else lines


def _selection_label() -> str:
    """Label of what holds the controls on a phone; it says how many of them are set."""
    chosen = sum(bool(st.session_state.get(name)) for name in (STUDIES, SEARCH))
    return f"Selection ({chosen})" if chosen else "Selection"


def _choose_studies(place: DeltaGenerator, told: DeltaGenerator, choices: Sequence[StudyChoice]) -> list[str]:
    """Names of the chosen studies. A link may name one that is not there; this is said until another one is chosen."""
    asked = st.query_params.get_all(STUDIES)
    # a study that was named otherwise than by its label, as before it got a title, keeps that name while it is chosen
    named = {choice_of(choices, name): name for name in (*asked, *st.session_state.get(STUDIES, ()))}
    if gone := [name for name in asked if choice_of(choices, name) is None]:
        st.session_state["gone studies"] = gone
    chosen = place.multiselect(
        "studies",
        [named.get(choice, choice.label) for choice in choices if not choice.archived or choice in named],
        placeholder="all studies",
        label_visibility="collapsed",
        key=STUDIES,
        bind="query-params",
        on_change=lambda: st.session_state.pop("gone studies", None),
        width="stretch" if narrow() else 260,
    )
    missing: list[str] = st.session_state.get("gone studies", [])
    if missing:
        there = ", ".join(choice.label for choice in choices) or "none"
        seen = "the others of the link are" if chosen else "all studies are"
        said = f"study = {', '.join(missing)}: there is no such study here, {seen} shown; there are: {there}"
        told.warning(markdown_text(said))
    return list(chosen)


def _choose_search(place: DeltaGenerator, told: DeltaGenerator) -> Condition | None:
    text = place.text_input(
        "search",
        placeholder="search: activation = relu and n >= 64",
        label_visibility="collapsed",
        type="search",
        key=SEARCH,
        bind="query-params",
        width="stretch" if narrow() else 380,
    )
    if not text or not text.strip():
        return None
    try:
        return parse(text)
    except EftError as problem:
        with told:
            tell(problem)
            st.caption("Nothing is left out until the search can be read.")
        return None


@st.fragment
def _views(db: Database, page: str) -> None:
    """The views that were saved by name, each a link, and the present one to be saved."""
    popover = st.popover("Saved views", key="views", on_change="rerun")
    if not popover.open:
        return
    with popover:
        query = urlencode([(name, value) for name in st.query_params for value in st.query_params.get_all(name)])
        try:
            _save_or_forget(page, query)
        except EftError as problem:
            tell(problem)
        saved = saved_views(db)
        for row in saved.to_dict("records"):
            line = st.container(horizontal=True, vertical_alignment="center")
            place = f"{row['page'] or '.'}?{row['query']}"
            line.html(f'<a href="{escape(place)}" target="_self" style="color: inherit">{escape(row["name"])}</a>')
            line.button("Forget", key=f"forget-{row['name']}", type="tertiary")
        if saved.empty:
            st.caption("No view is saved yet. What is saved is the address: page, filters, studies and search.")


def _save_or_forget(page: str, query: str) -> None:
    """Save the present view where the form says so, or delete the one whose button was clicked."""
    with st.form("save view", clear_on_submit=True, border=False):
        name = st.text_input("save this view as", max_chars=care.NAME_LENGTH)
        save = st.form_submit_button("Save")
    forgotten = [key for key, clicked in st.session_state.items() if str(key).startswith("forget-") and clicked]
    if not save and not forgotten:
        return
    with changing() as whole:
        if save:
            care.save_view(whole, name=name, page=page, query=query)
        for key in forgotten:
            care.forget_view(whole, str(key).removeprefix("forget-"))


def _watch(db: Database) -> None:
    """Say so when there are other results than those of the moment at which the page was drawn."""
    looks = itertools.count()

    @st.fragment(run_every=LOOK_SECONDS)
    def look() -> None:
        if not next(looks):
            return
        try:
            now = newest_results(db)
        except EftError:  # away for a moment; the next look may find it
            return
        if now != results_seen() and st.button("Newer results: show them", type="primary", key="newer"):
            st.rerun()

    look()
