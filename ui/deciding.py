"""The view "parameters" of the windows page: which parameter decides t*, averages, and parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from db.session import Database
from ui.data.parameters import (
    averages,
    averages_table,
    build_depths,
    parameters_of,
    said_of_shares,
    shares_of,
    shares_table,
    symbol,
)
from ui.data.windows import WindowFilter, file_name
from ui.figures import averages_figure, noted, parallel_figure, shares_figure
from ui.notation import literal, number
from ui.shell import narrow, plot

PHONE_AXES = 4
"""Most parameters in parallel coordinates on a phone."""


@st.fragment
def show(db: Database, chosen: WindowFilter, parameters: Sequence[str], said: Sequence[str]) -> None:
    """The whole view, for the windows of a filter; ``said`` describes them below the figures."""
    depths = build_depths(db, chosen, parameters)
    row = st.container(horizontal=True, vertical_alignment="bottom")
    quantities = depths["quantity"].drop_duplicates().tolist()
    usual = quantities.index("V4") if "V4" in quantities else 0
    quantity = row.selectbox("quantity", quantities, index=usual, key="of_quantity", bind="query-params", width=160)
    theories = depths.loc[depths["quantity"] == quantity, "theory"].drop_duplicates().tolist()
    usual = theories.index("g_only") if "g_only" in theories else 0
    theory = row.selectbox("theory", theories, index=usual, key="of_theory", bind="query-params", width=200)
    one = depths[(depths["quantity"] == quantity) & (depths["theory"] == theory)]
    differing = {symbol(name): name for name in parameters_of(one)}
    note = [f"{quantity} of {theory}", *said]
    shares = shares_of(one)
    _show_shares(one, shares, chosen, note)
    if not differing:
        return
    st.subheader("Every configuration", divider="gray")
    known = one.dropna(subset=["low"])
    if len(known) and len(shares):
        # the axes that matter most stand beside that of t*; a phone has room for few
        axes = shares["parameter"].tolist()[::-1][-PHONE_AXES if narrow() else 0 :]
        figure = parallel_figure(known, {differing[name]: name for name in axes}, narrow=narrow())
        plot(
            noted(figure, note, narrow=narrow()),
            "parallel",
            name=file_name(chosen, what="parallel"),
            alt="A line per configuration through its parameters, coloured by the depth up to which the theory holds.",
        )
        st.caption("Drag along an axis to keep only the configurations there; drag a name to move its axis.")
    st.subheader("Averages over configurations", divider="gray")
    against = str(st.selectbox("against", list(differing), key="of_parameter", bind="query-params", width=200))
    found = averages(depths, differing[against])
    horizon = float(depths["horizon"].iloc[0])
    plot(
        noted(averages_figure(found, against, horizon, narrow=narrow()), said, narrow=narrow()),
        "averages",
        name=file_name(chosen, what="averages"),
        alt="Mean depth of each theory against a parameter; the numbers are in the table below.",
    )
    st.caption(
        f"Means of min(t*, {number(horizon)}), cut where the shortest of these networks ends; bars are one standard "
        "deviation over configurations, not an error of the mean. Where depths are only bounded below, a mean is too."
    )
    st.dataframe(averages_table(found, against), hide_index=True, placeholder="—")


def _show_shares(one: pd.DataFrame, shares: pd.DataFrame, chosen: WindowFilter, note: Sequence[str]) -> None:
    st.subheader("Which parameter matters for t*", divider="gray")
    if shares.empty:
        st.info("No parameter differs among the windows that are resolved: choose fewer filters.")
        return
    st.caption(said_of_shares(one))
    if shares["first_order"].isna().all():
        st.info("This theory has the same depth in all of these configurations: nothing varies.")
        return
    plot(
        noted(shares_figure(shares, narrow=narrow()), note, narrow=narrow()),
        "shares",
        name=file_name(chosen, what="parameters"),
        alt="Shares of the variance of t* by parameter; the same numbers are in the table below.",
    )
    st.table(literal(shares_table(shares).astype(str)), border="horizontal", hide_index=True)
    st.caption(
        "Alone: how much of the variance of t* over these configurations the parameter explains by itself (first-order "
        "index); with others: how much is left when all others are fixed (total index), over the compared "
        "configurations, which have a partner that differs in this parameter alone. ± is one standard error, by "
        "leaving configurations out and by drawing t* within its interval; bars show two."
    )
