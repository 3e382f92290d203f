"""The first page: how deep, and how wide, can I trust which theory for my network? From theory alone."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import streamlit as st

import eftcore as eft
from db.errors import DatabaseMissing
from db.settings import default_url, settings
from db.upkeep.migrate import require_current
from eftcore.errors import EftError, within
from eftcore.identity import digest_of
from eftcore.results import Theory
from eftcore.specs import EnsembleSpec, epsilon_of_rule
from eftcore.verdicts.design import design_specs
from eftcore.words import block_text
from ui import running
from ui.data.answer import MEANING, QUANTITY_WORDS, THEORY_NAMES, Answer, design_predictions, plane_frame
from ui.data.answer_words import caveats, details, headline
from ui.data.costs import expected_seconds
from ui.data.evidence import build_evidence
from ui.data.predict import MOST_LAYERS
from ui.data.study_file import study_toml
from ui.figures import plane_figure
from ui.network_form import INPUT_PIXELS, SOURCES, choose_block, choose_kernel, told
from ui.notation import markdown_text, number
from ui.shell import PLOT, find_database, narrow, tell
from ui.waiting import LONG_SECONDS, computed

MOST_WIDTH = 1_000_000
# "Simulate this" asks for as many networks as take so many updates of a neuron, within bounds
MOST_SAMPLES, LEAST_SAMPLES, WORK = 20_000, 1_000, 2e11

POLL_SECONDS = 2
PREFIX = "my_"


def _choose() -> tuple[eft.ResNet | None, eft.InputKernel | None, int, str, float]:
    """Network, inputs, width, quantity and tolerance. What is seldom changed is folded away."""
    row = st.container(horizontal=True)
    shared: dict[str, Any] = {"bind": "query-params", "width": INPUT_PIXELS}
    names = list(eft.activation_names())
    activation = row.selectbox("activation σ", names, index=names.index("tanh"), key=f"{PREFIX}sigma", **shared)
    layers = row.number_input("layers L", 1, MOST_LAYERS, 100, 10, key=f"{PREFIX}L", **shared)
    width = row.number_input("width n", 2, MOST_WIDTH, 64, 16, key=f"{PREFIX}n", **shared)
    percent = row.number_input("tolerated error, %", 0.1, 50.0, 5.0, 1.0, format="%g", key=f"{PREFIX}within", **shared)
    meant = "; ".join(f"{name}: {words}" for name, words in QUANTITY_WORDS.items())
    quantity = row.segmented_control(
        "of", list(QUANTITY_WORDS), default="V4", required=True, key=f"{PREFIX}of", bind="query-params", help=meant
    )

    def network() -> eft.ResNet:
        row = st.container(horizontal=True)
        rule = 'A number, or in the depth L: "1/sqrt(L)", "0.5/L".'
        scale = row.text_input("ε of a branch, or a rule", "0.1", key=f"{PREFIX}residual", help=rule, **shared)
        weight = row.number_input(
            "weights C_W", 0.01, 100.0, 2.0, 0.1, key=f"{PREFIX}C_W", help="variance of W times n", **shared
        )
        bias = row.number_input("biases C_b", 0.0, 100.0, 0.0, 0.1, key=f"{PREFIX}C_b", help="variance of b", **shared)
        block = choose_block(PREFIX)
        with within("ε"):
            epsilon = epsilon_of_rule(scale, layers)
        variances = {"weight_variance": weight, "bias_variance": bias}
        return eft.ResNet(activation=activation, epsilon=epsilon, depth=int(layers), **variances, **block)

    with st.expander("Residual branches and inputs: ε, C_W, C_b, block, normalisation, kernel"):
        model, kernel = told(network), told(lambda: choose_kernel(1, 1.0, PREFIX))
    return model, kernel, int(width), str(quantity), percent / 100


def _theories(model: eft.ResNet, kernel: eft.InputKernel) -> dict[str, Theory] | None:
    """The predictions of this network; None while they are computed, or where there are none, which is told."""
    stages = [*(name for name in design_specs(model, kernel) if name != "exact"), "next"]
    expected = expected_seconds(model, kernel, stages)
    found = computed(
        digest_of({"design": model.identity(), "kernel": kernel.identity()}),
        "The theories of this network",
        design_predictions,
        *(model, kernel),
        expected=expected,
        long=expected > LONG_SECONDS,
    )
    if found is None or not found.done:
        return None
    if found.error is not None:
        if not isinstance(found.error, EftError):
            raise found.error
        tell(found.error)
        return None
    for problem in found.parts.values():
        if isinstance(problem, EftError):
            st.caption(markdown_text(problem.line))
    return {name: theory for name, theory in found.parts.items() if isinstance(theory, Theory)}


def _show_answer(answer: Answer) -> None:
    st.markdown(f"### {headline(answer)}.")
    st.markdown("  \n".join(details(answer)))
    frame = plane_frame(answer)
    if not frame.empty:
        model = answer.model
        st.plotly_chart(
            plane_figure(
                frame,
                None if answer.best is None else answer.best.theory,
                0 if answer.best is None else answer.best.certain or 0,
                answer.width,
                model.depth,
                model.epsilon,
                narrow=narrow(),
            ),
            key="plane",
            config=PLOT,
            alt="The plane of depth and width: above its line a theory holds; the sentences above say the same.",
        )
        st.caption(
            f"Above its line a theory of {answer.quantity} stays within {100 * answer.tolerance:g} % "
            "down to that layer; filled: where the recommended one does, and the thick line: how deep in your network. "
            "A theory without a line is off by more at every width there, or its width is not known."
        )
    names = [f"**{THEORY_NAMES[name]}**: {MEANING[name]}" for name in answer.candidates]
    st.caption("; ".join(names) + ".")


def _show_evidence(answer: Answer, kernel: eft.InputKernel) -> None:
    st.subheader("What this rests on", divider="gray")
    st.markdown("\n".join(f"- {line}" for line in caveats(answer)))
    alone = "theory alone answers, and nothing that was simulated confirms it."
    db = find_database()
    if db is None:
        st.markdown(f"- No results database can be read: {alone}")
        with suppress(DatabaseMissing):  # a simulation creates it; what else is wrong is told
            require_current(default_url())
        return
    found = build_evidence(db, answer.model, kernel, answer.width, answer.quantity, answer.tolerance)
    if found.empty:
        st.markdown(f"- The database has no simulation of this activation and block: {alone}")
        return
    st.markdown("- The nearest simulations, and how deep theories of this quantity agree with them:")
    st.dataframe(
        found,
        hide_index=True,
        placeholder="—",
        key="evidence",
        column_config={
            "run": st.column_config.LinkColumn(display_text=r"run\?simulation=([0-9]+)", help="the simulation"),
            "network": st.column_config.TextColumn(help="in what it differs from yours"),
            "n": st.column_config.NumberColumn(format="%d", help="width"),
            "M": st.column_config.NumberColumn(format="%d", help="networks"),
            "τ": st.column_config.TextColumn(help="recorded tolerance nearest to yours"),
        },
    )


def _offer_simulation(model: eft.ResNet, kernel: eft.InputKernel, width: int, tolerance: float) -> None:
    st.subheader("Simulate this", divider="gray")
    ensemble = EnsembleSpec(model=model, kernel=kernel, width=width)
    work = width * model.depth * kernel.n_inputs
    samples = int(min(MOST_SAMPLES, max(LEAST_SAMPLES, WORK / work)))
    asked = list(design_specs(model, kernel).values())
    tolerances = sorted({tolerance, 0.01, 0.05, 0.1})
    name = f"network-{digest_of({'ensemble': ensemble.digest, 'samples': samples, 'tolerances': tolerances})[:10]}"
    text = study_toml(name, ensemble, samples, asked, tolerances=tolerances, description=kernel.label)
    row = st.container(horizontal=True, vertical_alignment="center")
    if not settings().read_only and row.button("Simulate this", type="primary", key="simulate"):
        try:
            running.run(running.written(name, text), title=name)
        except EftError as problem:
            tell(problem)
    row.download_button("Study file", text, f"{name}.toml", "application/toml", on_click="ignore")
    row.caption(f"{samples} networks of width {width} are simulated and held against the theories, by `eft run`.")
    started = next((job for job in running.jobs() if job.title == name), None)
    if started is not None:
        _follow(started)


def _predict_link(model: eft.ResNet, kernel: eft.InputKernel, width: int) -> None:
    """The same network on the page Predict; without its inputs where these came from a file."""
    asked: dict[str, Any] = {"sigma": model.activation, "C_W": model.weight_variance, "C_b": model.bias_variance}
    asked |= {"eps": model.epsilon, "T": model.total_time, "n": width, "block": model.block}
    asked |= {} if model.normalisation is None else {"norm": model.normalisation}
    if model.block == "two_matrix":
        asked |= {"ratio": model.hidden_ratio, "C_1": model.hidden_weight_variance, "C_b1": model.hidden_bias_variance}
    if st.session_state[f"{PREFIX}source"] == SOURCES[0]:
        asked |= {"N": kernel.n_inputs, "variance": kernel.variance}
        asked |= {} if kernel.correlation is None else {"correlation": round(kernel.correlation, 9)}
    st.page_link(
        "views/predict.py",
        label="This network on the page Predict: every closure over depth",
        query_params={name: str(value) for name, value in asked.items()},
    )


def _follow(job: running.Job) -> None:
    """How far the simulation is that was started here; the page is drawn anew when it ended."""
    runs = job.code is None

    @st.fragment(run_every=POLL_SECONDS if runs else None)
    def follow() -> None:
        if runs and job.code is not None:
            st.rerun()
        if job.code is None:
            st.info("The simulation is running; what it records appears here and on the other pages.")
        elif job.code == 0:
            st.success("The simulation is done: it is the nearest one above.")
        elif job.stopped:
            st.info("The simulation was stopped; what is finished is kept, and it can go on from there.")
        else:
            st.error(f"The simulation ended with code {job.code}.")
        if job.code != 0 and job.said:
            st.code("\n".join(job.said[-6:]), language=None)
        if job.code is None and st.button("Stop it", key="stop-simulation"):
            job.stop()

    follow()
    st.page_link("views/studies.py", label="Studies")


st.title("How deep, and how wide, can I trust which theory for my network?")
try:
    chosen, kernel, width, quantity, tolerance = _choose()
    if chosen is None or kernel is None:
        st.stop()
    st.caption(
        f"{chosen.depth} layers with ε = {number(chosen.epsilon)}: t = ε² ℓ runs to T = {number(chosen.total_time)}. "
        f"{block_text(chosen.model_dump()).capitalize()}, C_W = {chosen.weight_variance:g}, "
        f"C_b = {chosen.bias_variance:g}; {'one input' if kernel.n_inputs == 1 else f'{kernel.n_inputs} inputs'}. "
        f"Asked: how well theories know {QUANTITY_WORDS[quantity]} ({quantity}). The answer comes from theory "
        "alone, and the link of this page holds the question."
    )
    theories = _theories(chosen, kernel)
    if theories is not None and ("exact" in theories or "leading" in theories):
        answer = Answer(theories, width, tolerance, quantity)
        _show_answer(answer)
        _show_evidence(answer, kernel)
    _offer_simulation(chosen, kernel, width, tolerance)
    _predict_link(chosen, kernel, width)
except EftError as problem:
    tell(problem)
