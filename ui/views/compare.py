"""The compare page: curves of several configurations or closures in one figure."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

import eftcore as eft
from db.reading.spreadsheets import csv_bytes
from eftcore.results import Theory
from eftcore.verdicts.windows import DEFAULT_TOLERANCES
from ui import bar
from ui.asked import tell_what_is_missing
from ui.data.compare import (
    MOST_SERIES,
    build_exact,
    build_exact_errors,
    build_measured_errors,
    build_results,
    build_series,
    build_series_errors,
    build_series_windows,
    build_theories,
    differences_table,
    name_pairs,
    name_simulations,
    relative_error,
)
from ui.data.run import build_simulations, component_choices, entries_label
from ui.figures import entries_figure, errors_figure, noted, trajectories_figure
from ui.notation import literal, markdown_text
from ui.shell import kept, narrow, nothing_recorded, open_database, plot

REFERENCES = ("simulation", "exact leading order", "measured next order")

FEW_INPUTS = 4  # most inputs for which the exact leading order is computed here where none is stored


def _remember(key: str, name: str) -> None:
    st.query_params[name] = [str(value) for value in st.session_state[key]]


def _choose_simulations(runs: pd.DataFrame) -> list[int]:
    """Ids of the chosen simulations: those in the URL, else the newest two. A choice is written to the URL."""
    labels = dict(zip(runs["run_id"].tolist(), runs["label"], strict=True))
    asked = [int(text) for text in st.query_params.get_all("run") if text.isdecimal() and int(text) in labels]
    asked = list(dict.fromkeys(asked))
    if len(asked) > MOST_SERIES:
        left = ", ".join(str(run) for run in asked[MOST_SERIES:])
        st.warning(
            f"The link asks for {len(asked)} simulations, and {MOST_SERIES} can be told apart: left out: runs {left}."
        )
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
        picture = row.popover("picture", key=f"show-{key}", on_change="rerun")
        if picture.open:
            picture.plotly_chart(
                entries_figure(n_inputs, stored, names), key=f"picture-{key}", config={"displayModeBar": False}
            )
        chosen += names
    if next_order:
        stored, shown = component_choices("T", n_inputs)
        label = entries_label("triples")
        chosen += row.multiselect(label, stored, default=shown, key="cumulants", bind="query-params", width=330)
    return chosen


@st.cache_data(max_entries=64, show_spinner="computing the exact leading order …")
def _computed(spec_json: str) -> Theory:
    return eft.predict_spec(eft.PredictionSpec.model_validate_json(spec_json))


def _exact(results: dict[int, Any], pairs: pd.DataFrame) -> dict[int, Theory]:
    """The exact leading order of each configuration: a stored prediction, or one computed here; says which it is."""
    stored = build_exact(db, pairs["configuration_id"].unique().tolist())
    exact = {}
    said = []
    for pair in pairs.drop_duplicates("configuration_id").to_dict("records"):
        configuration, name = pair["configuration_id"], f"{pair['configuration']}: " if pair["configuration"] else ""
        if configuration in stored:
            run_id, theory = stored[configuration]
            how = "converged" if theory.converged else "numerics not converged"
            said.append(f"{name}run {run_id}, {how}, its own relative error {relative_error(theory):.0e}")
        else:
            some = results[int(pair["prediction_run_id"])].spec
            if some.kernel.n_inputs > FEW_INPUTS:
                said.append(f"{name}none is stored, and none is computed here for {some.kernel.n_inputs} inputs")
                continue
            spec = eft.PredictionSpec(
                model=some.model,
                kernel=some.kernel,
                closure="exact",
                depths=some.depths,
                numerics=eft.Numerics(rtol=1e-6),
            )
            theory = _computed(spec.model_dump_json())
            said.append(f"{name}none is stored; computed here, its own relative error {relative_error(theory):.0e}")
        exact[configuration] = theory
    st.caption(
        markdown_text(
            "Against the exact leading order: no noise and no finite-width part. Bands are what the reference leaves "
            "out. A prediction of the exact closure that is its own reference has the error 0. Reference: "
            + "; ".join(said)
            + "."
        )
    )
    return exact


def _against(reference: str) -> pd.DataFrame | None:
    """Errors against the chosen reference, with a caption that says what it is; None where there are none."""
    if reference == REFERENCES[1]:
        results = build_results(db, pairs["prediction_run_id"].tolist())
        exact = _exact(dict(results), pairs)
        return build_exact_errors(results, pairs, exact) if exact else None
    if reference == REFERENCES[2]:
        errors = build_measured_errors(db, pairs)
        if errors.empty:
            st.info("None of these theories has a next order in 1/n that simulations of two widths have measured.")
            return None
        st.caption(
            "Of D and K2, against what simulations of several widths measure; bands hold at all depths at once (95 %)."
        )
        return errors
    st.caption(
        "Against each configuration's own simulation, Frobenius norm over all pairs of inputs; bands hold at all depths"
        " at once (95 %)."
    )
    return kept(db, build_series_errors, pairs)


@st.cache_resource(max_entries=64, show_spinner=False)
def _trajectories(frame: pd.DataFrame, log: bool, small: bool, note: list[str]) -> go.Figure:
    """The figure of trajectories, cached for equal numbers; all sessions share it, and none may change it."""
    return noted(trajectories_figure(frame, log=log, narrow=small), note, narrow=small)


@st.cache_resource(max_entries=64, show_spinner=False)
def _errors(frame: pd.DataFrame, log: bool, reference: str, small: bool, note: list[str]) -> go.Figure:
    """The figure of errors, cached for equal numbers; all sessions share it, and none may change it."""
    figure = errors_figure(frame, DEFAULT_TOLERANCES, log=log, reference=reference, narrow=small)
    return noted(figure, note, narrow=small)


db = open_database()
runs = kept(db, build_simulations)
if runs.empty:
    nothing_recorded(db, "simulation")
st.title("Compare")
tell_what_is_missing("compare", {"run": {str(run) for run in runs["run_id"]}}, widget="simulations")
chosen = _choose_simulations(runs)
if not chosen:
    st.info("Choose at least one simulation; with several, what differs between them names the curves.")
    st.stop()
found = kept(db, build_theories, chosen)
if found.empty:
    st.info("No theory has been compared with these simulations yet: run a study that asks for one.")
    st.stop()
tell_what_is_missing("compare-theories", {"theory": set(found["theory"])}, widget="theory")
theories = _choose_theories(found, len(chosen))
named = name_simulations(runs, chosen)
pairs = name_pairs(found[found["theory"].isin(theories)], named)
if pairs.empty:
    st.info("Choose at least one theory.")
    st.stop()
if len(pairs) > MOST_SERIES:
    left = "; ".join(pairs["series"].iloc[MOST_SERIES:])
    st.warning(
        markdown_text(f"{len(pairs)} curves are more than can be told apart; {MOST_SERIES} are drawn, without {left}.")
    )
    pairs = pairs.head(MOST_SERIES)
note = [
    f"{row['configuration']}: {row['described']}"
    for row in named.to_dict("records")
    if row["configuration"] not in ("", row["described"])
] + bar.said()

st.subheader("What differs, and how deep each holds", divider="gray")
if len(named) > 1:
    st.dataframe(
        differences_table(named),
        hide_index=True,
        placeholder="—",
        column_config={"run": st.column_config.LinkColumn(display_text=r"run\?simulation=([0-9]+)")},
    )
st.caption("Windows t* against the simulation: certified until - refuted from; > T where nothing ended it.")
st.table(literal(kept(db, build_series_windows, pairs)), border="horizontal", hide_index=True)


@st.fragment
def _show_trajectories() -> None:
    components = _choose_entries(
        int(runs.loc[runs["run_id"].isin(chosen), "n_inputs"].min()), next_order=bool(pairs["next_order"].any())
    )
    scale = st.segmented_control(
        "trajectories", ("linear", "log"), default="linear", required=True, key="scale", bind="query-params"
    )
    if not components:
        st.info("Choose at least one entry.")
        return
    plot(
        _trajectories(kept(db, build_series, pairs, components), scale == "log", narrow(), note),
        "series",
        name="compare-trajectories",
        alt="Simulated and predicted entries over depth; the run pages hold the numbers.",
    )


@st.fragment
def _show_errors() -> None:
    controls = st.container(horizontal=True)
    reference = controls.segmented_control(
        "errors against", REFERENCES, default=REFERENCES[0], required=True, key="reference", bind="query-params"
    )
    scale = controls.segmented_control(
        "errors", ("log", "linear"), default="log", required=True, key="error_scale", bind="query-params"
    )
    errors = _against(str(reference))
    if errors is None:
        return
    subscript = dict(zip(REFERENCES, ("sim", "exact", "measured"), strict=True))[str(reference)]
    plot(
        _errors(errors, scale == "log", subscript, narrow(), [f"errors against: {reference}", *note]),
        "series-errors",
        name="compare-errors",
        alt="Relative error of each curve over depth.",
    )
    st.download_button("Errors as CSV", partial(csv_bytes, errors), "compare-errors.csv", "text/csv", on_click="ignore")


st.subheader("Trajectories", divider="gray")
_show_trajectories()
st.subheader("Relative error", divider="gray")
_show_errors()
