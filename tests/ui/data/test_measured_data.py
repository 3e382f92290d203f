"""Frames of the measured next order: beside theories, as the reference of windows, and in the progress of studies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import eftcore as eft
from db.reading import queries
from db.session import Database
from db.writing.repository import record_comparison, record_measurement, record_prediction, record_study
from eftcore.ensemble.next_order import MeasuredNextOrder
from eftcore.results import Theory
from tests.ui.conftest import CLOSURES, PROVENANCE
from ui.data.compare import build_measured_errors, build_theories, name_pairs, name_simulations
from ui.data.run import (
    build_measured,
    build_provenance,
    build_run_windows,
    build_trajectories,
    build_values,
    windows_matrix,
    with_measured,
)
from ui.data.studies import build_studies
from ui.data.windows import WindowFilter, build_window_options, build_windows
from ui.figures import trajectories_figure
from ui.notation import with_error

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)


@pytest.fixture(scope="module")
def exact() -> Theory:
    return eft.predict(MODEL, KERNEL, "exact", next_order=True, truncation=0.05)


@pytest.fixture(scope="module")
def found(exact: Theory) -> MeasuredNextOrder:
    samples = [eft.simulate(MODEL, KERNEL, width=n, samples=2048, seed=n, device="cpu") for n in (16, 64)]
    return eft.measured_next_order(samples, exact)


@pytest.fixture
def simulation(fresh: Database, put: Callable[..., int], exact: Theory, found: MeasuredNextOrder) -> int:
    """A simulation, with the exact closure compared with it, and the next order measured in its network."""
    run_id = put(fresh, "tanh")
    study = record_study(fresh, name="measured", digest="a" * 64, spec={"name": "measured"}, runs_asked=2)
    prediction = record_prediction(fresh, exact, provenance=PROVENANCE, study_id=study)
    measurement = record_measurement(fresh, found, provenance=PROVENANCE, study_id=study)
    sample = eft.simulate(MODEL, KERNEL, width=16, samples=2048, estimator="plain", device="cpu")
    for reference, result in ((run_id, sample), (measurement, found)):
        comparison = eft.compare(exact, result)
        record_comparison(fresh, prediction_run_id=prediction, reference_run_id=reference, comparison=comparison)
    return run_id


def _configuration(db: Database, run_id: int) -> int:
    return int(queries.runs(db, run_id=run_id)["configuration_id"].iloc[0])


def test_what_is_measured_stands_beside_the_theory(
    fresh: Database, simulation: int, exact: Theory, found: MeasuredNextOrder, statements: list[str]
) -> None:
    components = ["01", "00,00"]
    before = len(statements)
    measured = build_measured(fresh, _configuration(fresh, simulation), components)
    assert len(statements) == before + 1 + 1  # and that of _configuration
    shown = with_measured(build_trajectories(fresh, simulation, components), measured)
    assert set(shown.loc[shown["quantity"] == "D", "theory"]) == {"exact, next order"}
    assert set(shown.loc[shown["quantity"] == "V4", "theory"]) >= {"g_only", "exact, next order"}
    table = build_values(shown, 1.0).set_index(["quantity", "component"])
    value, se = found.covariance_next[-1, 0, 0], found.covariance_next_se[-1, 0, 0]
    assert table.loc[("D", "00,00"), "simulated ± s.e."] == with_error(value, se)
    z = (exact.covariance_next[-1, 0, 0] - value) / se
    assert table.loc[("D", "00,00"), "exact, next order"].endswith(f"(z = {z:+.1f})")
    assert table.loc[("K2", "01"), "simulated ± s.e."] != "—"
    assert table.loc[("V4", "00,00"), "g_only"] != "—"
    points = [trace for trace in trajectories_figure(shown).data if trace.mode == "markers"]
    told = {name: [trace for trace in points if name in trace.hovertemplate] for name in ("D[", "V4[")}
    assert all("simulations of several widths" in trace.hovertemplate for trace in told["D["])
    assert all("n = 16, M = 2048 networks" in trace.hovertemplate for trace in told["V4["])
    np.testing.assert_array_equal(told["D["][0].y, found.covariance_next[:, 0, 0])


def test_without_a_measurement_the_trajectories_stay(fresh: Database, put: Callable[..., int]) -> None:
    run_id = put(fresh, "tanh")
    trajectories = build_trajectories(fresh, run_id, ["00,00"])
    measured = build_measured(fresh, _configuration(fresh, run_id), ["00,00"])
    assert measured.empty
    assert with_measured(trajectories, measured) is trajectories


def test_a_measurement_is_shown_without_a_theory_of_it(
    fresh: Database, put: Callable[..., int], found: MeasuredNextOrder
) -> None:
    run_id = put(fresh, "tanh")
    record_measurement(fresh, found, provenance=PROVENANCE)
    measured = build_measured(fresh, _configuration(fresh, run_id), ["00,00"])
    shown = with_measured(build_trajectories(fresh, run_id, ["00,00"]), measured)
    table = build_values(shown, 1.0).set_index("quantity")
    assert table.loc["D", "simulated ± s.e."] != "—"
    assert set(table.columns) == {"component", "simulated ± s.e.", *CLOSURES}
    assert set(table.loc["D", list(CLOSURES)]) == {"—"}
    assert trajectories_figure(shown).data


def test_windows_against_it_are_beside_those_against_the_simulation(fresh: Database, simulation: int) -> None:
    measured = build_measured(fresh, _configuration(fresh, simulation), ["00"])
    (measurement,) = measured["measurement_run_id"].unique()
    matrix = windows_matrix(build_run_windows(fresh, simulation, measurement))
    assert matrix.loc[matrix["theory"] == "exact, next order", "quantity"].tolist() == ["K0", "V4", "K1", "D", "K2"]
    chosen = WindowFilter(tolerance=0.05, reference_kind="measurement")
    options = build_window_options(fresh, "measurement")
    assert options.quantities == ["D", "K2"]
    assert options.differing == ["closure"], "it has no width"
    table = build_windows(fresh, chosen, options.differing).table
    assert table["quantity"].tolist() == ["D", "K2"]
    assert table["run"].str.startswith("predict?").all()


def test_it_says_where_it_comes_from(fresh: Database, simulation: int) -> None:
    (measurement,) = queries.runs(fresh, kind="measurement")["run_id"]
    table = build_provenance(fresh, simulation, [measurement]).set_index("")
    assert table.loc["measured at widths", f"measurement (run {measurement})"] == "16, 64"
    assert table.loc["git commit", f"measurement (run {measurement})"] == PROVENANCE["git_commit"][:12]


def test_errors_against_it(fresh: Database, simulation: int, found: MeasuredNextOrder, exact: Theory) -> None:
    runs = queries.runs(fresh, kind="simulation")
    names = name_pairs(build_theories(fresh, [simulation]), name_simulations(runs, [simulation]))
    errors = build_measured_errors(fresh, names)
    assert errors["quantity"].unique().tolist() == ["D", "K2"]
    assert set(errors["series"]) == {"exact, next order"}
    made = eft.compare(exact, found).errors
    np.testing.assert_array_equal(errors["absolute_error"], made["absolute_error"])
    without = names[names["theory"] == "g_only"]
    assert build_measured_errors(fresh, without).empty


def test_studies_count_measurements(fresh: Database, simulation: int) -> None:
    (row,) = build_studies(fresh).to_dict("records")
    assert (row["predictions"], row["simulations"], row["measurements"], row["done"]) == (1, 0, 1, 1.0)
