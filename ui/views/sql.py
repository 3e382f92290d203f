"""A console for SQL queries: one SELECT, read-only, with a limit on rows and time."""

from __future__ import annotations

import time

import pandas as pd
import streamlit as st

from db.reading.spreadsheets import csv_bytes
from db.reading.user_sql import select
from db.schema.views import TWINNED, by_study
from eftcore.errors import EftError
from ui.data.sql import EXAMPLES, MEANING, chart_columns, view_columns
from ui.figures import query_figure
from ui.shell import PLOT, narrow, open_database, tell

MOST_ROWS = 10_000
MOST_SECONDS = 10.0
ROW_PIXELS, SHOWN_ROWS = 28, 16
DIGITS = "%.10g"  # small numbers by their exponent
TWINS = frozenset(view.name for view in TWINNED)


def _take_example() -> None:
    chosen = st.session_state["example"]
    if chosen is not None:
        st.session_state["query"] = EXAMPLES[chosen]
        _run()


def _run() -> None:
    st.query_params["sql"] = st.session_state["asked_sql"] = st.session_state["query"]


@st.cache_data(max_entries=8, ttl=60, show_spinner="asking the database …")
def _answer(url: str, sql: str) -> tuple[pd.DataFrame, bool, float]:
    """Rows, whether there were more, and the time in seconds; cached for a minute, so that charts need no new query."""
    start = time.perf_counter()
    frame = select(db, sql, max_rows=MOST_ROWS, timeout_seconds=MOST_SECONDS)
    return frame, bool(frame.attrs["truncated"]), time.perf_counter() - start


def _whole(frame: pd.DataFrame, sql: str) -> pd.DataFrame:
    """All rows of the answer: those shown, or, if these were truncated, the rows of a query without limit."""
    return select(db, sql, max_rows=None) if frame.attrs["truncated"] else frame


def _show_chart(frame: pd.DataFrame) -> None:
    numeric, few = chart_columns(frame)
    if len(numeric) < 2:
        st.info("A chart takes two columns of numbers.")
        return
    row = st.container(horizontal=True, vertical_alignment="bottom")
    x = row.selectbox("x", numeric, key="x", bind="query-params", width=180)
    y = row.selectbox("y", numeric, index=1, key="y", bind="query-params", width=180)
    by = row.selectbox(
        "curves", few, index=0 if few else None, placeholder="one", key="curves", bind="query-params", width=180
    )
    kind = row.segmented_control(
        "as", ("lines", "points"), default="lines", required=True, key="as", bind="query-params"
    )
    scale = row.segmented_control(
        "y axis", ("linear", "log"), default="linear", required=True, key="scale", bind="query-params"
    )
    st.plotly_chart(
        query_figure(frame, x, y, by, lines=kind == "lines", log=scale == "log", narrow=narrow()),
        key="chart",
        config=PLOT,
        alt="The chosen columns of the result against each other.",
    )


db = open_database()
st.title("SQL")
st.caption(
    f"One SELECT at a time; the database is opened so that nothing can be changed. At most {MOST_ROWS} rows and "
    f"{MOST_SECONDS:.0f} s. Times are t = ε² ℓ; V4 is n Cov; every column is in docs/data-dictionary.md."
)
left, right = st.columns([3, 2])
sql = st.query_params.get("sql")
if "query" not in st.session_state or sql != st.session_state.get("asked_sql"):  # by a link, or by back and forward
    st.session_state["asked_sql"] = sql
    st.session_state["query"] = sql or next(iter(EXAMPLES.values()))
left.pills("examples", list(EXAMPLES), key="example", on_change=_take_example)
left.text_area("query", key="query", height=230, max_chars=20_000, on_change=_run)
left.button("Run", type="primary", on_click=_run, shortcut="ctrl+enter")
columns = view_columns()
view = right.segmented_control("documented views", list(MEANING), default="v_windows", required=True, key="documented")
twin = f"; {by_study(str(view))} has a row for each study, and its name in front" if str(view) in TWINS else ""
right.caption(f"{MEANING[str(view)]}{twin}")
right.dataframe(
    columns.loc[columns["view"] == view, ["column", "type"]], hide_index=True, height=300, row_height=ROW_PIXELS
)

if sql is None:
    st.info("Choose an example, or write a query and press Run (Ctrl+Enter).")
    st.stop()
try:
    frame, truncated, seconds = _answer(str(db.url), sql)
except EftError as problem:
    tell(problem)
    st.stop()
more = f"the first {len(frame)} rows of more" if truncated else f"{len(frame)} row{'s' * (len(frame) != 1)}"
st.caption(f"{more}, {seconds:.2f} s")
st.dataframe(
    frame,
    hide_index=True,
    row_height=ROW_PIXELS,
    height=40 + ROW_PIXELS * min(max(len(frame), 1), SHOWN_ROWS),
    placeholder="—",
    key="result",
    column_config={
        name: st.column_config.NumberColumn(format=DIGITS) for name in map(str, frame.select_dtypes("float"))
    },
)
row = st.container(horizontal=True)
row.download_button(
    "Result as CSV",
    lambda: csv_bytes(_whole(frame, str(sql))),
    "result.csv",
    "text/csv",
    on_click="ignore",
)
if row.toggle("chart", key="chart_shown", bind="query-params"):
    _show_chart(frame)
