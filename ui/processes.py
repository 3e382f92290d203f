"""Computations of the explorer in processes of their own, so that no page waits for another one's.

Each session has one computation at a time. A computation ends when its session asks for another one, and when nobody
who asked for it is there any more; its process is then killed, whatever it is doing. Results are kept, and sessions
that ask for the same share them. Nothing here uses Streamlit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Pipe
from multiprocessing.reduction import ForkingPickler
from typing import Any

from eftcore.errors import EnvironmentProblem

MOST_LONG = max(1, (os.cpu_count() or 1) - 1)
MOST_SHORT = 4
"""Computations at a time. Short ones do not wait for long ones."""

MOST_KEPT = 256 * 10**6
"""Bytes of results that are kept; the oldest go first."""

GRACE_SECONDS = 3.0
"""A session that was away for longer is gone: a short one may be a lost connection, or a page that is loaded anew."""

LOOK_SECONDS = 0.5

RETRY_SECONDS = 30.0
"""What the computer did not allow is tried again when it is asked for so long after it began."""

Work = Callable[..., Iterator[tuple[str, Any]]]
"""What computes: yields results by name, one after the other. A function of a module, since it is sent by its name."""


class Computation:
    """What a session asked for. Parts appear while it runs.

    Attributes:
        parts: results so far, by name.
        error: what ended it early; None otherwise.
        done: whether nothing more will come.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.parts: dict[str, Any] = {}
        self.error: Exception | None = None
        self.done = False
        self.size = 0
        self.started: float | None = None
        self._seen: dict[str, float] = {}
        self._worker: _Worker | None = None
        self._ended = threading.Event()

    @property
    def seconds(self) -> float:
        """Seconds since a process began with it; 0 while it waits for one."""
        return 0.0 if self.started is None else time.monotonic() - self.started

    @property
    def may_be_tried_again(self) -> bool:
        """Whether it failed for a reason outside of itself, some time ago."""
        return self.done and isinstance(self.error, EnvironmentProblem) and self.seconds > RETRY_SECONDS

    def finish(self, error: Exception | None = None) -> None:
        """Nothing more will come."""
        self.error, self.done = error, True
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is done, after at most so many seconds."""
        return self._ended.wait(seconds)


class _Worker:
    """A process of ui/worker.py and the socket to it."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "ui.worker", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


class Processes:
    """The processes of one server and what they compute.

    ``is_there`` says whether somebody still looks at the pages of a session.
    """

    def __init__(self, is_there: Callable[[str], bool]) -> None:
        self._is_there = is_there
        self._lock = threading.Lock()
        self._known: dict[str, Computation] = {}
        self._short, self._long = threading.Semaphore(MOST_SHORT), threading.Semaphore(MOST_LONG)
        # a process ends with the thread that started it: this one lives as long as the server
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="eft-starter")
        self._idle: list[_Worker] = []
        self._prepare()
        threading.Thread(target=self._watch, name="eft-watch", daemon=True).start()

    def ask(self, session: str, key: str, work: Work, *arguments: Any, long: bool = False) -> Computation:
        """The computation of this key, begun unless it is there; another one that the session waits for ends.

        Returns at once. ``long`` says that it is expected to take more than a few seconds.
        """
        with self._lock:
            for other in self._running():
                if other.key != key:
                    other._seen.pop(session, None)
                    self._end_if_unwanted(other)
            found = self._known.get(key)
            if found is None or found.may_be_tried_again:
                found = self._known[key] = Computation(key)
                slots = self._long if long else self._short
                threading.Thread(target=self._run, args=(slots, found, work, arguments), daemon=True).start()
            else:
                self._known[key] = self._known.pop(key)  # the youngest
            found._seen[session] = time.monotonic()
        return found

    def known(self, key: str) -> bool:
        """Whether the computation of this key is there, running or done."""
        return key in self._known

    def leave(self, session: str) -> None:
        """End what the session waits for, unless somebody else does."""
        with self._lock:
            for each in self._running():
                each._seen.pop(session, None)
                self._end_if_unwanted(each)

    def _running(self) -> list[Computation]:
        return [each for each in self._known.values() if not each.done]

    def _end_if_unwanted(self, computation: Computation) -> None:
        if computation._seen:
            return
        del self._known[computation.key]
        computation.finish()
        if computation._worker is not None:
            computation._worker.process.kill()

    def _watch(self) -> None:
        """Forget sessions that are gone; ends what only they asked for."""
        while True:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            with self._lock:
                for each in self._running():
                    each._seen |= {session: now for session in each._seen if self._is_there(session)}
                    each._seen = {s: seen for s, seen in each._seen.items() if now - seen < GRACE_SECONDS}
                    self._end_if_unwanted(each)

    def _prepare(self) -> None:
        """Start a process that waits for work, in the background."""
        with suppress(RuntimeError):  # the server is ending
            self._starter.submit(lambda: self._idle.append(_Worker()))

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.process.poll() is None:
                    return worker
        return self._starter.submit(_Worker).result()

    def _run(
        self, slots: threading.Semaphore, computation: Computation, work: Work, arguments: tuple[Any, ...]
    ) -> None:
        with slots:
            if computation.done:
                return
            worker = self._take()
            with self._lock:
                computation._worker, computation.started = worker, time.monotonic()
            if not computation.done:
                self._receive(computation, worker, work, arguments)
            with self._lock:
                computation._worker = None
                unwanted = computation.done
                if not unwanted:
                    computation.finish(computation.error)
                    self._forget_oldest()
                usable = not unwanted and not isinstance(computation.error, EnvironmentProblem)
                if usable:
                    self._idle.append(worker)
            if not usable:
                worker.kill()
                self._prepare()

    def _receive(self, computation: Computation, worker: _Worker, work: Work, arguments: tuple[Any, ...]) -> None:
        """Fill the parts of a computation, and its error, until it ends or its process does."""
        try:
            worker.connection.send((work, arguments))
            while True:
                content = worker.connection.recv_bytes()
                kind, value = ForkingPickler.loads(content)
                if kind == "end":
                    computation.error = value
                    return
                computation.size += len(content)
                computation.parts = {**computation.parts, value[0]: value[1]}
        except (EOFError, OSError):
            reason = "its process was ended, perhaps for lack of memory"
            computation.error = EnvironmentProblem(reason, place="prediction", remedy="take fewer inputs or layers")

    def _forget_oldest(self) -> None:
        """Keep the results that were asked for last."""
        for key, each in list(self._known.items())[:-1]:
            if each.done and sum(other.size for other in self._known.values()) > MOST_KEPT:
                del self._known[key]
