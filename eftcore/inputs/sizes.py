"""The largest inputs and results. Larger ones are refused with the number and the limit, before memory runs out."""

from __future__ import annotations

from eftcore.errors import InputError

EPSILON = (1e-150, 1e150)
"""Smallest and largest epsilon, the size of the residual branch: epsilon^2, the step in t, must fit into float64."""

MOST_INPUTS = 1000
"""Largest number N of inputs. V4 has (N (N + 1) / 2)^2 entries at each layer, so few closures allow as many."""

DEEPEST = 10_000_000
"""Largest depth L of a network, in layers."""

MOST_RECORDED = 100_000
"""Largest number of recorded layers of one result."""

LARGEST_ARRAY = 10**9
"""Most bytes of one array of a result: neither SQLite nor PostgreSQL stores more in one value."""

LARGEST_PATH = 8 * 10**9
"""Most bytes of the mean kernel at all layers, which is held in memory and not stored."""


def check_epsilon(epsilon: float) -> float:
    """epsilon, the size of the residual branch. Raises InputError where epsilon^2 leaves the range of float64."""
    if not EPSILON[0] <= epsilon <= EPSILON[1]:
        raise InputError(f"must lie between {EPSILON[0]:g} and {EPSILON[1]:g}", value=epsilon)
    return epsilon


def check_inputs(n_inputs: int) -> None:
    """Raises InputError where there are more than MOST_INPUTS inputs."""
    if n_inputs > MOST_INPUTS:
        raise InputError(
            f"{n_inputs} inputs are more than the {MOST_INPUTS} that a kernel may have", remedy="give fewer"
        )


def check_result(*, depth: int, recorded: int, n_inputs: int, covariance: bool) -> None:
    """Raises InputError where a result is too large for the memory or for the database.

    Args:
        covariance: whether the result contains V4, by far the largest array.

    >>> check_result(depth=1000, recorded=101, n_inputs=100, covariance=True)
    Traceback (most recent call last):
    ...
    eftcore.errors.InputError: V4 of 100 inputs at 101 recorded layers takes 20.6 GB, more than the 1 GB that ...
    """
    if recorded > MOST_RECORDED:
        raise InputError(
            f"{recorded} recorded layers are more than the {MOST_RECORDED} of one result", remedy="record fewer"
        )
    entries = n_inputs * (n_inputs + 1) // 2 if covariance else n_inputs
    size = 8 * recorded * entries**2
    if size > LARGEST_ARRAY:
        raise InputError(
            f"{'V4' if covariance else 'K0'} of {n_inputs} inputs at {recorded} recorded layers takes"
            f" {_gigabytes(size)} GB, more than the {_gigabytes(LARGEST_ARRAY)} GB that a database keeps in one value",
            remedy="give fewer inputs or recorded depths",
        )
    path = 8 * (depth + 1) * n_inputs**2
    if path > LARGEST_PATH:
        raise InputError(
            f"K0 of {n_inputs} inputs at {depth} layers takes {_gigabytes(path)} GB, more than the"
            f" {_gigabytes(LARGEST_PATH)} GB that are held in memory",
            remedy="give fewer inputs or layers",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g}"
