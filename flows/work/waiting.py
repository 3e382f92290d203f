"""Waiting for the database of a running study: it may restart, or be unreachable for a while.

A study whose database worked at its start does not fail because the database is unavailable for a moment. Reading and
writing are tried again, with growing pauses, until EFT_PATIENCE seconds have passed without an answer.
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
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import OperationalError

from db.errors import DatabaseMissing, DatabaseReadOnly, SchemaOutdated
from db.settings import settings
from eftcore.errors import EnvironmentProblem, OutOfMemory

SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 5.0

_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE}

Given = ParamSpec("Given")
Made = TypeVar("Made")


def may_pass(error: BaseException | None) -> bool:
    """Whether the same work may succeed a moment later: connections, locks and crowded systems, never wrong input.

    Looks through the chain of causes, since lower layers wrap what they caught.
    """
    while error is not None:
        if isinstance(error, DatabaseMissing | DatabaseReadOnly | SchemaOutdated):
            return False
        if isinstance(error, ConnectionError | TimeoutError | OperationalError | OutOfMemory):
            return True
        if isinstance(error, OSError) and error.errno in _PASSING:
            return True
        error = error.__cause__
    return False


class Patience:
    """Since when the database does not answer, shared by all threads of a study."""

    def __init__(self) -> None:
        self.seconds = settings().patience
        self._since: float | None = None
        self._changing = threading.Lock()

    def answered(self) -> None:
        """Take note that the database answered."""
        with self._changing:
            away, self._since = self._since is not None, None
        if away:
            print("eft: the database answers again", file=sys.stderr, flush=True)

    def goes_on(self, problem: EnvironmentProblem) -> bool:
        """Whether to try again; prints once why the study waits. After EFT_PATIENCE seconds no call waits any more."""
        now = time.monotonic()
        with self._changing:
            first = self._since is None
            since = self._since = now if self._since is None else self._since
        if first and self.seconds:
            print(f"eft: waiting up to {self.seconds:.0f} s: {problem}", file=sys.stderr, flush=True)
        return now - since < self.seconds


_patience: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patient() -> Iterator[None]:
    """Within the block, functions decorated by ``waits`` wait for a database that does not answer."""
    token = _patience.set(Patience())
    try:
        yield
    finally:
        _patience.reset(token)


def waits(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """A decorator: within ``patient`` the function is called again while the database does not answer."""

    @functools.wraps(function)
    def waiting(*arguments: Given.args, **options: Given.kwargs) -> Made:
        patience, pause = _patience.get(), SHORTEST_PAUSE
        while True:
            try:
                made = function(*arguments, **options)
            except EnvironmentProblem as problem:
                if patience is None or not may_pass(problem) or not patience.goes_on(problem):
                    raise
            else:
                if patience is not None:
                    patience.answered()
                return made
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return waiting
