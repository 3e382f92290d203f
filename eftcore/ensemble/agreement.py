"""Whether the exact leading order of the paired V4 is that of the control that was simulated (docs/theory.md, 7.2).

The paired estimator adds the theory's V4 of the control, n Cov(e), to what the networks differ from it. The same
networks give n Cov(e) themselves: plain estimate minus measured difference. A theory that disagrees with that beyond
chance must not be added.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student

from eftcore.ensemble.estimates import Estimate
from eftcore.ensemble.leading_order import LeadingOrder

FALSE_ALARMS = 1e-4
"""Probability that a right leading order is refused, over all entries and depths together."""


def disagreement(plain: Estimate, change: Estimate, leading: LeadingOrder, samples: int) -> float:
    """Largest deviation over its limit: above 1 the leading order is refused (eq. 7.17).

    ``plain`` and ``change`` are V4 and what it differs from the control by, (R, P, P) each with standard errors, from
    ``samples`` networks. Both may be correlated in any way, so their errors add; the sum counts at least as much as a
    Gaussian control with the theory's V4 would scatter. Heavy tails leave fewer degrees of freedom to trust it by.
    """
    rows, pairs, _ = leading.covariance.shape
    deviation = np.abs(plain[0] - change[0] - leading.covariance)
    variance = np.diagonal(leading.covariance, axis1=1, axis2=2)
    scatter = variance[:, :, None] * variance[:, None, :] + leading.covariance**2
    error = np.maximum(plain[1] + change[1], np.sqrt(np.clip(scatter, 0.0, None) / max(samples - 1, 1)))
    fourth = samples * np.divide(plain[1] ** 2, scatter, out=np.ones_like(scatter), where=scatter > 0)
    freedom = np.maximum((samples - 1) / (2 * np.maximum(fourth, 1.0)), 1.0)
    tests = rows * pairs * (pairs + 1) // 2
    limit = leading.error + student.isf(FALSE_ALARMS / (2 * tests), freedom) * error
    # where nothing fluctuates only rounding is left
    limit = limit + 1e-9 * np.abs(leading.covariance).max()
    return float(np.divide(deviation, limit, out=np.zeros_like(limit), where=limit > 0).max())
