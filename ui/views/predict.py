"""The predict page: the predictions of every closure for any configuration, without a simulation."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

import eftcore as eft
from db import addresses
from db.reading.stored_results import StoredSample, simulations_of, stored_results
from db.settings import data_home, settings
from eftcore.errors import EftError, EnvironmentProblem
from eftcore.identity import digest_of
from eftcore.results import Theory
from eftcore.specs import EnsembleSpec
from eftcore.verdicts.windows import DEFAULT_TOLERANCES
from ui.data import deployments
from ui.data.costs import expected_seconds, quick_part
from ui.data.predict import (
    layers_of,
    next_order_frame,
    predictions,
    spec_of,
    stages_of,
    trajectories_frame,
    values_frame,
    windows_frame,
)
from ui.data.run import component_choices, entries_label
from ui.data.study_file import study_toml
from ui.data.widths import predicted_widths, predicted_widths_table
from ui.figures import trajectories_figure, widths_figure
from ui.network_form import INPUT_PIXELS, choose_block, choose_kernel, told
from ui.notation import literal, number
from ui.shell import PLOT, find_database, narrow, tell
from ui.waiting import LONG_SECONDS, computed

STUDY_CLOSURES = ("mean", "source_only", "g_only", "sigma", "exact")
STUDY_SAMPLES = 20_000
STAGE_WORDS = {
    "g_only": "the G-only closure",
    "sigma": "the sigma closure",
    "exact": "the exact leading order in 1/n",
    "next": "the next order in 1/n",
}


def _choose_model() -> tuple[eft.ResNet, int]:
    row = st.container(horizontal=True)
    names = list(eft.activation_names())
    activation = row.selectbox(
        "activation σ", names, index=names.index("tanh"), key="sigma", bind="query-params", width=INPUT_PIXELS
    )
    shared: dict[str, Any] = {"bind": "query-params", "width": INPUT_PIXELS}
    weight = row.number_input("C_W", 0.01, 100.0, 2.0, 0.1, key="C_W", **shared)
    bias = row.number_input("C_b", 0.0, 100.0, 0.0, 0.1, key="C_b", **shared)
    epsilon = row.number_input("ε", 0.001, 10.0, 0.1, 0.01, format="%.3f", key="eps", **shared)
    total = row.number_input("T = ε² L", 0.01, 1000.0, 2.0, 0.1, key="T", **shared)
    width = row.number_input("width n", 1, 1_000_000, 64, 16, key="n", **shared)
    model = eft.ResNet(
        activation=activation,
        weight_variance=weight,
        bias_variance=bias,
        epsilon=epsilon,
        depth=layers_of(total, epsilon),
        **choose_block(),
    )
    return model, int(width)


def _stored(model: eft.ResNet, kernel: eft.InputKernel, width: int) -> tuple[int | None, StoredSample | None]:
    """Run id and sample of a simulation of this configuration, of the width nearest to this one."""
    db = find_database()
    if db is None:
        return None, None
    found = simulations_of(db, model, kernel)
    if not found:
        return None, None
    run_id = min(found, key=lambda each: abs(math.log(each[1] / width)))[0]
    sample = stored_results(db, [run_id])[run_id]
    assert isinstance(sample, StoredSample)
    return run_id, sample


def _show_windows(theories: dict[str, Theory], exact: Theory, width: int, following: Theory | None) -> None:
    """How deep each closure holds for networks of this width, by the exact leading order and what finite width adds."""
    rest = exact.details.get("truncation_error")
    left = max(rest.values()) if isinstance(rest, dict) else 0.0
    known = "K0, V4 and K1" if following is not None else "K0 (V4 and K1 need the next order in 1/n, above)"
    st.caption(
        f"Depth t up to which the relative error stays within τ. Reference: the exact leading order; what its series "
        f"leaves out is about {left:.0e} of V4 and K1 and counts as its noise. What finite width adds at n = {width} "
        f"is in the windows of {known}."
    )
    st.table(literal(windows_frame(theories, exact, width, following)), border="horizontal", hide_index=True)


def _show_widths(theories: dict[str, Theory], exact: Theory, components: list[str]) -> None:
    """The next order at T with its errors, and from which width on each theory holds."""
    st.subheader("The next order in 1/n at T", divider="gray")
    values = next_order_frame(exact, components)
    if not values.empty:
        st.table(literal(values), border="horizontal", hide_index=True)
    st.subheader("Windows in width n*", divider="gray")
    st.caption(
        "From n* neurons per layer on, the error of a closure and that of finite width together stay within τ: by the "
        "exact leading order and its next order. No width: the closure alone is off by more than τ."
    )
    tolerances = {f"{value:g}": value for value in DEFAULT_TOLERANCES}
    chosen = st.segmented_control(
        "tolerance τ", list(tolerances), default="0.05", required=True, key="tau", bind="query-params"
    )
    widths = predicted_widths(theories, exact, DEFAULT_TOLERANCES)
    st.plotly_chart(
        widths_figure(widths[widths["tolerance"] == tolerances[str(chosen)]], narrow=narrow()),
        key="widths",
        config=PLOT,
        alt="The width from which on each closure holds, over depth; the numbers at T are in the table below.",
    )
    st.table(literal(predicted_widths_table(widths)), border="horizontal", hide_index=True)


def _computed(key: str, model: eft.ResNet, kernel: eft.InputKernel, *, next_order: bool) -> dict[str, Theory]:
    """The predictions that are there by now; what they lack is being computed, or offered where it takes long."""
    stages = stages_of(model, next_order=next_order)
    at_once, later = quick_part(model, kernel, stages, LONG_SECONDS)
    parts: dict[str, Theory | EftError] = {}
    for part, long in ((at_once, False), (later, True)):
        if not part:
            continue
        found = computed(
            digest_of({"predict": key, "stages": part}),
            " and ".join(STAGE_WORDS[stage] for stage in part),
            predictions,
            *(model, kernel, part),
            expected=expected_seconds(model, kernel, part),
            long=long,
        )
        if found is None:
            break
        if found.error is not None:
            _raised(found.error)
        parts |= found.parts
        if not found.done:
            break
    for problem in parts.values():
        if isinstance(problem, EftError):
            tell(problem)
    return {name: theory for name, theory in parts.items() if not isinstance(theory, EftError)}


def _raised(error: Exception) -> None:
    raise error


def _show(found: dict[str, Theory], width: int, components: list[str], *, log: bool) -> None:
    """Figure and tables of the predictions that are there."""
    theories = {name: found[name] for name in STUDY_CLOSURES if name in found}
    following = found.get("next")
    if not theories:
        return
    frame = trajectories_frame(theories, sample, components, following)
    st.plotly_chart(
        trajectories_figure(frame, log=log, narrow=narrow()),
        key="prediction",
        config={**PLOT, "toImageButtonOptions": {"format": "svg", "filename": "prediction"}},
        alt="Every closure over depth; the numbers at T are in the table below.",
    )
    if run_id is not None and sample is not None:
        st.page_link(
            "views/run.py",
            label=f"simulation: run {run_id}, n = {sample.spec.width}, M = {sample.samples} networks",
            query_params={"simulation": str(run_id)},
        )
    st.subheader(f"At T = {number(model.total_time)}", divider="gray")
    st.table(literal(values_frame(theories, width)), border="horizontal", hide_index=True)
    if "exact" in theories:
        st.subheader(f"Windows t* of networks of width n = {width}", divider="gray")
        _show_windows(theories, theories["exact"], width, following)
    if following is not None:
        _show_widths(theories, following, components)


def _study_file(model: eft.ResNet, kernel: eft.InputKernel, width: int, key: str) -> None:
    st.subheader("Simulate it", divider="gray")
    ensemble = EnsembleSpec(model=model, kernel=kernel, width=width)
    asked = [
        spec_of(model, kernel, name).model_copy(update={"numerics": eft.Numerics()})
        for name in STUDY_CLOSURES
        if name in model.closures
    ]
    name = f"predict-{key[:10]}"
    text = study_toml(name, ensemble, STUDY_SAMPLES, asked, description=kernel.label)
    folder = data_home() / "studies"
    path = folder / f"{name}.toml"
    row = st.container(horizontal=True)
    row.download_button("Download study file", text, path.name, "application/toml", on_click="ignore")
    may_write = not settings().read_only
    api = deployments.server() if may_write else None
    write = may_write and row.button("Write study file", help=f"to {folder}")
    run = api is not None and row.button(
        "Run it on the Prefect server", help=f"{addresses.shown(api)}: the deployment of run-study"
    )
    if write or run:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            st.code(f"eft run {path}", language="bash")
            if run and api is not None:
                st.success(f"The Prefect server took it as flow run {deployments.trigger(api, str(path))}.")
        except OSError as problem:
            said = f"cannot be written ({problem.strerror})"
            tell(EnvironmentProblem(said, place=folder, remedy="download the file instead"))
        except EftError as problem:
            tell(problem)
    with st.expander("the file"):
        st.code(text, language="toml")


st.title("Predict")
st.caption(
    "Closures for one configuration, from the equations alone: nothing is simulated. Relative error of the numerics "
    "1e-5; the link of this page holds its inputs."
)
try:
    chosen, kernel = told(_choose_model), told(lambda: choose_kernel(2, 2.0))
    if chosen is None or kernel is None:
        st.stop()
    model, width = chosen
    st.caption(f"{model.depth} layers, T = {number(model.total_time)}, N = {kernel.n_inputs} inputs.")
    row = st.container(horizontal=True)
    components: list[str] = []
    for quantity, label, name in (
        ("K0", "entries ab of K0, K1, U1", "entries"),
        ("V4", "entries ab,cd of V4", "covariances"),
    ):
        stored, shown = component_choices(quantity, kernel.n_inputs)
        components += row.multiselect(label, stored, default=shown[:1], key=name, bind="query-params", width=330)
    scale = row.segmented_control(
        "scale", ("linear", "log"), default="linear", required=True, key="scale", bind="query-params"
    )
    next_order = row.toggle(
        "next order in 1/n",
        key="next",
        bind="query-params",
        help="By the exact closure: D and K2, the coefficients of 1/n in V4 and K1; T, the third cumulant; from which "
        "width on theories hold.",
    )
    if next_order:
        stored, shown = component_choices("T", kernel.n_inputs)
        components += row.multiselect(
            entries_label("triples"), stored, default=shown, key="cumulants", bind="query-params", width=330
        )
    if not components:
        st.info("Choose at least one entry.")
        st.stop()
    key = digest_of({"model": model.identity(), "kernel": kernel.identity()})
    run_id, sample = _stored(model, kernel, width)
    found = _computed(key, model, kernel, next_order=next_order)
    _show(found, width, components, log=scale == "log")
    _study_file(model, kernel, width, key)
except EftError as problem:
    tell(problem)
