"""The windows page: the depth up to which each closure is valid, across configurations."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui import bar, deciding
from ui.asked import tell_what_is_missing
from ui.columns import columns_left
from ui.data.cells import MOST_INTERVALS, build_cells, build_intervals, runs_of
from ui.data.compare import MOST_SERIES
from ui.data.naming import split_columns
from ui.data.widths import MOST_SERIES as MOST_WIDTHS
from ui.data.widths import build_widths, widths_table
from ui.data.windows import (
    BARS,
    MOST_ROWS,
    PARAMETERS,
    SORT,
    WindowFilter,
    WindowOptions,
    bar_pages,
    bars_page,
    build_csv,
    build_window_options,
    build_windows,
    file_name,
    said_of,
    value_text,
)
from ui.figures import MEASURES, heat_map_figure, intervals_figure, noted, widths_figure, windows_figure
from ui.shell import kept, narrow, nothing_recorded, open_database, plot

HEADER_PIXELS, ROW_PIXELS, TABLE_ROWS = 38, 28, 18
VIEWS = ("bars", "map", "intervals", "parameters")
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


def _choose_view(options: WindowOptions, matching: pd.DataFrame) -> tuple[str, str, str, str]:
    """The chosen view, what colours a map, and the parameters on the axes.

    Until the user chooses a view it is that of bars where there are few enough of them, else the map.
    """
    rows = int(matching.groupby("quantity")["windows"].sum().max())
    if "view" not in st.session_state:
        st.session_state["view-chosen"] = "view" in st.query_params
    if not st.session_state["view-chosen"]:
        st.session_state["view"] = "bars" if rows <= BARS else "map"

    def chosen() -> None:
        st.session_state["view-chosen"] = True

    row = st.container(horizontal=True, vertical_alignment="bottom")
    view = str(row.segmented_control("view", VIEWS, required=True, key="view", on_change=chosen, bind="query-params"))
    if view in ("bars", "parameters"):
        return view, "", "", ""
    names = options.parameters
    second = next((name for name in options.differing if name != "closure"), "activation")
    shared: dict[str, Any] = {"bind": "query-params", "width": 200}
    label = "columns" if view == "map" else "horizontal axis"
    across = row.selectbox(label, names, index=0, key="across", **shared)
    by = row.selectbox("rows" if view == "map" else "colour", names, index=names.index(second), key="by", **shared)
    measure = next(iter(MEASURES))
    if view == "map":
        measure = str(
            row.segmented_control(
                "certified", list(MEASURES), default=measure, required=True, key="measure", bind="query-params"
            )
        )
    return view, measure, across, by


def _picked(key: str) -> list[int]:
    """Numbers of the cells or windows that are chosen in a figure."""
    points = st.session_state.get(key, {}).get("selection", {}).get("points", [])
    return list(dict.fromkeys(int(point["customdata"][0]) for point in points if point.get("customdata")))


def _restrict(across: str, by: str, picked: pd.DataFrame) -> None:
    """Restrict the filters to what the chosen cells are."""
    for name, axis in ((across, "across"), (by, "by")):
        if name in st.session_state:
            texts = picked[axis].str.partition(" ")[0] if name == "closure" else picked[axis]
            st.session_state[name] = list(dict.fromkeys(texts))


def _offer(runs: list[int], links: Iterable[str], said: str) -> DeltaGenerator:
    """What can be done with chosen cells or rows: open a single one, compare several."""
    row = st.container(horizontal=True, vertical_alignment="center")
    row.text(said)
    opened = list(dict.fromkeys(filter(None, links)))
    if len(opened) == 1:
        page, _, query = opened[0].partition("?")
        label = f"Open run {runs[0]}" if runs else "Open the prediction"
        row.page_link(f"views/{page}.py", label=label, query_params=parse_qs(query))
    if runs:
        some = f"the first {MOST_SERIES} of {len(runs)} simulations" if len(runs) > MOST_SERIES else "simulation"
        label = f"Compare {some}" if len(runs) > MOST_SERIES or len(runs) == 1 else f"Compare {len(runs)} simulations"
        row.page_link("views/compare.py", label=label, query_params={"run": [str(run) for run in runs[:MOST_SERIES]]})
    return row


@st.cache_resource(max_entries=64, show_spinner=False)
def _map(cells: pd.DataFrame, axes: tuple[str, str], measure: str, small: bool, said: list[str]) -> go.Figure:
    """The map, cached for equal numbers; all sessions share it, and none may change it."""
    return noted(heat_map_figure(cells, *axes, measure=measure, narrow=small), said, narrow=small)


@st.cache_resource(max_entries=64, show_spinner=False)
def _intervals(windows: pd.DataFrame, axes: tuple[str, str], small: bool, said: list[str]) -> go.Figure:
    """The intervals, cached as the map is."""
    return noted(intervals_figure(windows, *axes, narrow=small), said, narrow=small)


@st.cache_resource(max_entries=64, show_spinner=False)
def _bars(windows: pd.DataFrame, small: bool, said: list[str]) -> go.Figure:
    """The bars, cached as the map is."""
    return noted(windows_figure(windows, narrow=small), said, narrow=small)


@st.fragment
def _show_figure(
    view: str, measure: str, across: str, by: str, chosen: WindowFilter, total: int, said: list[str]
) -> None:
    """The map or the intervals, and what can be done with chosen cells."""
    axes = PARAMETERS[across], PARAMETERS[by]
    if view == "map":
        found = build_cells(db, chosen, across, by)
        figure = _map(found, axes, measure, narrow(), said)
        words = "Certified depth over two parameters; the same numbers are in the table."
    else:
        found = build_intervals(db, chosen, across, by)
        figure = _intervals(found, axes, narrow(), said)
        words = "Each window as a dot and an interval; the same numbers are in the table."
        if total > MOST_INTERVALS:
            st.caption(f"The first {MOST_INTERVALS} of {total} windows are drawn: choose filters to see the others.")
    # the key changes with what is drawn, so that an old click does not come back with a new figure
    key = f"{view}-{across}-{by}-{hash(repr((chosen, said)))}"
    plot(
        figure,
        key,
        name=file_name(chosen, what=f"windows-{view}"),
        alt=words,
        on_select="rerun",
        selection_mode=["points"],
    )
    picked = found.iloc[[number for number in _picked(key) if number < len(found)]]
    if picked.empty:
        st.caption("Click a cell to choose it, others with the shift key: then open, restrict to it, or compare.")
        return
    windows = int(picked["windows"].sum()) if view == "map" else len(picked)
    runs = runs_of(picked)
    links = [f"run?simulation={run}" for run in runs] if view == "map" else picked["link"].tolist()
    row = _offer(runs, links, f"{windows} window{'s' * (windows > 1)} chosen:")
    if row.button("Only these", key="only", on_click=_restrict, args=(across, by, picked)):
        st.rerun()


def _show_bars(windows: pd.DataFrame, chosen: WindowFilter, said: list[str]) -> None:
    """The windows as bars, page by page."""
    pages, page = bar_pages(windows), 1
    if pages > 1:
        st.session_state["page"] = min(int(st.session_state.get("page", 1)), pages)
        page = int(
            st.number_input("page of bars", min_value=1, max_value=pages, key="page", bind="query-params", width=140)
        )
    shown = bars_page(windows, page)
    plot(
        _bars(shown, narrow(), said),
        "chart",
        name=file_name(chosen),
        alt="Certified, undecided and refuted depth of each closure; the same numbers are in the table.",
    )


@st.fragment
def _show_table(table: pd.DataFrame, windows: pd.DataFrame, key: str, reference_kind: str) -> None:
    """All windows in one table, which its headings sort, and what can be done with ticked rows."""
    event = st.dataframe(
        table,
        key=key,
        column_order=columns_left("without", list(table.columns)),
        hide_index=True,
        row_height=ROW_PIXELS,
        height=HEADER_PIXELS + min(len(table), TABLE_ROWS) * ROW_PIXELS,
        placeholder="—",
        on_select="rerun",
        selection_mode="multi-row",
        column_config={
            "seen from": st.column_config.NumberColumn(format="%.4g", help="first t at which the reference resolves τ"),
            "certified until": st.column_config.NumberColumn(
                format="%.4g", help="last t with e ≤ τ up to there, surely"
            ),
            "until layer": st.column_config.NumberColumn(format="%d", help="the layer at that t"),
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
    rows = [row for row in event["selection"]["rows"] if row < len(windows)]
    ticked = windows.iloc[rows]
    if rows:
        runs = [int(run) for run in ticked["simulation_run_id"].dropna().unique()]
        _offer(runs, ticked["link"], f"{len(rows)} row{'s' * (len(rows) > 1)} ticked:")
    else:
        st.caption("Tick rows to open or compare their simulations. A click on a heading sorts all rows.")


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
    if len(names) > MOST_WIDTHS:
        st.caption(f"The first {MOST_WIDTHS} of {len(names)} theories are drawn: choose filters to see the others.")
    plot(
        widths_figure(widths[widths["series"].isin(names[:MOST_WIDTHS])], narrow=narrow()),
        "widths",
        name=file_name(chosen, what="widths"),
        alt="The width from which on each theory holds, over depth; at the last layer it is in the table.",
    )
    st.dataframe(widths_table(widths), hide_index=True, placeholder="—")


db = open_database()
reference_kind = REFERENCES.get(st.query_params.get("reference", ""), "simulation")
options = kept(db, build_window_options, reference_kind)
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
known = {name: {value_text(value) for value in options.values(name)} for name in PARAMETERS}
known |= {"quantity": set(options.quantities), "tolerance": {f"{value:.12g}" for value in options.tolerances}}
tell_what_is_missing("windows", known, widget="tolerance")
chosen = _choose_filters(options, reference_kind, row)
matching = options.matching(chosen)
total = int(matching["windows"].sum())
if total == 0:
    st.info("No window matches these filters: take one of them off.")
    st.stop()
view, measure, across, by = _choose_view(options, matching)
common, differing = split_columns(matching)
said = [*said_of(chosen, common), *bar.said()]
figure_place = st.container()

order = st.container(horizontal=True, vertical_alignment="bottom")
sort = order.selectbox("sort by", list(SORT), key="sort", bind="query-params", width=200)
descending = order.toggle("descending", key="descending", bind="query-params")
name = file_name(chosen)
order.download_button(
    f"All {total} windows as CSV",
    partial(build_csv, db, chosen, sort, descending),
    f"{name}.csv",
    "text/csv",
    on_click="ignore",
)
shown = kept(db, build_windows, chosen, tuple(differing), sort, descending)

with figure_place:
    # text, not markdown: labels come from the database
    st.text(f"τ = {chosen.tolerance:.12g}" + (f" and, for all below, {common}" if common else ""))
    if view == "bars":
        _show_bars(shown.windows, chosen, said)
    elif view == "parameters":
        deciding.show(db, chosen, options.parameters, said)
    else:
        _show_figure(view, measure, across, by, chosen, total, said)
_show_table(shown.table, shown.windows, f"table-{hash(repr((chosen, said, sort, descending)))}", reference_kind)
if total > MOST_ROWS:
    st.caption(f"The first {MOST_ROWS} of {total} windows; the CSV file has all of them.")
else:
    st.caption(f"{total} windows.")
st.subheader("Windows in width", divider="gray")
if st.toggle("show from which width on", key="in_width", bind="query-params"):
    _show_widths(chosen)
