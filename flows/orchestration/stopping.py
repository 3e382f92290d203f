"""Ending the process of a command: by Ctrl-C, by SIGTERM, or because a server that it needs is gone.

What runs then may turn an interrupt into an error of its own, wait for a server that does not answer, or handle the
signal in its own way, as Prefect does while a flow runs. So a thread reads every signal that comes, and ends the
process when it has not ended by itself after STOP_SECONDS. Results are written whole or not at all.
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
"""Between the signal and the end of the process; a second signal ends it at once."""

GIVE_UP_SECONDS = 2.0
"""How long the database may take, at the end, to note that runs are stale: what holds its lock may be what was cut off.
Without the note the next command finds them so."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_within = threading.Event()
_ending = threading.Lock()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a lost Prefect server end the process, if its main thread runs this block."""
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
        end_command(error)  # what waits for the server at the end of Python would wait long
    _within.clear()
    if error is not None:
        raise error


def end_command(problem: EftError) -> None:
    """Within ``stoppable``, end the process for this reason, from any thread; elsewhere it is not ours to end."""
    if _within.is_set():
        _end(1, f"eft: {problem}")


def _end_interrupted(number: int) -> NoReturn:
    command = shlex.join(["eft", *sys.argv[1:]])
    _end(
        128 + number,
        f"\neft: interrupted; finished work is kept, the same command goes on from there: {command}",
    )


def _end(code: int, said: str) -> NoReturn:
    """End without waiting for compiled code. Locks, the server and worker processes follow by themselves."""
    _ending.acquire()  # who comes second waits for the end
    noting = threading.Thread(target=_give_up, daemon=True)
    noting.start()
    noting.join(GIVE_UP_SECONDS)
    print(said, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def _give_up() -> None:
    """The last word: a task that ended a moment ago may have marked its run as running again."""
    with contextlib.suppress(Exception):
        recording.give_up()
