"""The frames behind the compare page, against SQL and against eftcore.compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import eftcore as eft
from db.reading import queries
from db.reading.stored_results import StoredSample, stored_results
from db.session import Database
from db.writing.repository import record_prediction
from eftcore.results import Theory
from eftcore.words import window_text
from ui.data.compare import (
    build_exact,
    build_exact_errors,
    build_series,
    build_series_errors,
    build_series_windows,
    build_theories,
    differences_table,
    name_pairs,
    name_simulations,
    relative_error,
)


@pytest.fixture
def runs(both: Database) -> list[int]:
    return queries.runs(both, kind="simulation")["run_id"].tolist()


def test_series_are_the_stored_rows(both: Database, runs: list[int]) -> None:
    pairs = build_theories(both, runs)
    assert pairs["theory"].tolist() == ["mean"] * 2 + ["source_only"] * 2 + ["g_only"] * 2
    chosen = _named(both, pairs[pairs["theory"] == "g_only"], runs)
    series = build_series(both, chosen, ["00", "00,11"])
    assert set(series["series"]) == {"relu: g_only", "tanh: g_only"}
    errors = build_series_errors(both, chosen)
    for table, view, condition in (
        (series, "v_trajectories", "component IN ('00', '00,11')"),
        (errors, "v_errors", "1 = 1"),
    ):
        sql = f"SELECT count(*) AS n FROM {view} WHERE closure = 'g_only' AND {condition}"
        assert len(table) == queries.select(both, sql)["n"].iloc[0]


def _named(db: Database, pairs: pd.DataFrame, runs: list[int]) -> pd.DataFrame:
    return name_pairs(pairs, name_simulations(queries.runs(db, kind="simulation"), runs))


def test_windows_of_the_compared_are_those_of_sql(both: Database, runs: list[int]) -> None:
    table = build_series_windows(both, _named(both, build_theories(both, runs), runs))
    assert list(table) == ["quantity", "configuration", "theory", "τ = 0.01", "τ = 0.05", "τ = 0.1"]
    stored = queries.windows(both, reference_kind="simulation")
    assert 3 * len(table) == len(stored)
    for row in table.to_dict("records"):
        (window,) = stored[
            (stored["quantity"] == row["quantity"])
            & (stored["closure"] == row["theory"])
            & (stored["activation"] == row["configuration"])
            & (stored["tolerance"] == 0.05)
        ].to_dict("records")
        assert row["τ = 0.05"] == window_text(window)


def test_only_what_differs_is_listed_and_long_names_become_letters() -> None:
    base = {
        "run_id": 1,
        "configuration_id": 1,
        "activation": "tanh",
        "weight_variance": 1.0,
        "bias_variance": 0.0,
        "epsilon": 0.1,
        "depth": 100,
        "n_inputs": 2,
        "kernel_label": "equi",
        "width": 32,
        "samples": 1000,
    }
    runs = pd.DataFrame([base, {**base, "run_id": 2, "configuration_id": 2, "weight_variance": 2.0}])
    named = name_simulations(runs, [2, 1])
    assert named["configuration"].tolist() == ["C_W = 2", "C_W = 1"]
    table = differences_table(named)
    assert table.to_dict("list") == {
        "in figures": ["C_W = 2", "C_W = 1"],
        "run": ["run?simulation=2", "run?simulation=1"],
        "C_W": [2.0, 1.0],
    }
    runs.loc[1, ["activation", "epsilon", "kernel_label", "depth"]] = ["relu", 0.2, "digits of two classes", 25]
    long = name_simulations(runs, [1, 2])
    assert long["configuration"].tolist() == ["A", "B"]
    assert long["described"].tolist()[1].startswith("relu, C_W = 2, ε = 0.2, L = 25")


def test_the_exact_reference_is_the_converged_stored_one(fresh: Database, put: Callable[..., int]) -> None:
    run = put(fresh, "tanh")
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    configuration = int(queries.runs(fresh, run_id=run)["configuration_id"].iloc[0])
    assert build_exact(fresh, [configuration]) == {}
    made = [eft.predict(model, kernel, "exact", truncation=truncation) for truncation in (1e-3, 1e-2, 1e-1)]
    errors = ((True, 1e-4), (True, 0.1), (False, 1e-6))
    ids = [
        record_prediction(
            fresh,
            replace(theory, converged=converged, details={**theory.details, "truncation_error": {"V4": error}}),
            provenance={},
        )
        for theory, (converged, error) in zip(made, errors, strict=True)
    ]
    run_id, theory = build_exact(fresh, [configuration])[configuration]
    assert run_id == min(ids), "the best of those that converged, which is not the newest"
    assert relative_error(theory) == pytest.approx(1e-4, rel=0.01)


def test_one_configuration_needs_no_name(both: Database, runs: list[int]) -> None:
    series = build_series(both, _named(both, build_theories(both, runs[:1]), runs[:1]), ["00"])
    assert set(series["series"]) == {"mean", "source_only", "g_only"}


def test_stored_results_are_what_was_recorded(both: Database, runs: list[int]) -> None:
    pairs = build_theories(both, runs)
    ids = [*runs, *pairs["prediction_run_id"].tolist()]
    results = stored_results(both, [*ids, 10_000])
    assert list(results) == ids
    for run_id, result in results.items():
        arrays = queries.arrays(both, run_id)
        assert np.array_equal(result.mean, arrays["K0"])
        assert np.array_equal(result.time, arrays["time"])
        if isinstance(result, StoredSample):
            assert np.array_equal(result.covariance_se, arrays["V4_se"])
        digest = queries.runs(both, run_id=run_id)["digest"].iloc[0]
        assert isinstance(result, StoredSample) or result.spec.digest == digest


def test_errors_against_the_exact_leading_order(results: Database) -> None:
    run = queries.runs(results, kind="simulation", activation="tanh")["run_id"].tolist()
    pairs = _named(results, build_theories(results, run), run)
    stored = stored_results(results, pairs["prediction_run_id"].tolist())
    some = next(iter(stored.values()))
    exact = eft.predict(some.spec.model, some.spec.kernel, "exact", depths=some.spec.depths)
    errors = build_exact_errors(stored, pairs, {int(pairs["configuration_id"].iloc[0]): exact})
    g_only = next(theory for theory in stored.values() if theory.spec.closure == "g_only")
    assert isinstance(g_only, Theory)
    expected = eft.compare(g_only, exact).errors
    shown = errors[errors["series"] == "g_only"]
    for quantity in ("K0", "V4", "K1"):
        wanted = expected.loc[expected["quantity"] == quantity, "error"].to_numpy()
        assert np.array_equal(shown.loc[shown["quantity"] == quantity, "error"].to_numpy(), wanted, equal_nan=True)
    # what the reference leaves out is its band
    rough = replace(exact, details={**exact.details, "truncation_error": {"V4": 0.01, "K1": 0.01}})
    wide = build_exact_errors(stored, pairs, {int(pairs["configuration_id"].iloc[0]): rough}).query("quantity == 'V4'")
    assert (wide["error_high"] - wide["error"] > 0.009)[wide["time"] > 0].all()


def test_statements(results: Database, statements: list[str]) -> None:
    runs = queries.runs(results, kind="simulation")["run_id"].tolist()
    pairs = _named(results, build_theories(results, runs), runs)
    spent = []
    for build in (
        lambda: build_theories(results, runs),
        lambda: build_series(results, pairs, ["00"]),
        lambda: build_series_errors(results, pairs),
        lambda: build_series_windows(results, pairs),
        lambda: build_exact(results, pairs["configuration_id"].tolist()),
        lambda: stored_results(results, runs),
    ):
        before = len(statements)
        build()
        spent.append(len(statements) - before)
    assert spent == [1, 1, 1, 1, 1, 1]
