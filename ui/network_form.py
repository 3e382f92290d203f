"""The fields of a form that describe a network's blocks and its inputs, the same on every page that asks for them.

Keys of widgets are names in the URL. They differ from columns of v_windows, which the windows page uses for filters,
and from page to page: a field of two pages with one name would lose its value on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import pandas as pd
import streamlit as st

import eftcore as eft
from eftcore.errors import EftError
from eftcore.specs import Block, Normalisation
from ui.data.predict import MOST_INPUTS, kernel_from_table, table_from_upload
from ui.shell import tell

SOURCES = ("equicorrelated", "Gram matrix", "data file")
INPUT_PIXELS = 160
SHOWN_COLUMNS = 12
NO_NORMALISATION = "none"

Made = TypeVar("Made")


def choose_block(prefix: str = "") -> dict[str, Any]:
    """Fields of the network that say what a residual branch is. ``prefix`` begins the names in the URL."""
    row = st.container(horizontal=True, vertical_alignment="bottom")
    block = row.segmented_control(
        "block",
        get_args(Block),
        default="one_matrix",
        required=True,
        key=f"{prefix}block",
        bind="query-params",
        help="x + ε W σ(norm(x)), the paper's where nothing is normalised, or x + ε W₂ σ(W₁ norm(x)), of residual MLPs;"
        " C_W and C_b are then those of W₂.",
    )
    shared: dict[str, Any] = {"bind": "query-params", "width": INPUT_PIXELS}
    chosen = row.selectbox("normalisation", [NO_NORMALISATION, *get_args(Normalisation)], key=f"{prefix}norm", **shared)
    normalisation = None if chosen == NO_NORMALISATION else chosen
    if block == "one_matrix":
        return {"normalisation": normalisation}
    return {
        "block": block,
        "normalisation": normalisation,
        "hidden_ratio": row.number_input("m / n", 0.01, 100.0, 1.0, 1.0, key=f"{prefix}ratio", **shared),
        "hidden_weight_variance": row.number_input("C_1", 0.01, 100.0, 1.0, 0.1, key=f"{prefix}C_1", **shared),
        "hidden_bias_variance": row.number_input("C_b1", 0.0, 100.0, 0.0, 0.1, key=f"{prefix}C_b1", **shared),
    }


def choose_kernel(inputs: int, variance: float, prefix: str = "") -> eft.InputKernel | None:
    """The kernel of the inputs at layer 0; None while a file is awaited. ``inputs`` and ``variance`` are defaults,
    and ``prefix`` begins the names in the URL.

    Raises InputError where it is none.
    """
    row = st.container(horizontal=True, vertical_alignment="bottom")
    source = row.segmented_control(
        "input kernel K⁰", SOURCES, default=SOURCES[0], required=True, key=f"{prefix}source", bind="query-params"
    )
    if source == SOURCES[0]:
        bound: dict[str, Any] = {"bind": "query-params"}
        number = row.number_input("inputs N", 1, MOST_INPUTS, inputs, key=f"{prefix}N", width=130, **bound)
        size = row.slider("variance", 0.0, 5.0, variance, 0.05, key=f"{prefix}variance", width=260, **bound)
        alone = number == 1
        correlation = row.slider(
            "correlation", -1.0, 1.0, 0.3, 0.01, key=f"{prefix}correlation", width=260, disabled=alone, **bound
        )
        return eft.InputKernel.equicorrelated(
            n_inputs=int(number), variance=size, correlation=0.0 if alone else correlation
        )
    gram = source == SOURCES[1]
    what = "a symmetric positive semi-definite matrix" if gram else "real inputs, one row each: K⁰ = X Xᵀ / features"
    given = st.file_uploader(f".npy or .csv: {what}", type=["npy", "csv"], key=f"{prefix}upload-{gram}")
    if given is None:
        st.info("The link of this page does not hold the file: whoever opens it uploads it again.")
        return None
    table = table_from_upload(given.name, given.getvalue())
    kernel = kernel_from_table(table, given.name, gram=gram)
    rows, columns = table.shape
    with st.expander(f"read as {rows} rows of {columns} numbers: the table, and K⁰"):
        st.dataframe(pd.DataFrame(table[:, :SHOWN_COLUMNS]), height="content")
        if columns > SHOWN_COLUMNS:
            st.caption(f"The first {SHOWN_COLUMNS} of {columns} columns.")
        st.dataframe(pd.DataFrame(kernel.array), height="content")
    return kernel


def told(choose: Callable[[], Made | None]) -> Made | None:
    """What was chosen; None where it is wrong, which is told below the fields."""
    try:
        return choose()
    except EftError as problem:
        tell(problem)
        return None
