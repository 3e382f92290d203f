"""The largest inputs and results: what is larger is refused by its number, before memory ends."""

from __future__ import annotations

EPSILON = (1e-150, 1e150)
"""Smallest and largest size of the residual branch: its square, a step of time, is to be a number too."""

MOST_INPUTS = 1000
"""Inputs N of a kernel. V4 has (N (N + 1) / 2)^2 entries at each recorded layer, so that few closures allow as many."""

DEEPEST = 10_000_000
"""Layers L of a network."""

MOST_RECORDED = 100_000
"""Recorded layers of one result."""

LARGEST_ARRAY = 10**9
"""Bytes of one array of a result: neither SQLite nor PostgreSQL keeps more in one value."""

LARGEST_PATH = 8 * 10**9
"""Bytes of the mean kernel at every layer, which is held in memory, not stored."""


def check_epsilon(epsilon: float) -> float:
    """The size of the residual branch. Raises ValueError where its square is no number of double precision."""
    if not EPSILON[0] <= epsilon <= EPSILON[1]:
        raise ValueError(f"epsilon = {epsilon}: must lie between {EPSILON[0]:g} and {EPSILON[1]:g}")
    return epsilon


def check_inputs(n_inputs: int) -> None:
    """Raises ValueError for more inputs than a kernel may have."""
    if n_inputs > MOST_INPUTS:
        raise ValueError(f"{n_inputs} inputs are more than the {MOST_INPUTS} that a kernel may have; give fewer")


def check_result(*, depth: int, recorded: int, n_inputs: int, covariance: bool) -> None:
    """Raises ValueError where a result is larger than can be held or stored.

    Args:
        covariance: whether V4 is part of it, the largest array by far.

    >>> check_result(depth=1000, recorded=101, n_inputs=100, covariance=True)
    Traceback (most recent call last):
    ...
    ValueError: V4 of 100 inputs at 101 recorded layers takes 20.6 GB, more than the 1 GB that ...
    """
    if recorded > MOST_RECORDED:
        raise ValueError(f"{recorded} recorded layers are more than the {MOST_RECORDED} of one result; record fewer")
    entries = n_inputs * (n_inputs + 1) // 2 if covariance else n_inputs
    size = 8 * recorded * entries**2
    if size > LARGEST_ARRAY:
        raise ValueError(
            f"{'V4' if covariance else 'K0'} of {n_inputs} inputs at {recorded} recorded layers takes"
            f" {_gigabytes(size)} GB, more than the {_gigabytes(LARGEST_ARRAY)} GB that a database keeps in one value; "
            "give fewer inputs or recorded depths"
        )
    path = 8 * (depth + 1) * n_inputs**2
    if path > LARGEST_PATH:
        raise ValueError(
            f"K0 of {n_inputs} inputs at {depth} layers takes {_gigabytes(path)} GB, more than the"
            f" {_gigabytes(LARGEST_PATH)} GB that are held in memory; give fewer inputs or layers"
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g}"
