"""The compare page: curves of several configurations or closures in one figure."""

from __future__ import annotations

import pandas as pd
import streamlit as st

import eftcore as eft
from db.reading.spreadsheets import csv_bytes
from eftcore.results import Theory
from eftcore.verdicts.windows import DEFAULT_TOLERANCES
from ui.data.compare import (
    MOST_SERIES,
    build_exact_errors,
    build_measured_errors,
    build_results,
    build_series,
    build_series_errors,
    build_theories,
)
from ui.data.run import build_simulations, component_choices, entries_label
from ui.figures import entries_figure, errors_figure, trajectories_figure
from ui.shell import PLOT, narrow, nothing_recorded, open_database

REFERENCES = ("simulation", "exact leading order", "measured next order")


def _remember(key: str, name: str) -> None:
    st.query_params[name] = [str(value) for value in st.session_state[key]]


def _choose_simulations(runs: pd.DataFrame) -> list[int]:
    """Ids of the chosen simulations: those in the URL, else the newest two. A choice is written to the URL."""
    labels = dict(zip(runs["run_id"].tolist(), runs["label"], strict=True))
    asked = [int(text) for text in st.query_params.get_all("run") if text.isdecimal() and int(text) in labels]
    return st.multiselect(
        "simulations",
        list(labels),
        default=(asked or list(labels)[:2])[:MOST_SERIES],
        format_func=labels.__getitem__,
        max_selections=MOST_SERIES,
        key="simulations",
        on_change=_remember,
        args=("simulations", "run"),
    )


def _choose_theories(found: pd.DataFrame, simulations: int) -> list[str]:
    names = found["theory"].drop_duplicates().tolist()
    shown = (
        ["g_only"] if simulations > 2 and "g_only" in names else names[-min(len(names), MOST_SERIES // simulations) :]
    )
    return st.multiselect("theories", names, default=shown, key="theory", bind="query-params")


def _choose_entries(n_inputs: int, *, next_order: bool) -> list[str]:
    """The chosen components; over inputs and over pairs with a picture of their positions in the matrix."""
    row = st.container(horizontal=True, vertical_alignment="bottom")
    chosen: list[str] = []
    for quantity, label, key in (
        ("K0", entries_label("inputs"), "entries"),
        ("V4", entries_label("pairs"), "covariances"),
    ):
        stored, shown = component_choices(quantity, n_inputs)
        names = row.multiselect(label, stored, default=shown[:1], key=key, bind="query-params", width=330)
        with row.popover("picture"):
            st.plotly_chart(
                entries_figure(n_inputs, stored, names), key=f"picture-{key}", config={"displayModeBar": False}
            )
        chosen += names
    if next_order:
        stored, shown = component_choices("T", n_inputs)
        label = entries_label("triples")
        chosen += row.multiselect(label, stored, default=shown, key="cumulants", bind="query-params", width=330)
    return chosen


@st.cache_data(max_entries=64, show_spinner="computing the exact leading order …")
def _exact(spec_json: str) -> Theory:
    spec = eft.PredictionSpec.model_validate_json(spec_json)
    return eft.predict_spec(spec)


def _exact_of(results: dict[int, object], pairs: pd.DataFrame, found: pd.DataFrame) -> dict[int, Theory]:
    """The exact leading order for each simulation: a stored prediction, or one computed here."""
    exact: dict[int, Theory] = {}
    for simulation in pairs["simulation_run_id"].unique():
        recorded = found[(found["simulation_run_id"] == simulation) & (found["closure"] == "exact")]
        stored = results.get(int(recorded["prediction_run_id"].iloc[-1])) if len(recorded) else None
        if isinstance(stored, Theory):
            exact[int(simulation)] = stored
            continue
        some = results[int(pairs.loc[pairs["simulation_run_id"] == simulation, "prediction_run_id"].iloc[0])]
        assert isinstance(some, Theory)
        spec = eft.PredictionSpec(
            model=some.spec.model,
            kernel=some.spec.kernel,
            closure="exact",
            depths=some.spec.depths,
            numerics=eft.Numerics(rtol=1e-6),
        )
        exact[int(simulation)] = _exact(spec.model_dump_json())
    return exact


db = open_database()
runs = build_simulations(db)
if runs.empty:
    nothing_recorded(db, "simulation")
st.title("Compare")
chosen = _choose_simulations(runs)
if not chosen:
    st.info("Choose at least one simulation; with several, what differs between them names the curves.")
    st.stop()
found = build_theories(db, chosen)
if found.empty:
    st.info("No theory has been compared with these simulations yet: run a study that asks for one.")
    st.stop()
theories = _choose_theories(found, len(chosen))
pairs = found[found["theory"].isin(theories)]
if pairs.empty:
    st.info("Choose at least one theory.")
    st.stop()
if len(pairs) > MOST_SERIES:
    st.warning(f"{len(pairs)} curves are more than can be told apart: the first {MOST_SERIES} are drawn.")
    pairs = pairs.head(MOST_SERIES)
components = _choose_entries(
    int(runs.loc[runs["run_id"].isin(chosen), "n_inputs"].min()), next_order=bool(pairs["next_order"].any())
)
controls = st.container(horizontal=True)
reference = controls.segmented_control(
    "errors against", REFERENCES, default=REFERENCES[0], required=True, key="reference", bind="query-params"
)
scale = controls.segmented_control(
    "trajectories", ("linear", "log"), default="linear", required=True, key="scale", bind="query-params"
)
error_scale = controls.segmented_control(
    "errors", ("log", "linear"), default="log", required=True, key="error_scale", bind="query-params"
)

errors = build_series_errors(db, pairs)
st.subheader("Trajectories", divider="gray")
if components:
    series = build_series(db, pairs, components)
    st.plotly_chart(
        trajectories_figure(series, log=scale == "log", narrow=narrow()),
        key="series",
        config=PLOT,
        alt="Simulated and predicted entries over depth; the run pages hold the numbers.",
    )
else:
    st.info("Choose at least one entry.")

st.subheader("Relative error", divider="gray")
if reference == REFERENCES[1]:
    recorded = found.loc[found["closure"] == "exact", "prediction_run_id"].tolist()
    results = build_results(db, [*pairs["prediction_run_id"].tolist(), *recorded])
    exact = _exact_of(dict(results), pairs, found)
    errors = build_exact_errors(results, pairs, exact, errors)
    unsure = max(theory.relative_error(name) or 0.0 for theory in exact.values() for name in ("V4", "K1"))
    st.caption(
        f"Against the exact leading order, no noise and no finite-width part; its own relative error is at most "
        f"{unsure:.0e}. A prediction of the exact closure is its own reference: its error is 0."
    )
elif reference == REFERENCES[2]:
    errors = build_measured_errors(db, errors)
    if errors.empty:
        st.info("None of these theories has a next order in 1/n that simulations of two widths have measured.")
        st.stop()
    st.caption(
        "Of D and K2, against what simulations of several widths measure; bands hold at all depths at once (95 %)."
    )
else:
    st.caption(
        "Against each configuration's own simulation, Frobenius norm over all pairs of inputs; bands hold at all depths"
        " at once (95 %)."
    )
st.plotly_chart(
    errors_figure(
        errors,
        DEFAULT_TOLERANCES,
        log=error_scale == "log",
        reference=dict(zip(REFERENCES, ("sim", "exact", "measured"), strict=True))[str(reference)],
        narrow=narrow(),
    ),
    key="series-errors",
    config=PLOT,
    alt="Relative error of each curve over depth.",
)
st.container(horizontal=True).download_button(
    "Errors as CSV", csv_bytes(errors), "errors.csv", "text/csv", on_click="ignore"
)
