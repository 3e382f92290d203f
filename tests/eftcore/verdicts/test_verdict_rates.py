"""How often windows are false: a small part of benchmarks/verdicts.py, with fixed seeds."""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks.ensembles import Ensemble
from benchmarks.verdicts import rates

FALSE_ALARM = 1e-4
"""Probability that one row fails although 5 % of its windows are false; there are 60 rows."""

CASES = {
    "light tails": Ensemble(estimator="plain", n_inputs=2, networks=512, depth=40),
    "light tails, paired": Ensemble(estimator="paired", networks=256, depth=40),
    "heavy tails": Ensemble(activation="relu", width=8, estimator="plain", networks=1024, depth=40),
    "few networks": Ensemble(estimator="plain", networks=16, depth=40),
}


MANY = Ensemble(estimator="paired", networks=4096, depth=40)


@pytest.mark.parametrize("seeds", [20, pytest.param(60, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_at_most_one_window_in_twenty_is_false(case, seeds):
    """Refuted although e <= tau, or certified although e > tau (eq. 9.7), at 1, 10 and 40 depths."""
    found = list(rates(case, seeds))
    for row in found:
        assert stats.binom.sf(round(row.false * seeds) - 1, seeds, 0.05) > FALSE_ALARM, row


def test_verdicts_are_still_given():
    """Many networks: the right theory is resolved almost always, and certified mostly, at any number of depths."""
    found = {(row.depths, row.factor): row for row in rates(MANY, 20) if row.quantity == "V4"}
    for depths in (1, 10, 40):
        assert found[depths, 0.0].resolved >= 0.9
    assert found[40, 0.0].certified >= 0.5
