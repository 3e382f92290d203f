"""Waiting for the database and the store of a running study: they may restart, or be unreachable for a while.

A study whose database and store worked at its start does not fail because one of them is unavailable for a moment.
Reading and writing are tried again, with growing pauses, until EFT_PATIENCE seconds have passed without an answer.
"""

from __future__ import annotations

import errno
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Literal, ParamSpec, TypeVar, get_args

from sqlalchemy.exc import OperationalError

from db.errors import DatabaseMissing, DatabaseReadOnly, SchemaOutdated
from db.settings import settings
from eftcore.errors import EnvironmentProblem, OutOfMemory
from flows.work.places import StoreAway

SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 5.0

_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE}

Awaited = Literal["database", "store of results"]

Given = ParamSpec("Given")
Made = TypeVar("Made")


def may_pass(error: BaseException | None) -> bool:
    """Whether the same work may succeed a moment later: connections, locks and crowded systems, never wrong input.

    Looks through the chain of causes, since lower layers wrap what they caught.
    """
    while error is not None:
        if isinstance(error, DatabaseMissing | DatabaseReadOnly | SchemaOutdated):
            return False
        if isinstance(error, ConnectionError | TimeoutError | OperationalError | OutOfMemory | StoreAway):
            return True
        if isinstance(error, OSError) and error.errno in _PASSING:
            return True
        error = error.__cause__
    return False


class Patience:
    """Since when one of the two does not answer, shared by all threads of a study."""

    def __init__(self, awaited: Awaited) -> None:
        self.seconds = settings().patience
        self._awaited = awaited
        self._since: float | None = None
        self._changing = threading.Lock()

    def answered(self, asked: float) -> None:
        """Take note that it answered what was asked at this time; what was asked before it went away says nothing."""
        with self._changing:
            away = self._since is not None and asked >= self._since
            if away:
                self._since = None
        if away:
            print(f"eft: the {self._awaited} answers again", file=sys.stderr, flush=True)

    def goes_on(self, problem: EnvironmentProblem) -> bool:
        """Whether to try again; prints once why the study waits. After EFT_PATIENCE seconds no call waits any more."""
        now = time.monotonic()
        with self._changing:
            first = self._since is None
            since = self._since = now if self._since is None else self._since
        if first and self.seconds:
            print(f"eft: waiting up to {self.seconds:.0f} s: {problem}", file=sys.stderr, flush=True)
        return now - since < self.seconds


def _patiences() -> dict[Awaited, Patience]:
    return {awaited: Patience(awaited) for awaited in get_args(Awaited)}


_patience: ContextVar[dict[Awaited, Patience] | None] = ContextVar("patience", default=None)
_of_worker = lru_cache(maxsize=1)(_patiences)


@contextmanager
def patient() -> Iterator[None]:
    """Within the block, functions decorated by ``waits`` or ``waits_for_store`` wait for what does not answer."""
    with _within(_patiences()):
        yield


@contextmanager
def patient_worker() -> Iterator[None]:
    """The same for one task: with the patience of the study around it, or one that all tasks of a worker share."""
    with _within(_patience.get() or _of_worker()):
        yield


@contextmanager
def _within(patiences: dict[Awaited, Patience]) -> Iterator[None]:
    token = _patience.set(patiences)
    try:
        yield
    finally:
        _patience.reset(token)


def waits(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """A decorator: within ``patient`` the function is called again while the database does not answer."""
    return _waiting(function, "database", lambda problem: may_pass(problem) and not isinstance(problem, StoreAway))


def waits_for_store(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """A decorator: within ``patient`` the function is called again while the store of results does not answer."""
    return _waiting(function, "store of results", lambda problem: isinstance(problem, StoreAway))


def _waiting(
    function: Callable[Given, Made], awaited: Awaited, away: Callable[[EnvironmentProblem], bool]
) -> Callable[Given, Made]:
    @functools.wraps(function)
    def waiting(*arguments: Given.args, **options: Given.kwargs) -> Made:
        patiences, pause = _patience.get(), SHORTEST_PAUSE
        patience = None if patiences is None else patiences[awaited]
        while True:
            asked = time.monotonic()
            try:
                made = function(*arguments, **options)
            except EnvironmentProblem as problem:
                if patience is None or not away(problem) or not patience.goes_on(problem):
                    raise
            else:
                if patience is not None:
                    patience.answered(asked)
                return made
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return waiting
