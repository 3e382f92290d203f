"""Radii that hold at all depths at once: exact laws, limits, and coverage of simulated processes (eq. 9.3 to 9.5)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from eftcore.ensemble.bands import Noise, bootstrap_critical, independent_critical

INFINITE = np.array([np.inf])


def noise(size, *, freedom=np.inf, fluctuations=None, reliable=True) -> Noise:
    size = np.asarray(size, dtype=float)
    return Noise(size, np.full(len(size), freedom), fluctuations, np.broadcast_to(reliable, size.shape))


def brownian(rng: np.random.Generator, groups: int, depths: int, entries: int = 1) -> np.ndarray:
    """Contributions of groups to a process with independent increments, each depth of the size of its time."""
    return np.cumsum(rng.standard_normal((groups, depths, entries)), axis=1) / np.sqrt(groups * depths)


@pytest.mark.parametrize("depths", [1, 7, 100])
def test_independent_depths_have_their_exact_law(depths):
    largest = stats.norm.cdf(independent_critical(depths)) - stats.norm.cdf(-independent_critical(depths))
    assert largest**depths == pytest.approx(0.95, rel=1e-12)


def test_bootstrap_finds_the_law_of_independent_depths():
    groups = np.random.default_rng(1).standard_normal((4000, 20, 1))
    assert bootstrap_critical(groups) == pytest.approx(independent_critical(20), abs=0.05)


def test_depths_that_move_together_count_once():
    groups = np.random.default_rng(2).standard_normal((32, 1, 1)) * np.linspace(1, 5, 200)[None, :, None]
    assert bootstrap_critical(groups) == pytest.approx(independent_critical(1), abs=0.05)


def test_critical_value_hardly_depends_on_the_number_of_recorded_depths():
    """Brownian motion recorded 5, 25 or 125 times between T / 5 and T."""
    paths = brownian(np.random.default_rng(3), 400, 125)[:, 24:]
    found = [bootstrap_critical(paths[:, :: len(paths[0]) // count]) for count in (5, 25, 100)]
    assert found[0] < found[1] < found[2] < 1.12 * found[0]
    assert found[2] < 0.85 * independent_critical(100)


@pytest.mark.parametrize("entries", [1, 3])
@pytest.mark.parametrize("groups", [12, 32])
@pytest.mark.parametrize("processes", [100, pytest.param(400, marks=pytest.mark.campaign)])
def test_radius_covers_the_whole_path_as_often_as_it_says(groups, entries, processes):
    """Processes of known standard error: 95 % are covered at all depths; a false alarm in one of 1000 at most.

    Of 100 processes that is below 0.87, of 400 below 0.9125.
    """
    rng = np.random.default_rng([groups, entries])
    covered = 0
    for _ in range(processes):
        contributions = brownian(rng, groups, 50, entries)
        size = np.sqrt(entries * np.arange(1, 51) / 50)
        radius = noise(size, fluctuations=contributions).radius()
        covered += bool((np.linalg.norm(contributions.sum(0), axis=1) <= radius).all())
    assert stats.binom.cdf(covered, processes, 0.95) > 1e-3, covered / processes


def test_few_degrees_of_freedom_widen_the_tails_only():
    """At one depth the standard error has Student's factor already; at many, the tail beyond it is heavier too."""
    once = noise([1.0], freedom=3).radius()[0]
    assert once == pytest.approx(stats.norm.isf(0.025), rel=1e-9)
    many = [noise(np.ones(50), freedom=freedom).radius()[0] for freedom in (3, 30, np.inf)]
    assert many[0] > 1.5 * many[2]
    assert many[0] > many[1] > many[2] == pytest.approx(independent_critical(50))


def test_nothing_is_known_where_the_error_is_not():
    found = noise([0.0, 1.0, np.nan, np.inf, 2.0], reliable=[True, True, True, True, False]).radius()
    assert found[0] == 0.0
    assert found[1] == pytest.approx(independent_critical(1)), "the others tell nothing, so they are no trials"
    assert np.isinf(found[2:]).all()


def test_a_part_of_the_depths_has_its_own_radius():
    groups = np.random.default_rng(5).standard_normal((32, 40, 2))
    whole = noise(np.sqrt((groups**2).sum((0, 2))), fluctuations=groups)
    first = whole.at(np.array([3]))
    assert first.radius()[0] < whole.radius()[3]
    assert first.radius()[0] == pytest.approx(bootstrap_critical(groups[:, [3]]) * whole.size[3])


def test_one_direction_is_the_worst_case_of_a_norm():
    """P(sum of w_i z_i^2 > q^2) for weights that add up to 1 is largest for one weight (Székely and Bakirov 2003)."""
    q = independent_critical(1)
    for entries in (2, 5, 20):
        inside = stats.chi2.sf(entries * q**2, entries)
        assert inside < 0.05
