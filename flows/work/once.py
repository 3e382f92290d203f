"""Each stored result is computed once: who computes it holds a claim to it in the results database.

So workers need no file system in common. Claims are renewed while their holder lives and expire by the clock of the
database; those of a process of the same machine that has ended do not count. If two processes compute one result all
the same, since one of them did not reach the database for minutes, they store the same numbers, each of them whole.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from functools import lru_cache

from db.session import Database
from db.settings import default_url
from db.writing import claims
from eftcore.errors import EnvironmentProblem
from flows.work.provenance import origin
from flows.work.store import ResultStore
from flows.work.waiting import waits

SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two looks for the result that another process computes."""


def compute_missing(store: ResultStore, work: Mapping[str, Callable[[], None]]) -> dict[str, Exception]:
    """Compute the results that are not stored, or wait for the processes that compute them now.

    Nothing is waited for while claims are held, so that no two processes wait for each other.

    Args:
        work: what computes and stores each result, by its digest.

    Returns:
        What was raised, by the digest of the result; the others are in the store.

    Raises EnvironmentProblem where the store or the database cannot be used.
    """
    left, failures, pause = dict(work), dict[str, Exception](), SHORTEST_PAUSE
    while left:
        with claimed(left) as ours:
            there = store.intact(ours)
            for digest in ours:
                compute = left.pop(digest)
                if digest not in there:
                    try:
                        compute()
                    except Exception as error:
                        failures[digest] = error
        if left:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            _release_dead()
    return failures


@contextmanager
def claimed(digests: Collection[str]) -> Iterator[list[str]]:
    """Claim results that are to be computed, in one short transaction; they are given up at the end of the block.

    Yields those that nobody else has claimed, in the order given. Within the block they count as claimed already, so
    that many small results can be claimed together and computed one by one. Do not wait in it for the others.
    """
    held = _held.get()
    new = [digest for digest in digests if digest not in held]
    if not new:
        yield list(digests)
        return
    holder = claims.new_holder()  # of this block alone, so that threads of one process are told apart
    ours = _claim(new, holder)
    token = _held.set(held | ours)
    try:
        with claims.heartbeat(_database(), holder) if ours else nullcontext():
            yield [digest for digest in digests if digest in held or digest in ours]
    finally:
        _held.reset(token)
        if ours:
            with suppress(EnvironmentProblem):  # they expire by themselves, and what was computed is stored
                _release(holder)


_held: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())
"""Digests of the results that the blocks of ``claimed`` around this one have claimed."""


@waits
def _claim(digests: Collection[str], holder: str) -> set[str]:
    return claims.claim_computing(_database(), digests, holder=holder, origin=origin())


@waits
def _release(holder: str) -> None:
    claims.release(_database(), holder)


@waits
def _release_dead() -> None:
    claims.release_dead(_database())


def _database() -> Database:
    return _opened(default_url(), os.getpid())


@lru_cache(maxsize=4)
def _opened(url: str, _process: int) -> Database:
    """The database of this process's claims, open until its end.

    A claim that a power cut undoes is missed by nobody, so none waits for the disk.
    """
    db = Database(url, durable=False)
    atexit.register(db.dispose)
    return db
