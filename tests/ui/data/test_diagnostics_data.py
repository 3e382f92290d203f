"""Diagnostics of the run page, against the recorded arrays and the closures themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import eftcore as eft
from db.reading import queries
from db.reading.stored_results import StoredSample, stored_results
from db.session import Database
from ui.data.diagnostics import NORM, checks_frame, orders_frame, residual_frame
from ui.notation import TIME

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)


def test_residual_of_a_recorded_simulation(results: Database) -> None:
    run = int(queries.runs(results, kind="simulation", activation="tanh")["run_id"].iloc[0])
    sample = stored_results(results, [run])[run]
    assert isinstance(sample, StoredSample)
    frame = residual_frame(sample)
    assert {"source", "transport"} < set(frame["part"])
    change = np.linalg.norm(np.diff(sample.covariance, axis=0), axis=(1, 2)) / np.diff(sample.time)
    shown = frame[frame["part"] == "change of V4"]
    assert shown[NORM].to_numpy() == pytest.approx(change)
    assert shown[TIME].is_monotonic_increasing


def test_residual_of_a_simulation_without_sigma_keeps_two_parts_together(results: Database) -> None:
    run = int(queries.runs(results, kind="simulation", activation="tanh")["run_id"].iloc[0])
    sample = stored_results(results, [run])[run]
    assert isinstance(sample, StoredSample)
    whole = residual_frame(sample).pivot(index=TIME, columns="part", values=NORM)
    older = replace(sample, increment_covariance=None, increment_covariance_se=None)
    part = residual_frame(older).pivot(index=TIME, columns="part", values=NORM)
    assert set(part.columns) == set(whole.columns) - {"source", "transport"} | {"source and transport"}
    assert (part["source and transport"] <= whole["source"] + whole["transport"] + 1e-12).all()


def test_residual_of_the_equation_on_its_own_solution_vanishes() -> None:
    frame = residual_frame(eft.predict(MODEL, KERNEL, "g_only"))
    assert frame.loc[frame["part"] == "residual", NORM].max() < 1e-9 < frame[NORM].max()


def test_the_first_order_is_the_normal_ordered_theory() -> None:
    frame = orders_frame(MODEL, KERNEL).set_index(["quantity", "order"])
    theory = eft.predict(MODEL, KERNEL, "wick", order=2)
    assert theory.covariance is not None
    assert frame.loc[("V4", 2), "size"] == pytest.approx(np.linalg.norm(theory.covariance[-1]), rel=1e-6)


def test_the_exact_statements_hold() -> None:
    table = checks_frame(MODEL, KERNEL)
    assert len(table) == 5
    assert table["verdict"].tolist() == ["holds"] * 5
