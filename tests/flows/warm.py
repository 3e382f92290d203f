"""The eft command in a process that is forked from one with everything imported, which takes a tenth of the time.

For tests of what a command does; how its process starts is tested with `shell` and COMMAND of conftest.py.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from subprocess import CompletedProcess
from typing import IO

import pytest

from flows.orchestration import surroundings

PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["flows.cli", "flows.launch", "flows.run", "tests.flows.killed", "tests.flows.paused", "tests.flows.warm"]


def processes() -> multiprocessing.context.ForkServerContext:
    """What makes processes that have imported everything, Prefect as `eft` has it imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings.QUIET.items():
            patch.setenv(name, value)
        PROCESSES.set_forkserver_preload(PRELOADED)
        multiprocessing.forkserver.ensure_running()
    return PROCESSES


def _carry_out(arguments: Sequence[str], environment: dict[str, str], out: Connection, err: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, pipe in ((1, out), (2, err)):
        os.dup2(pipe.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["eft", *arguments]
    from prefect.context import refresh_global_settings_context

    from flows.cli import main

    refresh_global_settings_context()
    try:
        main(arguments)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


class Command:
    """An eft command that runs, to be used as a subprocess.Popen with pipes."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        pipes = [PROCESSES.Pipe(duplex=False) for _ in range(2)]
        given = (arguments, environment, *(writing for _, writing in pipes))
        self._process = processes().Process(target=_carry_out, args=given)
        self._process.start()
        self.stdout, self.stderr = (_text(reading, writing) for reading, writing in pipes)

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while the command runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As returncode."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self._process.pid or 0, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it says from now on until its end. Raises TimeoutError."""
        with ThreadPoolExecutor() as threads:
            said = [threads.submit(_rest, pipe) for pipe in (self.stdout, self.stderr)]
            self._process.join(timeout)
            if self._process.exitcode is None:
                self._process.kill()
                raise TimeoutError(f"it runs for more than {timeout} s: {[text.result() for text in said]}")
            return said[0].result(), said[1].result()


def _text(reading: Connection, writing: Connection) -> IO[str]:
    writing.close()
    with reading:
        return os.fdopen(os.dup(reading.fileno()), encoding="utf-8")


def _rest(pipe: IO[str]) -> str:
    with pipe:
        return pipe.read()


def run(environment: dict[str, str], *arguments: str) -> CompletedProcess[str]:
    """A command until its end."""
    command = Command(environment, *arguments)
    out, err = command.communicate()
    code = command.returncode
    assert code is not None
    return CompletedProcess(["eft", *arguments], code, out, err)
