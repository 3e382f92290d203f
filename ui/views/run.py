"""The run page: one simulation and every theory compared with it."""

from __future__ import annotations

from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from db.schema.components import diagonal_components
from eftcore.errors import EftError, InputError
from ui.data.compare import build_results
from ui.data.diagnostics import (
    CHECKS,
    DIAGNOSTICS,
    NORM,
    ORDERS,
    RESIDUAL,
    checks_frame,
    orders_frame,
    residual_frame,
)
from ui.data.quantiles import agreement_text, build_compared, build_quantiles, quantiles_table
from ui.data.run import (
    build_download,
    build_errors,
    build_measured,
    build_precision,
    build_provenance,
    build_run_windows,
    build_simulations,
    build_study_file,
    build_trajectories,
    build_values,
    component_choices,
    entries_label,
    windows_matrix,
    with_measured,
)
from ui.figures import errors_figure, quantiles_figure, query_figure, trajectories_figure
from ui.notation import TIME, literal, markdown_text, number
from ui.shell import PLOT, narrow, nothing_recorded, open_database, tell


def _choose_simulation(ids: list[int], labels: dict[int, str]) -> int:
    """Id of the chosen simulation: the one in the URL, else the newest. A choice is written to the URL."""
    asked = st.query_params.get("simulation", str(ids[0]))
    if asked not in map(str, ids):
        st.title("No such simulation")
        said = "the database has no finished simulation run of that number"
        tell(InputError(said, place="simulation", value=asked, remedy="take one of the windows page"))
        st.page_link("views/windows.py", label="All validity windows")
        st.stop()

    def remember() -> None:
        st.query_params["simulation"] = str(st.session_state[key])

    key = f"simulation-{asked}"
    return int(
        st.selectbox(
            "simulation", ids, index=ids.index(int(asked)), format_func=labels.__getitem__, key=key, on_change=remember
        )
    )


@st.cache_resource(max_entries=64, show_spinner=False)
def _trajectories(frame: pd.DataFrame, small: bool) -> go.Figure:
    """The figure of trajectories, cached for equal numbers; all sessions share it, and none may change it."""
    return trajectories_figure(frame, narrow=small)


@st.cache_resource(max_entries=64, show_spinner=False)
def _errors(frame: pd.DataFrame, tolerances: list[float], small: bool) -> go.Figure:
    """The figure of errors, cached for equal numbers; all sessions share it, and none may change it."""
    return errors_figure(frame, tolerances, narrow=small)


@st.cache_resource(max_entries=64, show_spinner=False)
def _quantiles(frame: pd.DataFrame, small: bool) -> go.Figure:
    """The figure of quantiles, cached for equal numbers; all sessions share it, and none may change it."""
    return quantiles_figure(frame, narrow=small)


db = open_database()
simulations = build_simulations(db)
if simulations.empty:
    nothing_recorded(db, "simulation")
st.title("Run")
run_ids = simulations["run_id"].tolist()
run_id = _choose_simulation(run_ids, dict(zip(run_ids, simulations["label"], strict=True)))
run = simulations[simulations["run_id"] == run_id]
samples, width, n_inputs = (int(run[name].iloc[0]) for name in ("samples", "width", "n_inputs"))
st.caption(
    f"N = {n_inputs} inputs, T = ε² L = {number(float(run['total_time'].iloc[0]))}, M = {samples} networks of width "
    f"n = {width}, {run['estimator'].iloc[0]} estimator."
)

row = st.container(horizontal=True)
row.page_link("views/compare.py", label="Compare it with others", query_params={"run": str(run_id)})
row.page_link("views/windows.py", label="All validity windows")
figure_format = st.segmented_control(
    "the camera on each figure saves", ("PNG", "SVG"), default="PNG", required=True, key="figures", bind="query-params"
)


def _saving(figure: str) -> dict[str, object]:
    """Plotly settings with the file name under which a figure is saved."""
    options = {"format": str(figure_format).lower(), "filename": f"run-{run_id}-{figure}", "scale": 2}
    return {**PLOT, "toImageButtonOptions": options}


errors = build_errors(db, run_id)
if errors.empty:
    st.info("No theory has been compared with this simulation yet: run a study that asks for one.")
    st.stop()

st.subheader("Trajectories", divider="gray")
kernel_column, covariance_column = st.columns(2)
stored, shown = component_choices("K0", n_inputs)
kernel_entries = kernel_column.multiselect(
    entries_label("inputs"), stored, default=shown, key="entries", bind="query-params"
)
stored, shown = component_choices("V4", n_inputs)
covariance_entries = covariance_column.multiselect(
    entries_label("pairs"), stored, default=shown, key="covariances", bind="query-params"
)
cumulant_entries: list[str] = []
if errors["next_order"].any():
    stored, shown = component_choices("T", n_inputs)
    cumulant_entries = kernel_column.multiselect(
        entries_label("triples"), stored, default=shown, key="cumulants", bind="query-params"
    )
if not kernel_entries and not covariance_entries and not cumulant_entries:
    st.info("Choose at least one entry.")
    st.stop()
entries = [*kernel_entries, *covariance_entries, *cumulant_entries]
measured = build_measured(db, int(run["configuration_id"].iloc[0]), entries)
trajectories = with_measured(build_trajectories(db, run_id, entries), measured)
st.plotly_chart(
    _trajectories(trajectories, narrow()),
    key="trajectories",
    config=_saving("trajectories"),
    alt="Simulated kernel entries against depth with error bands and theories; numbers below.",
)

times = sorted(trajectories["time"].unique())
time = st.columns(2)[0].select_slider(
    "numbers at t", times, value=times[-1], format_func=lambda t: f"{t:.6g}", key="t", bind="query-params"
)
st.caption(
    f"Simulated: estimate and standard error (s.e.) from M = {samples} networks of width n = {width}. "
    "z = (theory − simulated) / s.e.; the theory is of leading order in 1/n, so z also shows what higher orders add."
)
measurement = [int(number) for number in measured["measurement_run_id"].unique()]
if measurement:
    st.caption(
        "D and K2 are measured: the coefficients of 1/n in V4 and K1, from simulations of several widths and the exact "
        f"leading order (run {measurement[0]})."
    )
st.table(literal(build_values(trajectories, time)), border="horizontal", hide_index=True)


def _show_kernels(entries: list[str]) -> None:
    """Quantiles of these diagonal entries, as simulated and by the law from theory."""
    if not entries:
        st.info("Choose at least one entry.")
        return
    simulated = build_quantiles(db, run_id, entries)
    if simulated.empty:
        st.info(
            "No quantiles of these entries are recorded. A simulation that was recorded before the database held them"
            " gets them when its study is run again: `eft run`, or `eft run --renew` where its version kept none. An"
            " input that is 0 has none."
        )
        return
    compared = build_compared(db, simulated)
    st.plotly_chart(
        _quantiles(compared.rows, narrow()),
        key="kernels-figure",
        config=_saving("quantiles"),
        alt="Median and central intervals of the kernel of one network against depth, simulated and by theory.",
    )
    told = f"Quantiles over M = {samples} networks of width n = {width}; their bounds hold with 95 % each."
    if compared.run_id is not None:
        told += f" The law is that of the exact closure with its next order (run {compared.run_id})."
        told += f" {agreement_text(compared.rows)}"
    st.caption(markdown_text(f"{told} {compared.said}".strip()))
    st.table(literal(quantiles_table(compared.rows, time)), border="horizontal", hide_index=True)


st.subheader("Kernel of one network", divider="gray")
stored = diagonal_components(n_inputs)
_show_kernels(
    st.columns(2)[0].multiselect("entries aa of G", stored, default=stored[:2], key="kernels", bind="query-params")
)

st.subheader("Relative error", divider="gray")
windows = build_run_windows(db, run_id, *measurement)
st.plotly_chart(
    _errors(errors, sorted(windows["tolerance"].unique()), narrow()),
    key="errors",
    config=_saving("errors"),
    alt="Relative error of each theory against depth with error bands, on a logarithmic scale.",
)
st.caption(
    f"Frobenius norm over all pairs of inputs, against M = {samples} networks; K1 only where it exceeds twice its own "
    "noise. Below, the validity windows t*: certified … refuted; > T where the theory holds at every recorded depth; "
    "≥ where it was never refuted."
)
st.table(literal(windows_matrix(windows)), border="horizontal", hide_index=True)

predictions = [int(number) for number in errors["prediction_run_id"].unique()]


@st.cache_data(max_entries=32, show_spinner="computing, some seconds …")
def _diagnosis(url: str, chosen: str, run_ids: tuple[int, ...]) -> pd.DataFrame:
    """The chosen diagnostic of the first of these runs."""
    result = build_results(db, run_ids[:1])[run_ids[0]]
    if chosen == RESIDUAL:
        return residual_frame(result)
    return (orders_frame if chosen == ORDERS else checks_frame)(result.spec.model, result.spec.kernel)


def _show_diagnosis(chosen: str) -> None:
    if chosen != RESIDUAL:
        table = _diagnosis(str(db.url), chosen, (run_id,))
    if chosen == CHECKS:
        st.table(literal(table), border="horizontal", hide_index=True)
        st.caption(
            "On fresh small networks of this configuration; false-alarm rate 0.001 each, all hold at every width."
        )
    elif chosen == ORDERS:
        figure = query_figure(table, "order", "size", "quantity", lines=True, log=True, narrow=narrow())
        st.plotly_chart(figure, key="orders", config=_saving("orders"), alt="Size of each Wick order at T.")
        st.caption("Frobenius norm at T of what each Wick order adds to V4, K1 and U1; order 2 holds all up to it.")
    else:
        exact = errors.loc[errors["closure"] == "exact", "prediction_run_id"]
        references = {"simulation": run_id} | ({"exact leading order": int(exact.iloc[-1])} if len(exact) else {})
        name = st.segmented_control(
            "on", list(references), default="simulation", required=True, key="residual_on", bind="query-params"
        )
        table = _diagnosis(str(db.url), chosen, (references[str(name)],))
        figure = query_figure(table, TIME, NORM, "part", lines=True, log=True, narrow=narrow())
        st.plotly_chart(figure, key="residual", config=_saving("residual"), alt="Residual and its parts over depth.")
        st.caption(
            "The G-only equation of V4 on the reference's own V4: what is left over is the step's higher powers of ε, "
            "the source error Σ − Σ(K⁰) and the transport error E[S | G] ≠ E₂(G). Where an older version of the "
            "program recorded the simulation without its Σ, the last two stay together; on the exact leading "
            "order the source error is 0."
        )


st.subheader("Diagnostics", divider="gray")
diagnostic = st.segmented_control("compute", DIAGNOSTICS, key="diagnostic", bind="query-params")
if diagnostic is not None:
    try:
        _show_diagnosis(str(diagnostic))
    except EftError as problem:
        tell(problem)

st.subheader("Precision reached", divider="gray")
st.table(literal(build_precision(db, errors)), border="horizontal", hide_index=True)
st.caption(
    "Relative, Frobenius norm over all pairs of inputs. The simulation's standard error falls like 1/√M; the numerics "
    "of a theory are its integrals and steps, not what its closure leaves out; of D, K2 and T also what the "
    "functions left out add."
)

st.subheader("Provenance", divider="gray")
st.table(literal(build_provenance(db, run_id, [*predictions, *measurement])), border="horizontal", hide_index=True)

st.subheader("Study file and downloads", divider="gray")
st.caption("Save it as FILE.toml and `eft run FILE.toml`: what is stored is not computed again.")
st.code(build_study_file(db, run_id, predictions, samples), language="toml", height=260)
row = st.container(horizontal=True)
for what in ("trajectories", "quantiles", "errors"):
    for form, label, mime in (("csv", "CSV", "text/csv"), ("parquet", "Parquet", "application/vnd.apache.parquet")):
        row.download_button(
            f"{what} as {label}",
            partial(build_download, db, run_id, what, form),
            f"run-{run_id}-{what}.{form}",
            mime,
            on_click="ignore",
        )
