"""The run page: one simulation and every theory compared with it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from db.reading.kernel_laws import quantiles_beside_law
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
from ui.data.quantiles import agreement_text, build_quantiles, quantiles_table
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
    verdicts_said,
    verdicts_table,
    windows_matrix,
    with_measured,
)
from ui.figures import errors_figure, quantiles_figure, query_figure, trajectories_figure
from ui.notation import TIME, literal, markdown_text, number
from ui.shell import kept, narrow, nothing_recorded, open_database, plot, tell

if TYPE_CHECKING:
    from streamlit.elements.lib.mutable_expander_container import ExpanderContainer


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
simulations = kept(db, build_simulations)
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

errors = kept(db, build_errors, run_id)
if errors.empty:
    st.info("No theory has been compared with this simulation yet: run a study that asks for one.")
    st.stop()
depth, total_time = int(run["depth"].iloc[0]), float(run["total_time"].iloc[0])
measurements = build_measured(db, int(run["configuration_id"].iloc[0]), ["00"])["measurement_run_id"]
measurement = [int(each) for each in measurements.unique()]
predictions = [int(each) for each in errors["prediction_run_id"].unique()]
windows = kept(db, build_run_windows, run_id, *measurement)


def _plot(figure: go.Figure, name: str, alt: str) -> None:
    """A figure of this page, saved under a name that says the run."""
    plot(figure, name, name=f"run-{run_id}-{name}", alt=alt, form=str(figure_format).lower())


@st.fragment
def _show_verdicts() -> None:
    """How deep each theory holds, in words."""
    tolerances = {f"{value:g}": value for value in sorted(windows["tolerance"].unique())}
    usual = "0.05" if "0.05" in tolerances else next(iter(tolerances))
    chosen = st.segmented_control(
        "within tolerance τ", list(tolerances), default=usual, required=True, key="tolerance", bind="query-params"
    )
    tolerance = tolerances[str(chosen)]
    st.markdown("  \n".join(map(markdown_text, verdicts_said(windows, tolerance))))
    st.table(literal(verdicts_table(windows, tolerance)), border="horizontal", hide_index=True)
    st.caption(
        f"How deep the relative error of each theory stays within τ = {number(100 * tolerance)} %, of {depth} layers "
        f"(T = {number(total_time)}), with 95 % confidence at all depths at once. Cannot be told: the simulation is "
        "not precise enough there."
    )


@st.fragment
def _show_trajectories() -> None:
    """Chosen entries over depth, and their numbers at one depth."""
    kernel_column, covariance_column = st.columns(2)
    stored, shown = component_choices("K0", n_inputs)
    entries = kernel_column.multiselect(
        entries_label("inputs"), stored, default=shown, key="entries", bind="query-params"
    )
    stored, shown = component_choices("V4", n_inputs)
    entries = entries + covariance_column.multiselect(
        entries_label("pairs"), stored, default=shown, key="covariances", bind="query-params"
    )
    if errors["next_order"].any():
        stored, shown = component_choices("T", n_inputs)
        entries = entries + kernel_column.multiselect(
            entries_label("triples"), stored, default=shown, key="cumulants", bind="query-params"
        )
    if not entries:
        st.info("Choose at least one entry.")
        return
    measured = build_measured(db, int(run["configuration_id"].iloc[0]), entries)
    trajectories = with_measured(kept(db, build_trajectories, run_id, entries), measured)
    _plot(
        _trajectories(trajectories, narrow()),
        "trajectories",
        "Simulated kernel entries against depth with error bands and theories; numbers below.",
    )
    if measurement:
        st.caption(
            "D and K2 are measured: the coefficients of 1/n in V4 and K1, from simulations of several widths and the "
            f"exact leading order (run {measurement[0]})."
        )
    if not (details := _details("Numbers at one depth", "numbers", "t")).open:
        return
    with details:
        time = st.select_slider(
            "t", times, value=times[-1], format_func=lambda t: f"{t:.6g}", key="t", bind="query-params"
        )
        st.caption(
            f"Simulated: estimate and standard error (s.e.) from M = {samples} networks of width n = {width}. "
            "z = (theory − simulated) / s.e.; the theory is of leading order in 1/n, so z also shows what higher "
            "orders add."
        )
        st.table(literal(build_values(trajectories, time)), border="horizontal", hide_index=True)


def _choose_time(key: str) -> float:
    return float(
        st.select_slider("t", times, value=times[-1], format_func=lambda t: f"{t:.6g}", key=key, bind="query-params")
    )


def _details(title: str, key: str, *within: str) -> ExpanderContainer:
    """What folds, and computes nothing while it is closed; open where the address says so or has a choice in it."""
    asked = any(name in st.query_params for name in within)
    return st.expander(title, key=key, expanded=asked, bind="query-params")


def _show_kernels(entries: list[str], time: float) -> None:
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
    compared = quantiles_beside_law(db, simulated)
    _plot(
        _quantiles(compared.rows, narrow()),
        "quantiles",
        "Median and central intervals of the kernel of one network against depth, simulated and by theory.",
    )
    told = f"Quantiles over M = {samples} networks of width n = {width}; their bounds hold with 95 % each."
    if compared.run_id is not None:
        told += f" The law is that of the exact closure with its next order (run {compared.run_id})."
        told += f" {agreement_text(compared.rows)}"
    st.caption(markdown_text(f"{told} {compared.said}".strip()))
    st.table(literal(quantiles_table(compared.rows, time)), border="horizontal", hide_index=True)


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
        _plot(figure, "orders", "Size of each Wick order at T.")
        st.caption("Frobenius norm at T of what each Wick order adds to V4, K1 and U1; order 2 holds all up to it.")
    else:
        exact = errors.loc[errors["closure"] == "exact", "prediction_run_id"]
        references = {"simulation": run_id} | ({"exact leading order": int(exact.iloc[-1])} if len(exact) else {})
        name = st.segmented_control(
            "on", list(references), default="simulation", required=True, key="residual_on", bind="query-params"
        )
        table = _diagnosis(str(db.url), chosen, (references[str(name)],))
        figure = query_figure(table, TIME, NORM, "part", lines=True, log=True, narrow=narrow())
        _plot(figure, "residual", "Residual and its parts over depth.")
        st.caption(
            "The G-only equation of V4 on the reference's own V4: what is left over is the step's higher powers of ε, "
            "the source error Σ − Σ(K⁰) and the transport error E[S | G] ≠ E₂(G). Where an older version of the "
            "program recorded the simulation without its Σ, the last two stay together; on the exact leading "
            "order the source error is 0."
        )


@st.fragment
def _fold_kernels() -> None:
    if not (details := _details("Kernel of one network", "network", "kernels", "kernel_t")).open:
        return
    with details:
        stored = diagonal_components(n_inputs)
        chosen = st.multiselect("entries aa of G", stored, default=stored[:2], key="kernels", bind="query-params")
        _show_kernels(chosen, _choose_time("kernel_t"))


@st.fragment
def _fold_diagnostics() -> None:
    if not (details := _details("Why a theory fails: diagnostics", "diagnostics", "diagnostic")).open:
        return
    with details:
        chosen = st.segmented_control("compute", DIAGNOSTICS, key="diagnostic", bind="query-params")
        if chosen is not None:
            try:
                _show_diagnosis(str(chosen))
            except EftError as problem:
                tell(problem)


@st.fragment
def _fold_precision() -> None:
    if not (details := _details("Precision reached", "precision")).open:
        return
    with details:
        st.table(literal(build_precision(db, errors)), border="horizontal", hide_index=True)
        st.caption(
            "Relative, Frobenius norm over all pairs of inputs. The simulation's standard error falls like 1/√M; the "
            "numerics of a theory are its integrals and steps, not what its closure leaves out; of D, K2 and T also "
            "what the functions left out add."
        )


@st.fragment
def _fold_provenance() -> None:
    if not (details := _details("Provenance and study file", "provenance")).open:
        return
    with details:
        table = build_provenance(db, run_id, [*predictions, *measurement])
        st.table(literal(table), border="horizontal", hide_index=True)
        st.caption("Save it as FILE.toml and `eft run FILE.toml`: what is stored is not computed again.")
        st.code(build_study_file(db, run_id, predictions, samples), language="toml", height=260)


row = st.container(horizontal=True)
row.page_link("views/compare.py", label="Compare it with others", query_params={"run": str(run_id)})
row.page_link("views/windows.py", label="All validity windows")
st.subheader("How deep each theory holds", divider="gray")
_show_verdicts()

st.subheader("Relative error", divider="gray")
figure_format = st.session_state.get("figures") or st.query_params.get("figures", "PNG")
_plot(
    _errors(errors, sorted(windows["tolerance"].unique()), narrow()),
    "errors",
    "Relative error of each theory against depth with error bands, on a logarithmic scale.",
)
st.caption(
    f"Frobenius norm over all pairs of inputs, against M = {samples} networks of width n = {width}; nothing is drawn "
    "where the simulation cannot tell the quantity from 0. Bands hold at all depths at once (95 %): a theory is "
    "certified while its band is below τ, and refuted from where it is above."
)
with st.expander("Windows t* at every tolerance"):
    st.table(literal(windows_matrix(windows)), border="horizontal", hide_index=True)

st.subheader("Trajectories", divider="gray")
times = sorted(errors["time"].unique())
_show_trajectories()

st.subheader("Details", divider="gray")
_fold_kernels()
_fold_diagnostics()
_fold_precision()
_fold_provenance()
st.segmented_control(
    "the camera on each figure saves", ("PNG", "SVG"), default="PNG", required=True, key="figures", bind="query-params"
)
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
