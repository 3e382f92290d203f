"""One simulation and every theory held against it."""

from __future__ import annotations

import streamlit as st

from ui.figures import errors_figure, trajectories_figure
from ui.notation import literal, number
from ui.run_data import (
    build_errors,
    build_provenance,
    build_run_windows,
    build_simulations,
    build_trajectories,
    build_values,
    component_choices,
    windows_matrix,
)
from ui.shell import nothing_recorded, open_database

PLOT = {"displaylogo": False}


def _choose_simulation(ids: list[int], labels: dict[int, str]) -> int:
    """The run named in the URL, the newest without one; choosing another writes it there."""
    asked = st.query_params.get("simulation", str(ids[0]))
    if asked not in map(str, ids):
        st.title("No such simulation")
        st.text(f"simulation = {asked}: the database has no finished simulation run of that number.")
        st.page_link("pages/windows.py", label="All validity windows")
        st.stop()

    def remember() -> None:
        st.query_params["simulation"] = str(st.session_state[key])

    key = f"simulation-{asked}"
    return int(
        st.selectbox(
            "simulation", ids, index=ids.index(int(asked)), format_func=labels.__getitem__, key=key, on_change=remember
        )
    )


db = open_database()
simulations = build_simulations(db)
if simulations.empty:
    nothing_recorded("simulation", "eft run quick")
st.title("Run")
run_ids = simulations["run_id"].tolist()
run_id = _choose_simulation(run_ids, dict(zip(run_ids, simulations["label"], strict=True)))
run = simulations[simulations["run_id"] == run_id]
samples, width, n_inputs = (int(run[name].iloc[0]) for name in ("samples", "width", "n_inputs"))
st.caption(
    f"N = {n_inputs} inputs, T = ε² L = {number(float(run['total_time'].iloc[0]))}, M = {samples} networks of width "
    f"n = {width}, {run['estimator'].iloc[0]} estimator."
)

errors = build_errors(db, run_id)
if errors.empty:
    st.info("No theory has been compared with this simulation yet: run a study that asks for one.")
    st.stop()

st.subheader("Trajectories", divider="gray")
kernel_column, covariance_column = st.columns(2)
stored, shown = component_choices("K0", n_inputs)
kernel_entries = kernel_column.multiselect(
    "entries ab of K0, K1, U1", stored, default=shown, key="entries", bind="query-params"
)
stored, shown = component_choices("V4", n_inputs)
covariance_entries = covariance_column.multiselect(
    "entries ab,cd of V4", stored, default=shown, key="covariances", bind="query-params"
)
if not kernel_entries and not covariance_entries:
    st.info("Choose at least one entry.")
    st.stop()
trajectories = build_trajectories(db, run_id, [*kernel_entries, *covariance_entries])
st.plotly_chart(
    trajectories_figure(trajectories),
    key="trajectories",
    config=PLOT,
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
st.table(literal(build_values(trajectories, time)), border="horizontal", hide_index=True)

st.subheader("Relative error", divider="gray")
windows = build_run_windows(db, run_id)
st.plotly_chart(
    errors_figure(errors, sorted(windows["tolerance"].unique())),
    key="errors",
    config=PLOT,
    alt="Relative error of each theory against depth with error bands, on a logarithmic scale.",
)
st.caption(
    f"Frobenius norm over all pairs of inputs, against M = {samples} networks; K1 only where it exceeds twice its own "
    "noise. Below, the validity windows t*: certified … refuted; > T where the theory holds at every recorded depth; "
    "≥ where it was never refuted."
)
st.table(literal(windows_matrix(windows)), border="horizontal", hide_index=True)

st.subheader("Provenance", divider="gray")
predictions = [int(number) for number in errors["prediction_run_id"].unique()]
st.table(literal(build_provenance(db, run_id, predictions)), border="horizontal", hide_index=True)
