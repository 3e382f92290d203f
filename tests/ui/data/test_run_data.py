"""The frames behind the run page, against SQL on the same database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import eftcore as eft
from db.reading import queries
from db.reading.stored_results import stored_specs
from db.session import Database
from db.writing.repository import record_comparison, record_prediction
from ui.data.run import (
    build_errors,
    build_precision,
    build_provenance,
    build_run_windows,
    build_simulations,
    build_trajectories,
    build_values,
    windows_matrix,
)
from ui.figures import trajectories_figure
from ui.notation import number, with_error


@pytest.fixture
def simulation(results: Database) -> int:
    return int(queries.runs(results, kind="simulation", activation="tanh")["run_id"].iloc[0])


def test_simulations_come_newest_first_with_what_they_are(results: Database) -> None:
    found = build_simulations(results)
    assert found["run_id"].is_monotonic_decreasing
    assert found["activation"].tolist() == ["relu", "tanh"]
    assert "relu, C_W = 2" in found["label"].iloc[0]
    assert "M = 2048" in found["label"].iloc[0]


@pytest.mark.parametrize("time", [0.0, 0.5, 1.0])
def test_values_are_the_stored_ones(results: Database, simulation: int, time: float) -> None:
    table = build_values(build_trajectories(results, simulation, ["01", "00,11"]), time)
    shown = table[(table["quantity"] == "V4") & (table["component"] == "00,11")].iloc[0]
    stored = queries.select(
        results,
        "SELECT simulated, simulated_se, predicted FROM v_trajectories WHERE simulation_run_id = :run"
        " AND quantity = 'V4' AND component = '00,11' AND closure = 'g_only' AND time = :time",
        {"run": simulation, "time": time},
    ).iloc[0]
    assert shown["simulated ± s.e."] == with_error(stored["simulated"], stored["simulated_se"])
    z = (stored["predicted"] - stored["simulated"]) / stored["simulated_se"]
    assert shown["g_only"] == f"{number(stored['predicted'], 6)}  (z = {z:+.1f})"
    assert shown["mean"] == "—"


def test_values_come_in_reading_order(results: Database, simulation: int) -> None:
    table = build_values(build_trajectories(results, simulation, ["00", "01", "00,00"]), 1.0)
    assert table["quantity"].drop_duplicates().tolist() == ["K0", "V4", "K1", "U1", "Sigma"]
    assert table["component"].tolist() == ["00", "01", "00,00", "00", "01", "00", "01", "00,00"]


def test_the_next_order_is_shown_where_a_theory_has_it(fresh: Database, put: Callable[..., int]) -> None:
    simulation = put(fresh, "tanh")
    spec = stored_specs(fresh, [simulation])[simulation]
    exact = eft.predict(spec.model, spec.kernel, "exact", next_order=True)
    unknown = exact.covariance_next.copy()
    unknown[:, 0, 2] = unknown[:, 2, 0] = np.nan
    record_comparison(
        fresh,
        prediction_run_id=record_prediction(fresh, replace(exact, covariance_next=unknown), provenance={}),
        reference_run_id=simulation,
        comparison=eft.compare(exact, eft.simulate(spec.model, spec.kernel, width=16, samples=64, device="cpu")),
    )
    shown = build_trajectories(fresh, simulation, ["01", "00,00", "00,11", "11,11,11"])
    table = build_values(shown, 1.0).set_index(["quantity", "component"])
    assert table.loc[("D", "00,00"), "simulated ± s.e."] == "—"
    assert table.loc[("D", "00,00"), "exact, next order"] == number(exact.covariance_next[-1, 0, 0], 6)
    assert table.loc[("K2", "01"), "exact, next order"] == number(exact.correction_next[-1, 0, 1], 6)
    assert ("D", "00,11") not in table.index, "it is not known"
    assert table.loc[("T", "11,11,11"), "exact, next order"] == number(exact.third_cumulant[-1, 2, 2, 2], 6)
    for log in (False, True):
        texts = [note.text for note in trajectories_figure(shown, log=log).layout.annotations]
        named = {
            "D[00,00]": "1/n coefficient of V<sub>4</sub>",
            "K<sub>2</sub>[01]": "1/n coefficient of K<sub>1</sub>",
        }
        for entry, meaning in {**named, "T[11,11,11]": "n<sup>2</sup> third cumulant of G"}.items():
            assert (f"|{entry}|  {meaning}" if log else f"{entry}  {meaning}") in texts
    precision = build_precision(fresh, build_errors(fresh, simulation)).set_index("quantity")
    assert precision.loc["T", "exact, next order, numerics"] == f"{exact.relative_error('T'):.1e}"
    assert precision.loc["D", "exact, next order, numerics"] == f"{exact.relative_error('D'):.1e}"
    assert precision.loc["D", "simulation, s.e. at T"] == "—"


def test_windows_matrix_has_every_window(results: Database, simulation: int) -> None:
    windows = build_run_windows(results, simulation)
    matrix = windows_matrix(windows)
    assert matrix.columns.tolist() == ["quantity", "theory", "τ = 0.01", "τ = 0.05", "τ = 0.1"]
    assert len(matrix) * 3 == len(windows)
    assert matrix["quantity"].drop_duplicates().tolist() == ["K0", "V4", "K1"]


def test_provenance_names_every_run(results: Database, simulation: int) -> None:
    predictions = [int(number) for number in build_errors(results, simulation)["prediction_run_id"].unique()]
    table = build_provenance(results, simulation, predictions).set_index("")
    assert table.loc["run"].tolist() == [str(simulation), *map(str, predictions)]
    assert table.loc["git commit", "simulation"] == "0123456789ab"
    assert table.loc["uncommitted changes", "simulation"] == "yes"
    assert table.loc["packages", "simulation"] == "numpy 2.4.6, torch 2.13.0"
    assert table.loc["started", "simulation"] == "2026-01-31 10:00:00 UTC"
    assert table.loc["seed"].tolist() == ["0", "—", "—", "—"]


def test_a_run_without_provenance_has_a_table_all_the_same(fresh: Database) -> None:
    model = eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.5, depth=2)
    theory = eft.predict(model, eft.InputKernel.explicit([[1.0]]), "mean")
    run = record_prediction(fresh, theory, provenance={})
    table = build_provenance(fresh, run, []).set_index("")
    assert table.loc["run"].tolist() == [str(run)]
    assert "packages" not in table.index


def test_statements_of_each_part(results: Database, simulation: int, statements: list[str]) -> None:
    spent = []
    for build in (
        lambda: build_simulations(results),
        lambda: build_errors(results, simulation),
        lambda: build_trajectories(results, simulation, ["00", "01", "00,00"]),
        lambda: build_run_windows(results, simulation),
        lambda: build_provenance(results, simulation, [1, 2, 3]),
    ):
        before = len(statements)
        build()
        spent.append(len(statements) - before)
    assert spent == [1, 1, 1, 1, 2]
