"""Ending the process of a command: by Ctrl-C, by SIGTERM, or because the Prefect server is lost.

The code that runs then may turn an interrupt into another error, wait for a server that does not answer, or handle the
signal itself, as Prefect does while a flow runs. So a thread reads every signal, and ends the process if it has not
ended by itself after STOP_SECONDS. This is safe because results are written completely or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from eftcore.errors import EftError
from flows.orchestration.watch import ServerLost
from flows.work import recording

STOP_SECONDS = 3.0
"""Seconds between the signal and the end of the process; a second signal ends it at once."""

GIVE_UP_SECONDS = 2.0
"""Seconds that the database may take at the end to mark runs as stale; an interrupted transaction may hold its lock.
Runs that were not marked are marked by the next command."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_within = threading.Event()
_ending = threading.Lock()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, run by the main thread, Ctrl-C, SIGTERM and a lost Prefect server end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    interrupted = False
    reading, writing = socket.socketpair()
    writing.setblocking(False)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    def read() -> None:
        while numbers := reading.recv(1):
            if numbers[0] in _SIGNALS:
                came.append(numbers[0])
                if len(came) > 1:
                    _end_interrupted(came[0])
                timer = threading.Timer(STOP_SECONDS, _end_interrupted, args=(came[0],))
                timer.daemon = True
                timer.start()

    reader = threading.Thread(target=read, name="eft-signals", daemon=True)
    reader.start()
    handlers = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    error: BaseException | None = None
    _within.set()
    try:
        yield
    except BaseException as caught:
        error = caught
    signal.set_wakeup_fd(before)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    writing.close()
    reader.join()
    reading.close()
    if came:
        _end_interrupted(came[0])
    if isinstance(error, ServerLost):
        end_command(error)  # Prefect would wait long for the server when Python ends
    _within.clear()
    if error is not None:
        raise error


def end_command(problem: EftError) -> None:
    """Within ``stoppable``, end the process for this reason, from any thread; outside of it, do nothing."""
    if _within.is_set():
        _end(1, f"eft: {problem}")


def _end_interrupted(number: int) -> NoReturn:
    command = shlex.join(["eft", *sys.argv[1:]])
    _end(
        128 + number,
        f"\neft: interrupted; finished work is kept, the same command goes on from there: {command}",
    )


def _end(code: int, said: str) -> NoReturn:
    """End the process without waiting for compiled code; its locks, server and worker processes then end too."""
    _ending.acquire()  # a second caller waits here until the process ends
    noting = threading.Thread(target=_give_up, daemon=True)
    noting.start()
    noting.join(GIVE_UP_SECONDS)
    print(said, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def _give_up() -> None:
    """Mark runs as stale once more: a task that ended just now may have marked its run as running."""
    with contextlib.suppress(Exception):
        recording.give_up()
