"""Which columns of a table are shown: chosen on the page, kept in its address."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st


def choose_columns(key: str, columns: Sequence[str], usual: Sequence[str]) -> list[str]:
    """The chosen columns in the order of the table, from a list that opens; without a choice the usual ones.

    Args:
        key: name of the choice in the address.
        columns: all columns of the table.
        usual: those that are shown without a choice.
    """
    with st.popover("Columns"):
        chosen = st.pills("columns", columns, selection_mode="multi", default=list(usual), key=key, bind="query-params")
    return [column for column in columns if column in chosen] or list(usual)


def columns_left(key: str, columns: Sequence[str]) -> list[str]:
    """The columns but for those that the user leaves out, for a table whose columns follow from what it shows.

    Args:
        key: name of the choice in the address.
        columns: all columns of the table at present.
    """
    with st.popover("Columns"):
        out = st.pills("leave out", columns, selection_mode="multi", key=key, bind="query-params")
    return [column for column in columns if column not in out] or list(columns)
