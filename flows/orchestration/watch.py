"""Watching the Prefect server that a command uses: it may be killed, hang, or be unreachable for a while.

The computations of a study do not depend on the server: tasks begin and end without it, and our own store holds their
results. Only the beginning and the end of a flow run wait for its answer.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache

from db.addresses import shown
from db.settings import settings
from eftcore.errors import EftError, EnvironmentProblem

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 5.0
FAILURES = 3
"""Number of requests in a row without an answer after which the server counts as lost."""


SERVER = "Prefect server"
"""Place of an error about a Prefect server."""


class ServerLost(EnvironmentProblem):
    """The Prefect server went away during a run and did not come back."""


@cache
def _certificates() -> ssl.SSLContext:
    """The authorities that httpx trusts, read once, since that takes longer than a request."""
    import httpx

    return httpx.create_ssl_context()


def answers(url: str) -> bool:
    """Whether a server answers at the address of a Prefect API; the request for its health needs no key."""
    import httpx

    try:
        health = httpx.get(f"{url.rstrip('/')}/health", timeout=ANSWER_SECONDS, verify=_certificates())
        return not health.is_server_error
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def watched(
    url: str, start_again: Callable[[], object] | None, give_up: Callable[[ServerLost], None]
) -> Iterator[None]:
    """While the block runs, check every second whether the server answers.

    Args:
        start_again: starts a local server at the same address, or raises EnvironmentProblem; None for a server that is
            not local: then its return is awaited.
        give_up: called, in another thread, when the server does not start or does not return in time.

    Raises ServerLost in place of the error of a block that failed because the server does not answer.
    """
    watch = _Watch(url, start_again, give_up)
    thread = threading.Thread(target=watch.look, name="eft-watch-server", daemon=True)
    thread.start()
    try:
        yield
    except EftError:
        raise
    except Exception as error:
        if watch.away:
            raise watch.problem() from error
        raise
    finally:
        watch.stop.set()
        thread.join()


class _Watch:
    def __init__(
        self, url: str, start_again: Callable[[], object] | None, give_up: Callable[[ServerLost], None]
    ) -> None:
        self.url, self._start_again, self._give_up = url, start_again, give_up
        self._patience = settings().patience
        self.stop = threading.Event()
        self.away = False

    def look(self) -> None:
        failures, answered = 0, time.monotonic()
        while not self.stop.wait(LOOK_SECONDS):
            if answers(self.url):
                if self.away:
                    self._say("answers again")
                self.away, failures, answered = False, 0, time.monotonic()
                continue
            failures += 1
            if failures < FAILURES:
                continue
            if self._start_again is not None:
                self.away = True
                try:
                    self._start_again()
                except EnvironmentProblem as problem:
                    self._give_up(self.problem(f" and could not be started again ({problem})"))
                    return
                self._say("was lost and is started again")
                self.away, failures = False, 0
            elif not self.away:
                self.away = True
                self._say(f"does not answer; the work goes on, and waits up to {self._patience:.0f} s for it")
            elif time.monotonic() - answered > self._patience:
                self._give_up(self.problem())
                return

    def problem(self, more: str = "") -> ServerLost:
        return ServerLost(
            f"was lost{more}",
            place=SERVER,
            value=shown(self.url),
            remedy="finished work is kept, the same command goes on from there",
        )

    def _say(self, what: str) -> None:
        print(f"eft: the Prefect server at {shown(self.url)} {what}", file=sys.stderr, flush=True)
