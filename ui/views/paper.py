"""The paper page: the paper's statements, numbers and figures beside our results."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from ui.figures import panels_figure
from ui.figures.panels import PanelFigure
from ui.notation import markdown_text
from ui.reports.paper.audit import CHANGES, COLUMNS, INTRODUCTION, LEGEND, OPEN, STANDS, Finding, Line, findings, lines
from ui.reports.paper.figures import paper_figures
from ui.reports.paper.published import published
from ui.reports.paper.residuals import COLUMNS as RESIDUAL_COLUMNS
from ui.reports.paper.residuals import EXPLANATION, SQL, Interval, residual_findings, residual_table
from ui.reports.paper.results import WIDTH, Results, recorded_studies
from ui.shell import PLOT, narrow, open_database

ROW_PIXELS = 30
SECONDS_KEPT = 30
COLOURS = {STANDS: "green", CHANGES: "orange", OPEN: "gray"}

Audit = tuple[list[str], tuple[Finding, ...], tuple[Line, ...], tuple[PanelFigure, ...]]


@st.cache_data(max_entries=8, ttl=SECONDS_KEPT, show_spinner=False)
def _widths(url: str, study: str) -> list[int]:
    return Results(db, study).widths


@st.cache_data(max_entries=8, ttl=SECONDS_KEPT, show_spinner="reading the study …")
def _audit(url: str, study: str, width: int) -> Audit:
    """The audit of the paper: missing results, statements, numbers, figures."""
    results = Results(db, study, width)
    return results.missing, findings(results), lines(results), paper_figures(results)


@st.cache_data(max_entries=2, ttl=SECONDS_KEPT, show_spinner="putting V4 into its equation …")
def _residuals(url: str, study: str) -> tuple[Interval, ...]:
    return residual_table(Results(db, study))


def _show_queries(queries: tuple[str, ...]) -> None:
    for sql in queries:
        st.code(sql, language="sql", wrap_lines=True)
        st.page_link("views/sql.py", label="Ask it on the SQL page", query_params={"sql": sql})


def _show_findings(found: tuple[Finding, ...]) -> None:
    for finding in found:
        colour = next((shade for verdict, shade in COLOURS.items() if finding.verdict.startswith(verdict)), "gray")
        row = st.container(horizontal=True, vertical_alignment="center")
        row.markdown(f"**{markdown_text(finding.statement)}** :{colour}-badge[{finding.verdict}]", width="content")
        if finding.queries:
            with row.popover("queries", type="tertiary"):
                _show_queries(finding.queries)
        st.markdown(markdown_text(" ".join(finding.computed)))


def _show_lines(found: tuple[Line, ...]) -> None:
    table = pd.DataFrame([line.cells for line in found], columns=list(COLUMNS))
    event = st.dataframe(
        table,
        hide_index=True,
        row_height=ROW_PIXELS,
        height=ROW_PIXELS * (len(table) + 1) + 10,
        on_select="rerun",
        selection_mode="single-row",
        key="numbers",
        column_config={
            "value": st.column_config.TextColumn(width=300),
            "published": st.column_config.TextColumn(width=120),
        },
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < len(found):
        line = found[rows[0]]
        st.text(f"{line.what}: {line.source}")
        _show_queries(line.queries)
        if not line.queries:
            st.caption("Computed from the theory and the simulation's curves; no single query gives it.")


def _show_figures(found: tuple[PanelFigure, ...]) -> None:
    for figure in found:
        st.plotly_chart(
            panels_figure(figure, narrow=narrow()),
            key=figure.name,
            config={**PLOT, "toImageButtonOptions": {"format": "svg", "filename": f"paper-{figure.name}"}},
            alt=figure.caption,
        )
        st.caption(markdown_text(figure.caption))


def _show_residuals(found: tuple[Interval, ...]) -> None:
    if not found:
        st.caption("No simulation with Sigma is recorded yet.")
        return
    st.markdown(markdown_text(" ".join(residual_findings(found))))
    st.caption(markdown_text(EXPLANATION))
    st.dataframe(pd.DataFrame([row.cells for row in found], columns=list(RESIDUAL_COLUMNS)), hide_index=True)
    with st.popover("query of V4 and Sigma", type="tertiary"):
        _show_queries((SQL,))


def _nothing_yet() -> None:
    st.info("No study of the paper's setting has been run into this database yet.")
    st.markdown(
        f"The {len(published().value)} published numbers are compared with what a study computes. `paper-quick` takes "
        "about two minutes; `paper`, with standard errors below the published ones, takes longer:"
    )
    st.code("eft run paper-quick\neft run paper", language="bash")
    st.caption("In the project's folder, `make paper` does the second one, and writes docs/paper.html too.")
    st.stop()


db = open_database()
st.title("The paper, audited")
st.caption(markdown_text(INTRODUCTION))
studies = recorded_studies(db)
if not studies:
    _nothing_yet()
row = st.container(horizontal=True)
study = row.segmented_control("study", studies, default=studies[0], required=True, key="audit", bind="query-params")
widths = _widths(str(db.url), str(study))
width = row.segmented_control(
    "our simulation in statements and figures 1, 3, 4",
    [f"n = {width}" for width in widths] or [f"n = {WIDTH}"],
    default=f"n = {WIDTH}" if WIDTH in widths or not widths else f"n = {widths[0]}",
    required=True,
    key="ensemble",
    bind="query-params",
)
missing, statements, numbers, figures = _audit(str(db.url), str(study), int(str(width).removeprefix("n = ")))
if missing:
    st.warning(f"The study is not complete: {len(missing)} of its parts are missing, first {missing[0]}. To go on:")
    st.code(f"eft run {study}", language="bash")

st.subheader("What stands and what changes", divider="gray")
_show_findings(statements)
st.subheader("Number by number", divider="gray")
st.caption(markdown_text(LEGEND) + " Choose a row for its source and queries; a column's head sorts.")
_show_lines(numbers)
st.subheader("Figures", divider="gray")
_show_figures(figures)
if not figures:
    st.caption("There is no simulation to draw yet.")
st.subheader("Residual of the equation of V4", divider="gray")
if st.toggle("put the simulated V4 into the equation (some seconds)", key="residual", bind="query-params"):
    _show_residuals(_residuals(str(db.url), str(study)))
st.subheader("Sources", divider="gray")
for text in published().sources.values():
    st.caption(markdown_text(text))
