"""Closed forms and single-input quadrature over the whole range of variances and correlations, against 120 digits.

Run: python -m benchmarks.closed_forms. For every activation with a closed form: E2, its gradient and its Hessian at
K_aa and K_bb from 1e-12 to 1e12 and correlations from -1 to 1, with central differences in arbitrary precision as the
truth. Shown are the entries scanned, the largest error over what the entry itself bounds it by (below 1: the bound
holds), how many entries are bounded by less than 1e-9 of themselves, and the largest error of the single-input forms.
"""

from __future__ import annotations

from itertools import product

import mpmath
import numpy as np

from eftcore.activations import get_activation
from eftcore.gaussian.closed_forms import closed_form
from eftcore.gaussian.closed_moments import ROUNDING
from tests.eftcore.gaussian.test_closed_forms import FORMS, ORDERS, derivatives

VARIANCES = 10.0 ** np.arange(-12, 13, 4)
CORRELATIONS = (-1 + 1e-12, -0.9, -0.3, 0.0, 0.5, 0.99, 1 - 1e-6, 1 - 1e-12)


def scan(name: str) -> str:
    """One row of the table."""
    form = closed_form(get_activation(name))
    assert form is not None
    worst, count, sharp = 0.0, 0, 0
    for a, b, rho in product(VARIANCES, VARIANCES, CORRELATIONS):
        c = rho * np.sqrt(a) * np.sqrt(b)
        found = form.pair(np.array(a), np.array(c), np.array(b))
        entries = [found.value, *found.gradient(), *found.hessian()]
        for order, entry, true in zip(ORDERS, entries, derivatives(FORMS[name], [a, c, b], ORDERS), strict=True):
            # what the differences leave, relative to E2 / K_q K_r, counts as 0
            noise = 1e-30 * np.sqrt(a * b) / (a ** (order[0] + order[1] / 2) * b ** (order[2] + order[1] / 2))
            error = float(abs(mpmath.mpf(float(entry.value)) - true))
            bound = ROUNDING * float(entry.size)
            worst = max(worst, error / (bound + noise + 1e-300))
            count += 1
            sharp += bound <= 1e-9 * abs(float(true)) + noise
    single = 0.0
    for k in 10.0 ** np.arange(-12, 13):
        truth = derivatives(lambda x: FORMS[name](x, x, x), [k], ((0,), (1,), (2,)))
        for order, (entry, true) in enumerate(zip(form.single(np.array(k)), truth, strict=True)):
            # below the smallest normal number, or 0 to what the differences leave
            if abs(true) > 1e-30 * k ** (1 - order) and abs(true) > 1e-300:
                single = max(single, float(abs(mpmath.mpf(float(entry.value)) / true - 1)))
    return f"| {name} | {count} | {worst:.2f} | {100 * sharp / count:.1f} % | {single:.0e} |"


def main() -> None:
    print("| activation | entries | worst error / bound | known to 1e-9 | one input: worst relative error |")
    print("|---|---|---|---|---|")
    with mpmath.workdps(120), np.errstate(all="ignore"):
        for name in FORMS:
            print(scan(name), flush=True)


if __name__ == "__main__":
    main()
