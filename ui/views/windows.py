"""The home page: the depth up to which each closure is valid, across configurations."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.data.naming import split_columns
from ui.data.widths import MOST_SERIES, build_widths, widths_table
from ui.data.windows import (
    MOST_INTERVALS,
    PAGE_ROWS,
    PARAMETERS,
    SORT,
    WindowFilter,
    WindowOptions,
    build_cells,
    build_intervals,
    build_window_options,
    build_windows,
    value_text,
)
from ui.figures import heat_map_figure, intervals_figure, widths_figure, windows_figure
from ui.shell import PLOT, narrow, nothing_recorded, open_database

HEADER_PIXELS, ROW_PIXELS, TABLE_ROWS = 38, 28, 18
VIEWS = ("map", "intervals", "bars")
REFERENCES = {"simulation": "simulation", "exact leading order": "theory", "measured next order": "measurement"}


def _choose_filters(options: WindowOptions, reference_kind: str, row: DeltaGenerator) -> WindowFilter:
    """The filter that the user set with the widgets."""
    quantities = row.pills("quantity", options.quantities, selection_mode="multi", key="quantity", bind="query-params")
    labels = {f"{value:.12g}": value for value in options.tolerances}
    tolerance = row.segmented_control(
        "tolerance τ",
        list(labels),
        default=f"{options.default_tolerance:.12g}",
        required=True,
        key="tolerance",
        bind="query-params",
    )
    allowed: dict[str, Any] = {"quantity": quantities}
    few = st.container(horizontal=True)
    for name in options.differing:
        values = {value_text(value): value for value in options.values(name)}
        if len(values) > 1 or name == "closure":
            chosen = few.multiselect(
                PARAMETERS[name], list(values), placeholder="all", key=name, bind="query-params", width=190
            )
            allowed[name] = [values[text] for text in chosen]
    return WindowFilter(tolerance=labels[str(tolerance)], allowed=allowed, reference_kind=reference_kind)


def _choose_axes(options: WindowOptions) -> tuple[str, str, str]:
    """The chosen view and the parameters on its axes."""
    row = st.container(horizontal=True, vertical_alignment="bottom")
    view = row.segmented_control("view", VIEWS, default=VIEWS[0], required=True, key="view", bind="query-params")
    if view == "bars":
        return str(view), "", ""
    names = options.parameters
    second = next((name for name in options.differing if name != "closure"), "activation")
    label = "columns" if view == "map" else "horizontal axis"
    across = row.selectbox(label, names, index=0, key="across", bind="query-params", width=200)
    by = row.selectbox(
        "rows" if view == "map" else "colour",
        names,
        index=names.index(second),
        key="by",
        bind="query-params",
        width=200,
    )
    return str(view), across, by


def _open(link: str) -> None:
    """Go to another page of the explorer, given by its URL."""
    page, _, query = link.partition("?")
    st.switch_page(f"views/{page}.py", query_params=dict(parse_qsl(query)))


def _clicked(key: str) -> list[Any] | None:
    """Custom data of the point that was clicked in a figure: across, by, link, number of windows."""
    points = st.session_state.get(key, {}).get("selection", {}).get("points", [])
    return list(points[0]["customdata"]) if points else None


def _follow(key: str, across: str, by: str) -> None:
    """Restrict the filters to the windows of the clicked cell, unless it is a single window with a page of its own."""
    found = _clicked(key)
    if found and (int(found[3]) > 1 or not found[2]):
        for name, text in ((across, found[0]), (by, found[1])):
            if name in st.session_state:
                st.session_state[name] = [text.split(" ")[0] if name == "closure" else text]


def _show_figure(view: str, across: str, by: str, chosen: WindowFilter, total: int) -> None:
    if view == "map":
        figure = heat_map_figure(
            build_cells(db, chosen, across, by), PARAMETERS[across], PARAMETERS[by], narrow=narrow()
        )
        words = "Certified depth over two parameters; the same numbers are in the table."
    else:
        windows = build_intervals(db, chosen, across, by)
        figure = intervals_figure(windows, PARAMETERS[across], PARAMETERS[by], narrow=narrow())
        words = "Each window as a dot and an interval; the same numbers are in the table."
        if total > MOST_INTERVALS:
            st.caption(f"The first {MOST_INTERVALS} of {total} windows are drawn: choose filters to see the others.")
    # the key changes with what is drawn, so that an old click does not come back with a new figure
    key = f"{view}-{across}-{by}-{hash(repr(chosen))}"
    st.plotly_chart(
        figure,
        key=key,
        config=PLOT,
        alt=words,
        on_select=lambda: _follow(key, across, by),
        selection_mode="points",
    )
    found = _clicked(key)
    if found and int(found[3]) == 1 and found[2]:
        _open(str(found[2]))


def _show_widths(chosen: WindowFilter) -> None:
    """Windows in width of the chosen theories: from how many neurons per layer on they hold, by depth."""
    widths = build_widths(db, chosen)
    st.caption(
        "From n* neurons per layer on, the error of a theory and that of finite width together stay within τ. Lines: "
        "by the next order in 1/n, with the bounds of n*; a line ends where the theory itself is off by more than τ, "
        "or where the next order is too uncertain. Marks: what simulations of several widths show."
    )
    if not (widths["reference_kind"] == "theory").any():
        st.info("No study with these theories has the next order in 1/n: one asks for it among its closures, as in")
        st.code('closures = ["g_only", "sigma", { name = "exact", next_order = true }]', language="toml")
    if widths.empty:
        return
    names = widths["series"].drop_duplicates().tolist()
    if len(names) > MOST_SERIES:
        st.caption(f"The first {MOST_SERIES} of {len(names)} theories are drawn: choose filters to see the others.")
    st.plotly_chart(
        widths_figure(widths[widths["series"].isin(names[:MOST_SERIES])], narrow=narrow()),
        key="widths",
        config=PLOT,
        alt="The width from which on each theory holds, over depth; at the last layer it is in the table.",
    )
    st.dataframe(widths_table(widths), hide_index=True, placeholder="—")


db = open_database()
reference_kind = REFERENCES.get(st.query_params.get("reference", ""), "simulation")
options = build_window_options(db, reference_kind)
if options.counts.empty and reference_kind == "simulation":
    nothing_recorded(db, "comparison of theory and simulation")

st.title("Validity windows")
st.caption(
    "How deep a closure stays within relative error τ of the reference: t* = sup { t : e(s) ≤ τ for all s ≤ t }, "
    "t = ε² ℓ. The reference's error turns e into bounds that hold at all depths at once (95 %): certified while the "
    "upper one is ≤ τ, from where the reference resolves τ; refuted from the first depth where the lower one is > τ. "
    "Nothing drawn: the closure does not predict that quantity."
)
row = st.container(horizontal=True)
row.segmented_control(
    "reference", list(REFERENCES), default="simulation", required=True, key="reference", bind="query-params"
)
if options.counts.empty and reference_kind == "theory":
    st.info("No closure has been compared with a better theory yet: a study asks for it with `reference`, as in")
    st.code('reference = "exact"', language="toml")
    st.stop()
if options.counts.empty:
    st.info("No next order in 1/n has been measured yet: a study does it that predicts it and simulates two widths, as")
    st.code('widths = [16, 64]\nclosures = [{ name = "exact", next_order = true }]', language="toml")
    st.stop()
chosen = _choose_filters(options, reference_kind, row)
matching = options.matching(chosen)
total = int(matching["windows"].sum())
if total == 0:
    st.info("No window matches these filters: take one of them off.")
    st.stop()
view, across, by = _choose_axes(options)
figure_place = st.container()

order = st.container(horizontal=True, vertical_alignment="bottom")
sort = order.selectbox("sort table by", list(SORT), key="sort", bind="query-params", width=200)
descending = order.toggle("descending", key="descending", bind="query-params")
pages = -(-total // PAGE_ROWS)
page = 1
if pages > 1:
    st.session_state["page"] = min(int(st.session_state.get("page", 1)), pages)
    page = order.number_input("page", min_value=1, max_value=pages, key="page", bind="query-params", width=140)
common, differing = split_columns(matching)
shown = build_windows(db, chosen, differing, int(page), sort, descending)

with figure_place:
    # text, not markdown: labels come from the database
    st.text(f"τ = {chosen.tolerance:.12g}" + (f" and, for all below, {common}" if common else ""))
    if view == "bars":
        st.plotly_chart(
            windows_figure(shown.windows, narrow=narrow()),
            key="chart",
            config=PLOT,
            alt="Certified, undecided and refuted depth of each closure; the same numbers are in the table.",
        )
    else:
        _show_figure(view, across, by, chosen, total)
event = st.dataframe(
    shown.table,
    key=f"table-{hash(repr((chosen, page, sort, descending)))}",
    hide_index=True,
    row_height=ROW_PIXELS,
    height=HEADER_PIXELS + min(len(shown.table), TABLE_ROWS) * ROW_PIXELS,
    placeholder="—",
    on_select="rerun",
    selection_mode="single-row",
    column_config={
        "seen from": st.column_config.NumberColumn(format="%.4g", help="first t at which the reference resolves τ"),
        "certified until": st.column_config.NumberColumn(format="%.4g", help="last t with e ≤ τ up to there, surely"),
        "refuted from": st.column_config.NumberColumn(format="%.4g", help="first t with lower bound of e > τ"),
        "T": st.column_config.NumberColumn(format="%.4g"),
        "M": st.column_config.NumberColumn(format="%d", help="networks in the simulation"),
        "n": st.column_config.NumberColumn(format="%d", help="width of the simulated networks"),
        "run": st.column_config.LinkColumn(
            display_text=r"run\?simulation=([0-9]+)" if reference_kind == "simulation" else "predict",
            help="the simulation it was held against, or the configuration on the predict page; in a new tab",
        ),
    },
)
rows = event["selection"]["rows"]
if rows and rows[0] < len(shown.windows) and shown.windows["link"].iloc[rows[0]]:
    _open(str(shown.windows["link"].iloc[rows[0]]))
first = (int(page) - 1) * PAGE_ROWS + 1
opened = "the run" if reference_kind == "simulation" else "the prediction"
st.caption(
    f"Windows {first} to {first + len(shown.table) - 1} of {total}. "
    f"Choose a row, or click in the figure, to open {opened}."
)
st.subheader("Windows in width", divider="gray")
if st.toggle("show from which width on", key="in_width", bind="query-params"):
    _show_widths(chosen)
