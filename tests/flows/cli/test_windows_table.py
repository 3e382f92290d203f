"""Windows in depth and in width as people read them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eftcore.specs import OF_BLOCKS
from flows.tables import RUN_COLUMNS, run_columns
from flows.windows_table import widths_table, windows_table

NAN = float("nan")


def row(**changes: object) -> dict[str, object]:
    base = {
        "activation": "tanh",
        "weight_variance": 2.0,
        "bias_variance": 0.0,
        "block": "one_matrix",
        **dict.fromkeys(OF_BLOCKS),
        "epsilon": 0.1,
        "total_time": 2.0,
        "kernel_label": "k",
        "width": 64,
        "samples": 1000,
        "seed": 0,
        "estimator": "plain",
        "sampler": "block",
        "dtype": "float32",
        "nodes": None,
        "rtol": 1e-9,
        "step": "exact",
        "continuous": False,
        "next_order": False,
        "closure": "wick",
        "closure_order": 8,
        "quantity": "V4",
        "tolerance": 0.05,
        "resolved_from": 0.02,
        "certified_until": 2.0,
        "refuted_from": NAN,
        "status": "beyond",
        "converged": True,
        "prediction_run_id": 1,
        "reference_kind": "simulation",
        "reference_run_id": 2,
        "superseded": False,
        **dict.fromkeys(
            f"reference_{name}" for name in ("closure", "order", "nodes", "step", "continuous", "rtol", "next_order")
        ),
    }
    return {**base, **changes}


WITHOUT_NETWORKS = dict.fromkeys(("width", "samples", "seed", "estimator", "sampler", "dtype"))
AGAINST_WICK = {
    **WITHOUT_NETWORKS,
    "reference_kind": "theory",
    "reference_run_id": 7,
    "reference_closure": "wick",
    "reference_order": 38,
    "reference_step": "exact",
    "reference_continuous": False,
    "reference_next_order": False,
    "reference_rtol": 1e-9,
}
TYPES = {"closure_order": "Int64", "reference_order": "Int64", "width": "Int64", "samples": "Int64"}


def test_theories_as_references_are_told_apart():
    theory = row(closure="g_only", closure_order=None, **AGAINST_WICK)
    simulated = row(closure="g_only", closure_order=None, status="bounded", certified_until=0.5, refuted_from=0.6)
    heading, table = windows_table(pd.DataFrame([simulated, theory]).astype(TYPES))
    assert heading.endswith("inputs k, width 64, networks 1000")
    assert table.to_dict("records") == [
        {"held against": "simulation", "quantity": "V4", "closure": "g_only", "5 %": "0.5 - 0.6"},
        {"held against": "wick 38", "quantity": "V4", "closure": "g_only", "5 %": "> 2"},
    ]
    heading, table = windows_table(pd.DataFrame([theory]).astype(TYPES))
    assert heading.endswith("inputs k, held against wick 38")
    assert list(table) == ["quantity", "closure", "5 %"]


def test_what_only_simulations_have_is_said_even_where_a_theory_comes_first():
    theory = row(activation="erf", **AGAINST_WICK)
    heading, table = windows_table(pd.DataFrame([row(), theory]).astype(TYPES))
    assert heading.endswith("inputs k, width 64, networks 1000")
    assert table["held against"].tolist() == ["wick 38", "simulation"]


def test_what_is_common_is_said_once_and_tolerances_are_columns():
    frame = pd.DataFrame(
        [
            row(),
            row(tolerance=0.01, status="bounded", certified_until=0.5, refuted_from=0.6),
            row(quantity="K0"),
            row(width=256, reference_run_id=3),
        ]
    ).astype({"closure_order": "Int64", "width": "Int64"})
    heading, table = windows_table(frame)
    said = "activation tanh, C_W 2, C_b 0, epsilon 0.1, T 2, inputs k, networks 1000, held against simulation"
    assert heading == said
    assert list(table) == ["width", "quantity", "closure", "1 %", "5 %"]
    assert table.replace({np.nan: None}).to_dict("records") == [
        {"width": 64, "quantity": "K0", "closure": "wick 8", "5 %": "> 2", "1 %": None},
        {"width": 64, "quantity": "V4", "closure": "wick 8", "5 %": "> 2", "1 %": "0.5 - 0.6"},
        {"width": 256, "quantity": "V4", "closure": "wick 8", "5 %": "> 2", "1 %": None},
    ]


def test_theory_whose_numerics_did_not_converge_says_so():
    frame = pd.DataFrame([row(converged=False), row(converged=False, closure="g_only", nodes=32, prediction_run_id=2)])
    _, table = windows_table(frame.astype({"closure_order": "Int64", "nodes": "Int64"}))
    assert sorted(table["closure"]) == ["g_only 8", "wick 8 (not converged)"], "a fixed rule is taken as it is"


def test_settings_are_columns_where_rows_differ_in_nothing_else():
    first = row(closure="g_only", closure_order=None, step="euler")
    frame = pd.DataFrame([first, {**first, "step": "exact", "prediction_run_id": 2}, row(prediction_run_id=3)])
    frame = frame.astype({"closure_order": "Int64", "nodes": "Int64"})
    _, table = windows_table(frame)
    assert table[["closure", "step"]].to_numpy().tolist() == [
        ["g_only", "euler"],
        ["g_only", "exact"],
        ["wick 8", "exact"],
    ]
    _, table = windows_table(frame[1:])
    assert list(table) == ["quantity", "closure", "5 %"], "the closure tells them apart"
    limit = {**first, "step": None, "continuous": True, "prediction_run_id": 4}
    paired = {**first, "estimator": "paired", "reference_run_id": 5}
    heading, table = windows_table(pd.DataFrame([first, limit, paired]).astype({"closure_order": "Int64"}))
    assert "plain" not in heading
    assert table[["step", "estimator"]].to_numpy().tolist() == [
        ["euler", "plain"],
        ["euler", "paired"],
        ["continuous", "plain"],
    ]


def test_runs_show_the_settings_in_which_they_differ_alone():
    first = {**row(width=None, activation="tanh", depth=4, kind="prediction", run_id=1), "status": "succeeded"}
    second = {**first, "run_id": 2, "step": "euler"}
    third = {**first, "run_id": 3, "closure": "g_only", "closure_order": None, "step": "euler"}
    frame = pd.DataFrame([first, second, third])
    assert run_columns(frame) == [*RUN_COLUMNS, "step"]
    assert run_columns(frame[1:]) == [*RUN_COLUMNS]


def test_widths_of_theory_and_of_simulations_stand_below_each_other():
    def width(**changes: object) -> dict[str, object]:
        simulated = ("width", "samples", "seed", "estimator", "sampler", "dtype")
        ends = {"time": 2.0, "width": NAN, "width_low": NAN, "width_high": NAN}
        return {**{name: value for name, value in row().items() if name not in simulated}, **ends, **changes}

    exact = {"closure": "exact", "closure_order": None, "next_order": True}
    by_theory = {name: value for name, value in AGAINST_WICK.items() if name not in WITHOUT_NETWORKS}
    by_theory |= {"reference_closure": "exact", "reference_order": None, "reference_next_order": True}
    frame = pd.DataFrame(
        [
            width(**exact, **by_theory, status="from", width=16.2, width_low=13.0, width_high=20.4),
            width(**exact, **by_theory, tolerance=0.01, status="never"),
            width(**exact, status="between", width_low=8.0, width_high=32.0, reference_run_id=None),
        ]
    ).astype({"closure_order": "Int64", "reference_order": "Int64", "reference_run_id": "Int64"})
    heading, table = widths_table(frame)
    assert heading == "activation tanh, C_W 2, C_b 0, epsilon 0.1, t 2, inputs k"
    assert table.replace({np.nan: None}).to_dict("records") == [
        {
            "held against": "exact, next order",
            "quantity": "V4",
            "closure": "exact",
            "1 %": "no width",
            "5 %": "17 (13 - 21)",
        },
        {"held against": "simulation", "quantity": "V4", "closure": "exact", "1 %": None, "5 %": "8 - 32"},
    ]
