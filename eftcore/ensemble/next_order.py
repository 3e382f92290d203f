"""D and K2 measured from simulated networks of several widths (docs/theory.md, section 10.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eftcore.ensemble.sample import Sample
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES
from eftcore.results import KernelTrajectories, Theory


def measured_next_order(samples: Sequence[Sample], exact: Theory) -> KernelTrajectories:
    """D and K2 with standard errors, from samples of one network at two or more widths (eq. 10.10).

    At each width n, n (X_n - X0) = X1 + X2 / n + O(1/n^2) with the leading order X0 of ``exact``; X1 is the intercept
    of the weighted line through these numbers over 1/n. Its standard error has the statistical errors of the samples
    and the error that ``exact`` estimates for X0.

    Args:
        samples: of the same model, inputs and recorded layers at different widths; any number of inputs.
        exact: the exact closure (or another theory of the leading order) at the same layers.

    Returns K0, V4 and K1 of ``exact`` with ``covariance_next`` (R, P, P) D, ``correction_next`` (R, N, N) K2 and their
    standard errors.

    Raises InputError for fewer than two widths, or samples and a theory of different networks, inputs or layers.
    """
    widths = np.array([float(sample.spec.width) for sample in samples])
    if len(set(widths)) < 2:
        raise InputError("two different widths are needed at least", place="samples", value=widths.tolist())
    for sample in samples:
        if not sample.spec.of_same_network(exact.spec) or sample.depth.tolist() != exact.depth.tolist():
            raise InputError("are of another network, other inputs or other layers than exact", place="samples")
    found: dict[str, np.ndarray] = {}
    for name, attribute in (("V4", "covariance_next"), ("K1", "correction_next")):
        values, errors = zip(*(QUANTITIES[name].estimate_of(sample) for sample in samples), strict=True)
        leading = QUANTITIES[name].of(exact)
        if leading is None:
            raise InputError(f"has no {name}", place="exact", remedy="predict it with closure = 'exact'")
        known = (exact.relative_error(name) or 0.0) * np.abs(leading)
        found[attribute], found[f"{attribute}_se"] = _intercept(
            widths, np.array(values), np.array(errors), leading, known
        )
    return KernelTrajectories(
        depth=exact.depth,
        time=exact.time,
        mean=exact.mean,
        covariance=exact.covariance,
        correction=exact.correction,
        numerical_error=exact.numerical_error,
        **found,
    )


def _intercept(
    widths: np.ndarray, values: np.ndarray, errors: np.ndarray, leading: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """X1 and its standard error, of the shape of ``leading``, by weighted least squares over 1/n."""
    n = widths.reshape(-1, *[1] * leading.ndim)
    y, s = n * (values - leading), n * errors
    exactly = s == 0  # such as K1 at layer 0
    w = 1 / np.where(exactly, 1.0, s) ** 2
    x = 1 / n
    total, first, second = w.sum(0), (w * x).sum(0), (w * x * x).sum(0)
    determinant = total * second - first**2
    weights = w * (second - first * x) / determinant
    found = (weights * y).sum(0)
    variance = np.where(exactly, 0.0, (weights * s) ** 2).sum(0)
    # an error of X0 is common to all widths
    shared = np.abs((weights * n).sum(0)) * known
    return found, np.sqrt(variance + shared**2)
