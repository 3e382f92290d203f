"""Putting consecutive items together up to a size, for work that is done many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batched(
    items: Iterable[Item], size: Callable[[Item], float], limit: float, most: int | None = None
) -> Iterator[list[Item]]:
    """Consecutive items whose sizes add up to at most ``limit``, at most so many; one that is larger is alone.

    >>> list(batched([1, 1, 1, 5, 1], float, limit=2))
    [[1, 1], [1], [5], [1]]
    """
    batch: list[Item] = []
    held = 0.0
    for item in items:
        more = size(item)
        if batch and (held + more > limit or len(batch) == most):
            yield batch
            batch, held = [], 0.0
        batch.append(item)
        held += more
    if batch:
        yield batch
