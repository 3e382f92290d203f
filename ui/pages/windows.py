"""Home: how deep each closure holds, across configurations."""

from __future__ import annotations

import streamlit as st

from ui.data import PAGE_ROWS, WindowFilter, build_window_options, build_windows
from ui.figures import windows_figure
from ui.shell import nothing_recorded, open_database

HEADER_PIXELS, ROW_PIXELS, TABLE_ROWS = 38, 28, 22

db = open_database()
options = build_window_options(db)
if options.counts.empty:
    nothing_recorded("comparison of theory and simulation", "eft run quick")

st.title("Validity windows")
st.caption(
    "How deep a closure stays within relative error τ of the simulation: t* = sup { t : e(s) ≤ τ for all s ≤ t }, "
    "t = ε² ℓ. The simulation's noise turns t* into an interval: certified up to the last depth with e + 2 s.e. ≤ τ, "
    "refuted from the first with e − 2 s.e. > τ. No bar: the closure does not predict that quantity."
)

columns = st.columns([3, 4, 3, 3])
activations = columns[0].pills(
    "activation", options.activations, selection_mode="multi", key="activation", bind="query-params"
)
closures = columns[1].pills("closure", options.closures, selection_mode="multi", key="closure", bind="query-params")
quantities = columns[2].pills(
    "quantity", options.quantities, selection_mode="multi", key="quantity", bind="query-params"
)
labels = {f"{value:.12g}": value for value in options.tolerances}
tolerance = columns[3].segmented_control(
    "tolerance τ",
    list(labels),
    default=f"{options.default_tolerance:.12g}",
    required=True,
    key="tolerance",
    bind="query-params",
)
chosen = WindowFilter(
    activation=tuple(activations),
    closure=tuple(closures),
    quantity=tuple(quantities),
    tolerance=labels[str(tolerance)],
)
total = options.total(chosen)
if total == 0:
    st.info("No window matches these filters: take one of them off.")
    st.stop()

results = st.container()
pages = -(-total // PAGE_ROWS)
page = 1
if pages > 1:
    st.session_state["page"] = min(int(st.session_state.get("page", 1)), pages)
    page = st.number_input("page", min_value=1, max_value=pages, key="page", bind="query-params", width=140)
view = build_windows(db, chosen, page)

# text, not markdown: labels come from the database
results.text(f"τ = {tolerance}" + (f" and, for all below, {view.common}" if view.common else ""))
results.plotly_chart(
    windows_figure(view.windows),
    key="chart",
    config={"displaylogo": False},
    alt="Certified, undecided and refuted depth of each closure and quantity; the same numbers are in the table.",
)
results.dataframe(
    view.table,
    hide_index=True,
    row_height=ROW_PIXELS,
    height=HEADER_PIXELS + min(len(view.table), TABLE_ROWS) * ROW_PIXELS,
    placeholder="—",
    column_config={
        "certified until": st.column_config.NumberColumn(format="%.4g", help="last t with e + 2 s.e. ≤ τ up to there"),
        "refuted from": st.column_config.NumberColumn(format="%.4g", help="first t with e − 2 s.e. > τ"),
        "M": st.column_config.NumberColumn(format="%d", help="networks in the simulation"),
        "n": st.column_config.NumberColumn(format="%d", help="width of the simulated networks"),
        "run": st.column_config.LinkColumn(
            display_text=r"run\?simulation=([0-9]+)", help="the simulation it was held against"
        ),
    },
)
first = (page - 1) * PAGE_ROWS + 1
results.caption(f"Windows {first} to {first + len(view.table) - 1} of {total}.")
