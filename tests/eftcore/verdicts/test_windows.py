"""Errors and windows against a theory: what the reference says of its own error is what the comparison allows for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import eftcore as eft
from eftcore.pairs import to_pairs
from eftcore.quantities import QUANTITIES
from eftcore.theory.closures.g_only import wishart
from eftcore.verdicts.windows import validity_window

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=60)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3)
COMPARED = ("K0", "V4", "K1")


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


@pytest.mark.parametrize("quantity", COMPARED)
def test_error_of_a_theory_stands_for_the_noise(g_only, exact, quantity):
    """Numerical error and the rest of the series, relative to the norm (eq. 9.2)."""
    estimated = exact.numerical_error[quantity] + exact.details["truncation_error"].get(quantity, 0.0)
    assert 0 < estimated < 2e-3
    values = QUANTITIES[quantity].of(exact)
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
    for quantity in COMPARED:
        _, se, _, _ = _rows(g_only, worse, quantity)
        expected = exact.numerical_error[quantity] + rest.get(quantity, 0.0)
        assert expected - 1e-12 <= se[-1] <= np.sqrt(2) * expected + 1e-12
    windows = eft.compare(exact, worse, [0.01, 0.05]).windows
    statuses = {(row.quantity, row.tolerance): row.status for row in windows.itertuples()}
    assert statuses["K1", 0.01] == statuses["K1", 0.05] == "too_noisy", "30 percent of K1 may be missing"
    assert (statuses["V4", 0.01], statuses["V4", 0.05]) == ("too_noisy", "beyond")


def test_windows_end_where_the_bounds_of_the_error_say(g_only, exact):
    """certified while e_+ <= tau, refuted where e_- > tau (eq. 9.6, 9.7), at every tolerance."""
    truncated = replace(exact, details={"truncation_error": {"V4": 0.001, "K1": 0.02}})
    errors = eft.compare(g_only, truncated).errors
    frame = errors[(errors.quantity == "V4") & (errors.depth > 0)]
    distance, size = frame.absolute_error, frame.absolute_error / frame.error
    radius = frame.absolute_error_se
    own = g_only.numerical_error["V4"] * np.linalg.norm(g_only.covariance, axis=(1, 2))[1:]
    low = np.maximum(distance - radius - own, 0) / (size + radius)
    high = (distance + radius + own) / (size - radius)
    np.testing.assert_allclose(frame.error_low, low, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(frame.error_high, high, rtol=1e-9)
    np.testing.assert_allclose(frame.resolution, radius / (size - radius), rtol=1e-9)
    tolerances = np.concatenate([[0.0002], np.linspace(0.002, 0.02, 24)])
    states = set()
    for row in eft.compare(g_only, truncated, tolerances).windows.query("quantity == 'V4'").itertuples():
        states.add(row.status)
        sure = [high[k] <= row.tolerance for k in high.index]
        count = sure.index(False) if False in sure else len(sure)
        refuted = frame.time[low > row.tolerance]
        assert row.status == (
            "bounded" if len(refuted) else "beyond" if count == len(sure) else "undecided" if row.resolved_from > 0
            else "too_noisy"
        )  # fmt: skip
        if row.resolved_from > frame.time.iloc[0]:
            continue
        assert row.certified_until == pytest.approx(frame.time.iloc[count - 1] if count else np.nan, nan_ok=True)
        assert row.refuted_from == pytest.approx(refuted.iloc[0] if len(refuted) else np.nan, nan_ok=True)
    assert states >= {"bounded", "beyond"}


def _window(time, low, high, resolution, tolerance=0.1) -> dict[str, object]:
    frame = pd.DataFrame({"time": time, "error_low": low, "error_high": high, "resolution": resolution})
    return validity_window(frame, tolerance)


@pytest.mark.parametrize(
    ("low", "high", "resolution", "expected"),
    [
        # what is known exactly at t = 0 resolves nothing
        ((0, 0, 0, 0), (0, 9, 9, 9), (0, 9, 9, 9), {"status": "too_noisy"}),
        # noise hides the beginning, then the theory holds
        ((0, 0, 0, 0), (0, 9, 0.05, 0.06), (0, 9, 0.01, 0.01), {"status": "beyond", "resolved": 2, "certified": 3}),
        # lost in noise at the end
        (
            (0, 0, 0, 0),
            (0, 0.05, 0.06, np.inf),
            (0, 0.01, 0.01, np.inf),
            {"status": "undecided", "resolved": 1, "certified": 2},
        ),
        # fails while the quantity is still too small to certify anything, and holds later
        (
            (0, 0.2, 0, 0),
            (0, 0.9, 0.05, 0.05),
            (0, 0.3, 0.01, 0.01),
            {"status": "bounded", "resolved": 2, "refuted": 1},
        ),
        # holds, then fails
        (
            (0, 0, 0.01, 0.2),
            (0, 0.05, 0.2, 0.3),
            (0, 0.01, 0.01, 0.01),
            {"status": "bounded", "resolved": 1, "certified": 1, "refuted": 3},
        ),
        # an error just at the tolerance: neither
        ((0, 0.05, 0.05, 0.05), (0, 0.15, 0.15, 0.15), (0, 0.05, 0.05, 0.05), {"status": "undecided", "resolved": 1}),
    ],
)
def test_each_state_of_a_window(low, high, resolution, expected):
    time = np.array([0.0, 0.5, 1.0, 1.5])
    found = _window(time, low, high, resolution)
    assert found["status"] == expected["status"]
    for name, column in (("resolved", "resolved_from"), ("certified", "certified_until"), ("refuted", "refuted_from")):
        at = time[expected[name]] if name in expected else np.nan
        assert found[column] == pytest.approx(at, nan_ok=True), column


def test_numerical_error_of_the_theory_leaves_its_window_undecided(g_only, exact):
    """A theory whose own integrals are off by more than it differs: neither certified nor refuted."""
    assert (eft.compare(g_only, exact, [0.005]).windows.query("quantity == 'V4'").status == "bounded").all()
    for error in (0.05, np.inf, np.nan):
        rough = replace(g_only, numerical_error={**g_only.numerical_error, "V4": error})
        (window,) = eft.compare(rough, exact, [0.005]).windows.query("quantity == 'V4'").to_dict("records")
        assert window["status"] == "undecided"
        assert np.isnan(window["certified_until"])
    fixed = eft.predict(MODEL, KERNEL, "g_only", numerics=eft.Numerics(quadrature="gauss_hermite", nodes=4))
    assert not fixed.converged
    windows = eft.compare(fixed, exact, [0.005]).windows
    assert set(windows.status[windows.quantity != "K0"]) == {"bounded"}, "a fixed rule is judged as it is"


@pytest.mark.parametrize("seeds", [8, pytest.param(20, marks=pytest.mark.campaign)])
def test_few_networks_refute_nothing_and_certify_nothing(exact, seeds):
    """Against four networks neither the exact theory nor one that is off by half is decided at 10 %."""
    for seed in range(seeds):
        for estimator in ("plain", "paired"):
            sample = eft.simulate(MODEL, KERNEL, width=16, samples=4, seed=seed, estimator=estimator)
            windows = eft.compare(exact, sample, [0.1]).windows
            assert not (windows.status[windows.quantity != "K0"] == "bounded").any()
            sample = eft.simulate(MODEL, KERNEL, width=16, samples=1, seed=seed, estimator=estimator)
            windows = eft.compare(exact, sample, [0.1]).windows
            assert set(windows.status[windows.quantity != "K0"]) == {"too_noisy"}


@pytest.mark.parametrize("seeds", [20, pytest.param(60, marks=pytest.mark.campaign)])
def test_early_noise_of_the_correction_does_not_refute(exact, seeds):
    """K1 starts within its noise; the right theory is refuted in at most 5 % of ensembles (false alarm: 1 in 1000)."""
    refuted = 0
    closure = eft.predict(MODEL, KERNEL, "wick", order="auto", truncation=1e-3)
    for seed in range(seeds):
        sample = eft.simulate(MODEL, KERNEL, width=256, samples=500, seed=seed)
        windows = eft.compare(closure, sample, [0.10]).windows
        refuted += (windows.status[windows.quantity == "K1"] == "bounded").sum()
    assert stats.binom.sf(refuted - 1, seeds, 0.05) > 1e-3


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
