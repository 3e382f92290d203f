"""The page of checks: recorded checks of torch modules, and one of them block by block and beside theory."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from db.reading.spreadsheets import csv_bytes
from eftcore.errors import InputError
from eftcore.measure.wording import block_table, spec_text
from ui.data.checks import (
    build_beside_theory,
    build_blocks,
    build_checks,
    build_measured,
    build_origin,
    chosen_check,
)
from ui.data.run import windows_matrix
from ui.figures import panels_figure
from ui.figures.coordinate_check import Measured, coordinate_check
from ui.notation import literal, markdown_text
from ui.shell import narrow, open_database, plot, tell

ROW_PIXELS, SHOWN_ROWS = 28, 8


def _choose(ids: list[int], labels: dict[int, str]) -> int:
    """Id of the chosen check: the one in the URL, else the newest. A choice is written to the URL."""
    asked = st.query_params.get("check", str(ids[0]))
    try:
        check = chosen_check(asked, ids)
    except InputError as problem:
        tell(problem)
        st.page_link("views/checks.py", label="The newest check")
        st.stop()

    def remember() -> None:
        st.query_params["check"] = str(st.session_state[key])

    key = f"check-{asked}"
    place = ids.index(check)
    return int(st.selectbox("check", ids, index=place, format_func=labels.__getitem__, key=key, on_change=remember))


@st.cache_resource(max_entries=32, show_spinner="computing what theory expects, some seconds …")
def _figure(url: str, run_id: int, small: bool, _measured: Measured) -> tuple[go.Figure, str]:
    """The coordinate check and its caption; a check never changes. All sessions share it, and none may change it."""
    described = coordinate_check(_measured)
    return panels_figure(described, narrow=small), described.caption


db = open_database()
checks = build_checks(db)
if checks.empty:
    st.title("No check recorded yet")
    st.markdown(
        "A check says whether the initialisation of a torch module of yours is what you think it is, block by block. "
        "It is recorded where there is a database:"
    )
    st.code("eft check my_model.py:make_model --inputs inputs.npy", language="bash")
    st.stop()
st.title("Checks")
ids = checks["check_run_id"].tolist()
run_id = _choose(ids, dict(zip(ids, checks["label"], strict=True)))
blocks = build_blocks(db, run_id)
measured = build_measured(db, run_id)
first = blocks.iloc[0]
(st.success if blocks["first_deviating_layer"].isna().all() else st.error)(markdown_text(str(first["verdict"])))
st.caption(
    markdown_text(spec_text(measured.spec, measured.width, guessed=bool(first["guessed"])))
    + f" One p-value for all blocks: {first['module_p_value']:.2g}; {measured.networks} networks."
)

st.subheader("Kernel over depth", divider="gray")
figure, caption = _figure(str(db.url), run_id, narrow(), measured)
plot(
    figure,
    "kernels",
    name=f"check-{run_id}-kernels",
    alt="Median and spread of each kernel entry over networks against depth, beside mean and band from theory.",
)
st.caption(caption)

st.subheader("Block by block", divider="gray")
st.table(literal(block_table(blocks, measured.spec)), border="horizontal", hide_index=True)
st.caption(
    "Each block is judged by what it adds, given the stream that it gets: blocks after a wrong one are not to blame "
    "for it. The variances are fitted."
)

st.subheader("Beside theory", divider="gray")
values, windows = build_beside_theory(db, run_id, int(first["n_inputs"]))
if values.empty:
    st.info("No theory of this network is recorded.")
else:
    st.table(literal(values), border="horizontal", hide_index=True)
    st.caption(
        "At the last layer: the mean kernel K0 and n times its covariance V4, as measured and by theory of leading "
        "order in 1/n; z = (theory − measured) / s.e. Below, the validity windows t* of that theory against this "
        "module."
    )
if len(windows):
    st.table(literal(windows_matrix(windows)), border="horizontal", hide_index=True)

st.subheader("Provenance", divider="gray")
st.table(literal(build_origin(db, blocks)), border="horizontal", hide_index=True)
st.download_button(
    "blocks as CSV", lambda: csv_bytes(blocks), f"check-{run_id}-blocks.csv", "text/csv", on_click="ignore"
)

st.subheader("All checks", divider="gray")
listed = checks.assign(open=[f"checks?check={check}" for check in ids]).drop(columns=["check_run_id", "label"])
st.dataframe(
    listed,
    hide_index=True,
    row_height=ROW_PIXELS,
    height=ROW_PIXELS * (min(len(listed), SHOWN_ROWS) + 1) + 8,
    column_config={"open": st.column_config.LinkColumn("open", display_text=r"checks\?check=([0-9]+)")},
)
