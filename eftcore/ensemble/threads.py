"""Several threads for compiled functions, which release Python's global lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from numba import config

_PARTS = 4
"""Number of parts of the work for each thread: with other programs on the machine, threads are not equally fast."""


def thread_count() -> int:
    """Number of processors that this process may use, or NUMBA_NUM_THREADS where that is set."""
    return int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Call work(first, last) on consecutive parts of range(count); it must not matter which thread does which part.

    An exception in one part, or an interruption, drops the parts that have not begun.

    >>> done = []
    >>> in_threads(lambda first, last: done.extend(range(first, last)), 5)
    >>> sorted(done)
    [0, 1, 2, 3, 4]
    """
    threads = thread_count()
    parts = min(count, _PARTS * threads) if threads > 1 else 1
    edges = [part * count // parts for part in range(parts + 1)] if count else []
    if parts == 1:
        work(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, edges[:-1], edges[1:]):
            pass
