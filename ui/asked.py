"""What the address of a page asks for and the database does not have, said by name at the top of the page."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import streamlit as st

from ui.notation import markdown_text


def tell_what_is_missing(page: str, known: Mapping[str, Collection[str]], *, widget: str) -> None:
    """Say which values of the address are none of those that are known, as long as the page stays open.

    Call it before the widgets of the page, which take values that they do not know out of the address.

    Args:
        page: the name of the page.
        known: parameters of the address, each with the values that the database has.
        widget: the key of a widget of this page, by which a page that was opened anew is told from one that goes on.
    """
    key = f"asked-{page}"
    if widget not in st.session_state:
        st.session_state[key] = [
            f"{name} = {value}"
            for name, values in known.items()
            for value in st.query_params.get_all(name)
            if value not in values
        ]
    if st.session_state.get(key):
        missing = ", ".join(st.session_state[key])
        where = ", or not within the studies and the search above" if st.session_state.get("restriction") else ""
        st.warning(markdown_text(f"The link asks for what this database does not have{where}: {missing}."))
