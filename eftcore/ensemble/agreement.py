"""Whether the exact leading order agrees with the simulated control of the paired V4 (docs/theory.md, section 7.6).

The paired estimator of V4 is the covariance of the control, n Cov(e), from theory, plus the measured difference between
V4 and n Cov(e). The same networks also give n Cov(e) itself: plain estimate minus measured difference. A theory that
differs from this by more than chance allows must not be used.
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from eftcore.ensemble.estimates import Estimate
from eftcore.ensemble.leading_order import LeadingOrder

FALSE_ALARMS = 1e-4
"""Probability that a right leading order is refused, over all entries and depths together."""


def disagreement(plain: Estimate, change: Estimate, leading: LeadingOrder, samples: int) -> float:
    """Largest deviation over its limit: above 1 the leading order is refused (eq. 7.17).

    ``plain`` is the plain estimate of V4 and ``change`` the measured difference from the covariance of the control,
    (R, P, P) each with standard errors, from ``samples`` networks. Their correlation is not known, so their errors are
    added; the sum is taken at least as large as the error for a Gaussian control with the theory's V4. Heavy tails
    lower the degrees of freedom of the limit.
    """
    rows, pairs, _ = leading.covariance.shape
    deviation = np.abs(plain[0] - change[0] - leading.covariance)
    variance = np.diagonal(leading.covariance, axis1=1, axis2=2)
    scatter = variance[:, :, None] * variance[:, None, :] + leading.covariance**2
    error = np.maximum(plain[1] + change[1], np.sqrt(np.clip(scatter, 0.0, None) / max(samples - 1, 1)))
    fourth = samples * np.divide(plain[1] ** 2, scatter, out=np.ones_like(scatter), where=scatter > 0)
    freedom = np.maximum((samples - 1) / (2 * np.maximum(fourth, 1.0)), 1.0)
    tests = rows * pairs * (pairs + 1) // 2
    limit = leading.error - stdtrit(freedom, FALSE_ALARMS / (2 * tests)) * error
    # where nothing fluctuates, the two differ by rounding alone
    limit = limit + 1e-9 * np.abs(leading.covariance).max()
    return float(np.divide(deviation, limit, out=np.zeros_like(limit), where=limit > 0).max())
