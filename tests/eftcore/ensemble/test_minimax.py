"""The table of fits: each error is as stated, and the script that fits them finds nothing much better or worse."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.minimax import FUNCTIONS, Samples, minimax, samples
from eftcore.ensemble import minimax as table
from eftcore.ensemble.minimax import FITS


def test_every_fit_is_in_the_table():
    there = {name for name, value in vars(table).items() if isinstance(value, table.Fit)}
    assert there == set(FITS) == set(FUNCTIONS)


@pytest.mark.parametrize("name", FITS)
def test_the_error_of_a_fit_is_the_one_stated(name):
    """At points between those of the fit; the stated error is the measured one, rounded up to two digits."""
    fit = FITS[name]
    seen = samples(name, points=2001)
    error = seen.error(np.array(fit.numerator), np.array(fit.denominator))
    if not fit.single:  # the rounding of float64 covers the last digits
        assert 0.1 * fit.error < error <= fit.error
        return
    assert 0.9 * fit.error < error <= fit.error
    assert np.array_equal(np.float32(fit.numerator), fit.numerator)
    assert np.array_equal(np.float32(fit.denominator), fit.denominator)


@pytest.mark.parametrize("name", FITS)
def test_the_script_fits_as_well(name):
    """Its float32 coefficients are at least as good as the table's, and cost at most a factor of 2.5 of the best.

    No coefficients of this degree are better than unrounded ones, so those are a lower bound for both.
    """
    fit = FITS[name]
    seen = samples(name)
    between = samples(name, points=2001)
    best = seen.error(*minimax(seen, fit.degree, rounded=False))
    if not fit.single:
        assert best <= fit.error
        return
    again = minimax(seen, fit.degree, rounded=True)
    assert all(np.array_equal(np.float32(part), part) for part in again)
    assert best <= between.error(*again) < min(2.5 * best, 1.001 * fit.error)


def test_a_fit_alternates_as_chebyshev_says():
    """The best cubic, and no other, reaches its largest error 5 times with alternating signs; exp on [0, 1]."""
    x = np.linspace(0, 1, 2001)
    seen = Samples(x, np.exp(x), np.ones_like(x))
    numerator, denominator = minimax(seen, (3, 0), rounded=False)
    assert denominator.tolist() == [1.0]
    error = np.polyval(numerator, x) - seen.value
    largest = np.abs(error).max()
    signs = np.sign(error[np.abs(error) > 0.999 * largest])
    assert 1 + np.count_nonzero(np.diff(signs)) == 5
