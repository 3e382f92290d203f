"""Errors and windows against a theory: what the reference says of its own error is what the comparison allows for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import eftcore as eft
from eftcore.closures.g_only import wishart
from eftcore.pairs import to_pairs

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=60)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3)
ARRAYS = {"K0": "mean", "V4": "covariance", "K1": "correction"}


@pytest.fixture(scope="module")
def g_only() -> eft.Theory:
    return eft.predict(MODEL, KERNEL, "g_only", step="exact")


@pytest.fixture(scope="module")
def exact() -> eft.Theory:
    return eft.predict(MODEL, KERNEL, "wick", order="auto")


def _rows(theory: eft.Theory, reference: eft.Theory, quantity: str) -> tuple[np.ndarray, ...]:
    errors = eft.compare(theory, reference).errors
    frame = errors[errors.quantity == quantity]
    return tuple(frame[name].to_numpy() for name in ("error", "error_se", "absolute_error_se", "defined"))


@pytest.mark.parametrize("quantity", ARRAYS)
def test_error_of_a_theory_stands_for_the_noise(g_only, exact, quantity):
    """Numerical error and the rest of the series, relative to the norm (eq. 9.2)."""
    estimated = exact.numerical_error[quantity] + exact.details["truncation_error"].get(quantity, 0.0)
    assert 0 < estimated < 2e-3
    values = getattr(exact, ARRAYS[quantity])
    whole = np.linalg.norm(values.reshape(len(values), -1), axis=1)
    entries = values if quantity == "V4" else to_pairs(values)
    pairs = np.linalg.norm(entries.reshape(len(entries), -1), axis=1)
    _, se, absolute, defined = _rows(g_only, exact, quantity)
    late = exact.time > 0.1  # where K1 is more than a thousandth of its largest value
    assert defined[late].all()
    np.testing.assert_allclose(absolute[late], estimated * whole[late], rtol=1e-12)
    np.testing.assert_allclose(se[late], absolute[late] / pairs[late], rtol=1e-12)


def test_truncation_widens_the_error_of_what_it_touches(g_only, exact):
    rest = {"V4": 0.02, "K1": 0.3}
    worse = replace(exact, details={**exact.details, "truncation_error": rest})
    for quantity in ARRAYS:
        _, se, _, _ = _rows(g_only, worse, quantity)
        expected = exact.numerical_error[quantity] + rest.get(quantity, 0.0)
        assert expected - 1e-12 <= se[-1] <= np.sqrt(2) * expected + 1e-12
    windows = eft.compare(exact, worse, [0.01, 0.05]).windows
    statuses = {(row.quantity, row.tolerance): row.status for row in windows.itertuples()}
    assert statuses["K1", 0.01] == statuses["K1", 0.05] == "too_noisy", "30 percent of K1 may be missing"
    assert (statuses["V4", 0.01], statuses["V4", 0.05]) == ("too_noisy", "beyond")


def test_a_given_order_does_not_know_what_it_leaves_out(g_only):
    fixed = eft.predict(MODEL, KERNEL, "wick", order=8)
    _, se, _, _ = _rows(g_only, fixed, "V4")
    np.testing.assert_allclose(se, fixed.numerical_error["V4"], rtol=1e-12)


def test_windows_end_where_the_estimated_error_cannot_matter(g_only, exact):
    """certified: e + 2 se <= tau up to there; refuted: e - 2 se > tau (eq. 9.3), at every tolerance."""
    truncated = replace(exact, details={"truncation_error": {"V4": 0.004, "K1": 0.02}})
    e, se, _, _ = _rows(g_only, truncated, "V4")
    tolerances = np.linspace(0.002, 0.05, 25)
    for row in eft.compare(g_only, truncated, tolerances).windows.query("quantity == 'V4'").itertuples():
        holds, fails = e + 2 * se <= row.tolerance, e - 2 * se > row.tolerance
        if row.status == "too_noisy":
            assert not holds[0]
            assert not fails.any()
            continue
        first_bad = np.flatnonzero(~holds)
        end = (
            g_only.time[first_bad[0] - 1]
            if len(first_bad) and first_bad[0]
            else (0.0 if len(first_bad) else MODEL.total_time)
        )
        assert row.certified_until == pytest.approx(end)
        assert np.isnan(row.refuted_from) == (not fails.any())
        if fails.any():
            assert row.refuted_from == pytest.approx(g_only.time[fails.argmax()])


def test_true_error_of_a_low_reference_lies_within_what_it_allows(exact):
    """Against truth (a far higher order) the series of automatic order is off by no more than it says."""
    rough = eft.predict(MODEL, KERNEL, "wick", order="auto", truncation=0.02)
    truth = eft.predict(MODEL, KERNEL, "wick", order=80)
    assert rough.details["wick_order"] < exact.details["wick_order"] < 80
    errors = eft.compare(truth, rough).errors
    for quantity in ("V4", "K1"):
        frame = errors[(errors.quantity == quantity) & errors.defined]
        assert (frame.error <= frame.error_se).all()
        assert frame.error.max() > 1e-6


def test_kernel_correction_near_zero_is_judged_on_its_natural_scale(exact):
    """K1 starts at 0 like t^2: there its error is relative to a thousandth of its largest value (eq. 6.15)."""
    _, _, absolute, defined = _rows(exact, exact, "K1")
    estimated = exact.numerical_error["K1"] + exact.details["truncation_error"]["K1"]
    largest = np.linalg.norm(exact.correction.reshape(len(absolute), -1), axis=1).max()
    assert absolute[0] >= 1e-3 * estimated * largest > 0
    assert not defined[0]
    assert defined[-1]


def test_standard_errors_of_paths_count_as_those_of_a_simulation(g_only):
    model = MODEL.model_copy(update={"depth": 10})
    paths = eft.predict(model, KERNEL, "particle")
    theory = eft.predict(model, KERNEL, "g_only")
    for quantity, se in (("V4", paths.covariance_se), ("K1", to_pairs(paths.correction_se))):
        _, _, absolute, _ = _rows(theory, paths, quantity)
        np.testing.assert_allclose(absolute, np.linalg.norm(se.reshape(len(se), -1), axis=1), rtol=1e-12)


@pytest.mark.parametrize("closure", ["source_only", "g_only"])
@pytest.mark.parametrize("continuous", [False, True])
def test_sigma_of_a_theory_drives_its_covariance(closure, continuous):
    """V4 of source_only is the Wishart start plus the sum (integral) of Sigma; g_only has the same Sigma (eq. 3.5)."""
    theory = eft.predict(MODEL, KERNEL, closure, continuous=continuous, depths=range(61))
    start = eft.predict(MODEL, KERNEL, "source_only", continuous=continuous, depths=range(61))
    np.testing.assert_allclose(theory.increment_covariance, start.increment_covariance, rtol=1e-7)
    h = MODEL.epsilon**2
    if continuous:
        summed = np.cumsum(h * (theory.increment_covariance[1:] + theory.increment_covariance[:-1]) / 2, axis=0)
    else:
        summed = h * np.cumsum(theory.increment_covariance, axis=0)[:-1]
    made = wishart(KERNEL.array) + summed
    np.testing.assert_allclose(start.covariance[1:], made, rtol=1e-5 if continuous else 1e-9)


def test_only_closures_driven_by_sigma_have_it():
    for closure in ("mean", "sigma", "wick"):
        theory = eft.predict(MODEL, KERNEL, closure)
        assert theory.increment_covariance is None
        assert "increment_covariance" not in theory.arrays()
