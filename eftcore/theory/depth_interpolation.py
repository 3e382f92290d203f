"""Ingredients of a closure at any depth, interpolated from a few depths where that is accurate (docs/theory.md).

Ingredients are the averages over the Gaussian law of K0 that a closure's equations contain, such as chi and H.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache

import numpy as np

from eftcore.theory.closures.base import Ingredients

POINTS = (12, 20, 32, 48)
"""Numbers of Chebyshev points that are tried, in turn."""

SPLITS = 6
"""How often an interval of continuous depth may be halved; kernels change fastest at its start."""

WORTHWHILE = 3
"""Ingredients are interpolated only where there are at least this many layers for each Chebyshev point."""


def chebyshev_points(count: int, end: float) -> np.ndarray:
    """(count,) Chebyshev points of the second kind on 0 .. end (eq. 6.16)."""
    return end * (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2


def chebyshev_layers(count: int, depth: int) -> np.ndarray:
    """(count,) distinct layers 0 .. depth, the nearest to Chebyshev points.

    >>> chebyshev_layers(5, 100).tolist()
    [0, 15, 50, 85, 100]
    """
    return np.unique(np.round(chebyshev_points(count, depth))).astype(int)


def barycentric_matrix(nodes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(M, J) matrix from values at the nodes to values of the interpolating polynomial at the targets (eq. 6.16).

    >>> barycentric_matrix(np.array([0.0, 1.0, 2.0]), np.array([1.5])).round(12).tolist()
    [[-0.125, 0.75, 0.375]]
    """
    gaps = nodes[:, None] - nodes[None, :] + np.eye(len(nodes))
    log_weights = -np.log(np.abs(gaps)).sum(1)
    weights = np.prod(np.sign(gaps), axis=1) * np.exp(log_weights - log_weights.max())
    distance = targets[:, None] - nodes[None, :]
    hit = distance == 0
    matrix: np.ndarray = weights / np.where(hit, 1.0, distance)
    matrix /= matrix.sum(1, keepdims=True)
    rows = hit.any(1)
    matrix[rows] = hit[rows]
    return matrix


@lru_cache(maxsize=256)
def _matrix(nodes: tuple[float, ...], targets: tuple[float, ...]) -> np.ndarray:
    matrix = barycentric_matrix(np.array(nodes, dtype=float), np.array(targets, dtype=float))
    matrix.setflags(write=False)
    return matrix


class Interpolant:
    """A table of ingredients at Chebyshev points; ``error`` is the largest relative error found between the points."""

    def __init__(self, nodes: np.ndarray, table: Ingredients, error: float) -> None:
        self.nodes, self.table, self.error = nodes, table, error

    def __call__(self, points: np.ndarray) -> Ingredients:
        """Ingredients at (M,) points, leading axis M."""
        matrix = _matrix(tuple(self.nodes.tolist()), tuple(points.tolist()))
        return {name: np.tensordot(matrix, value, axes=1) for name, value in self.table.items()}


Compute = Callable[[np.ndarray], Awaitable[Ingredients]]
"""What gives the ingredients at some points, with a leading axis over these."""


async def interpolate(compute: Compute, place: Callable[[int], np.ndarray], rtol: float) -> Interpolant | None:
    """An interpolant of ``compute`` on as few points as meet rtol; None if even the largest number does not.

    ``place(count)`` returns the points; fewer than ``count`` of them mean that interpolation is not worthwhile.
    """
    for count in POINTS:
        nodes = place(count)
        if len(nodes) < count:
            return None
        gaps = np.linspace(0, count - 2, 5).astype(int)
        checks = (nodes[gaps] + nodes[gaps + 1]) / 2
        checks = checks.astype(nodes.dtype)
        guess = Interpolant(nodes, await compute(nodes), 0.0)
        error = _largest_error(await compute(checks), guess(checks))
        if error <= rtol:
            return Interpolant(nodes, guess.table, error)
    return None


class Pieces:
    """Interpolants on consecutive intervals; ``error`` is the largest error of any of them."""

    def __init__(self, parts: list[tuple[float, Interpolant]]) -> None:
        self.ends, self.parts = np.array([end for end, _ in parts]), [part for _, part in parts]
        self.error = max(part.error for part in self.parts)

    def __call__(self, points: np.ndarray) -> Ingredients:
        """Ingredients at (M,) points, leading axis M."""
        which = np.minimum(np.searchsorted(self.ends, points), len(self.ends) - 1)
        rows = [self.parts[index](points[[row]]) for row, index in enumerate(which)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


async def interpolate_pieces(
    compute: Compute, start: float, end: float, rtol: float, splits: int = SPLITS
) -> Pieces | None:
    """Interpolants of ``compute`` on start .. end. An interval is halved where one polynomial does not meet rtol.

    None if ``splits`` halvings do not suffice.
    """
    parts = await _pieces(compute, start, end, rtol, splits)
    return None if parts is None else Pieces(parts)


async def _pieces(
    compute: Compute, start: float, end: float, rtol: float, splits: int
) -> list[tuple[float, Interpolant]] | None:
    whole = await interpolate(compute, lambda count: start + chebyshev_points(count, end - start), rtol)
    if whole is not None:
        return [(end, whole)]
    if splits == 0:
        return None
    middle = (start + end) / 2
    first = await _pieces(compute, start, middle, rtol, splits - 1)
    second = None if first is None else await _pieces(compute, middle, end, rtol, splits - 1)
    return None if first is None or second is None else first + second


async def over_layers(compute: Compute, depth: int, rtol: float) -> Interpolant | None:
    """An interpolant on layers 0 .. depth; None where each layer has to be computed."""

    def place(count: int) -> np.ndarray:
        return chebyshev_layers(count, depth) if depth + 1 >= WORTHWHILE * count else np.empty(0, dtype=int)

    return await interpolate(compute, place, rtol)


def _largest_error(true: Ingredients, guess: Ingredients) -> float:
    """Largest error of ``guess``, relative to the largest entry of the same ingredient at the same depth."""
    worst = 0.0
    for name, value in true.items():
        axes = tuple(range(1, value.ndim))
        size, change = np.abs(value).max(axes), np.abs(guess[name] - value).max(axes)
        ratio = np.divide(change, size, out=np.where(change > 0, np.inf, 0.0), where=size > 0)
        worst = max(worst, float(np.nan_to_num(ratio, nan=np.inf).max()))
    return worst
