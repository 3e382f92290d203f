"""The frames behind the compare page, against SQL and against eftcore.compare."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft
from db.reading import queries
from db.reading.stored_results import StoredSample, stored_results
from db.session import Database
from eftcore.results import Theory
from ui.data.compare import build_exact_errors, build_series, build_series_errors, build_theories


@pytest.fixture
def runs(both: Database) -> list[int]:
    return queries.runs(both, kind="simulation")["run_id"].tolist()


def test_series_are_the_stored_rows(both: Database, runs: list[int]) -> None:
    pairs = build_theories(both, runs)
    assert pairs["theory"].tolist() == ["mean"] * 2 + ["source_only"] * 2 + ["g_only"] * 2
    chosen = pairs[pairs["theory"] == "g_only"]
    series = build_series(both, chosen, ["00", "00,11"])
    assert set(series["series"]) == {"relu: g_only", "tanh: g_only"}
    errors = build_series_errors(both, chosen)
    for table, view, condition in (
        (series, "v_trajectories", "component IN ('00', '00,11')"),
        (errors, "v_errors", "1 = 1"),
    ):
        sql = f"SELECT count(*) AS n FROM {view} WHERE closure = 'g_only' AND {condition}"
        assert len(table) == queries.select(both, sql)["n"].iloc[0]


def test_one_configuration_needs_no_name(both: Database, runs: list[int]) -> None:
    series = build_series(both, build_theories(both, runs[:1]), ["00"])
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
    pairs = build_theories(results, run)
    stored = stored_results(results, pairs["prediction_run_id"].tolist())
    some = next(iter(stored.values()))
    exact = eft.predict(some.spec.model, some.spec.kernel, "exact", depths=some.spec.depths)
    errors = build_exact_errors(stored, pairs, {run[0]: exact}, build_series_errors(results, pairs))
    g_only = next(theory for theory in stored.values() if theory.spec.closure == "g_only")
    assert isinstance(g_only, Theory)
    expected = eft.compare(g_only, exact).errors
    shown = errors[errors["series"] == "g_only"]
    for quantity in ("K0", "V4", "K1"):
        wanted = expected.loc[expected["quantity"] == quantity, "error"].to_numpy()
        assert np.array_equal(shown.loc[shown["quantity"] == quantity, "error"].to_numpy(), wanted, equal_nan=True)


def test_statements(results: Database, statements: list[str]) -> None:
    runs = queries.runs(results, kind="simulation")["run_id"].tolist()
    pairs = build_theories(results, runs)
    spent = []
    for build in (
        lambda: build_theories(results, runs),
        lambda: build_series(results, pairs, ["00"]),
        lambda: build_series_errors(results, pairs),
        lambda: stored_results(results, runs),
    ):
        before = len(statements)
        build()
        spent.append(len(statements) - before)
    assert spent == [1, 1, 1, 1]
