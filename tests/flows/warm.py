"""Commands that are forked from a process with everything imported, which takes a tenth of the time.

For tests of what a command does; how its process starts is tested with `shell` and COMMAND of conftest.py.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.reduction import DupFd
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer

import pytest

import ui
from flows.orchestration import surroundings

PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = [
    *("flows.cli", "flows.launch", "flows.run", "tests.flows.killed", "tests.flows.paused", "tests.flows.warm"),
    # what a study would import while it runs
    *("anyio._backends._asyncio", "fastapi", "matplotlib.figure", "matplotlib.backends.backend_agg", "prefect.cli"),
    *("prefect.flow_engine", "prefect.task_engine", "prefect.utilities.visualization", "rich.status", "torch"),
    # and its server
    *("prefect.server.api.server", "uvicorn", "uvicorn.protocols.http.httptools_impl", "uvicorn.loops.auto"),
]

SCRIPT = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as forks:
    forks.connect({address!r})
    files = [0, 1, 2, int(sys.argv[2])] if sys.argv[0].endswith({server!r}) else [0, 1, 2]
    socket.send_fds(forks, [b" "], files)
    forks.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    with forks.makefile() as answers:
        process = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os.kill(process, number))
        code = int(answers.readline())
sys.exit(code if code >= 0 else 128 - code)
"""
"""A command: it hands its arguments, folder, environment, input and output on, and ends as the forked process does."""


def processes() -> multiprocessing.context.ForkServerContext:
    """What makes processes that have imported everything, Prefect as `eft` has it imported."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main is not None and Path(main).is_relative_to(Path(ui.__file__).parent):
        raise RuntimeError(f"a test left {main} as the main module, which every forked process would run")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings.QUIET.items():
            patch.setenv(name, value)
        PROCESSES.set_forkserver_preload(PRELOADED)
        multiprocessing.forkserver.ensure_running()
    return PROCESSES


SERVER = "flows.orchestration.server"
"""Name of the command that serves Prefect, by which the process is known as a server."""

PYTHON = "python-warm"
"""Name of the command that stands in for Python: `PYTHON SCRIPT`, `PYTHON -m MODULE ...`, and `PYTHON -W error -` for a
program from its input."""

FLOW_RUNS = "WARM_FLOW_RUNS"
"""Environment variable: where it is set, Prefect starts the processes of flow runs with PYTHON, too."""


def _python() -> None:
    match sys.argv[1:]:
        case ["-m", module, *given]:
            sys.argv = [module, *given]
            runpy.run_module(module, run_name="__main__")
        case ["-W", "error", "-"]:
            warnings.simplefilter("error")
            sys.path.insert(0, "")
            exec(compile(sys.stdin.read(), "<program>", "exec"), {"__name__": "__main__"})
        case [script]:
            runpy.run_path(script, run_name="__main__")
        case given:
            raise ValueError(given)


def _carry_out(command: Sequence[str], folder: str, environment: dict[str, str], files: Sequence[DupFd]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    numbers = [file.detach() for file in files]
    for number, file in enumerate(numbers[:3]):
        os.dup2(file, number)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = [Path(command[0]).name, *command[1:]]
    from prefect.cli import app
    from prefect.context import refresh_global_settings_context

    from flows.cli import main
    from flows.orchestration import server

    refresh_global_settings_context()
    commands = Path(command[0]).parent
    server.COMMAND = (str(commands / SERVER),)
    if FLOW_RUNS in environment:
        sys.executable = str(commands / PYTHON)
    try:
        if sys.argv[0] == SERVER:
            server.serve(Path(command[1]), socket.socket(fileno=numbers[3]), server.Running(**json.loads(command[3])))
        else:
            {"eft": main, "prefect": app, PYTHON: _python}[sys.argv[0]]()
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


class _Fork(StreamRequestHandler):
    """One command that SCRIPT asks for: answers with the number of its process, then with its exit code.

    The process is killed with the one that asked for it.
    """

    def handle(self) -> None:
        _, descriptors, _, _ = socket.recv_fds(self.request, 1, 4)
        command, folder, environment = json.loads(self.rfile.readline())
        files = [DupFd(descriptor) for descriptor in descriptors]
        # nobody waits for a server when the tests end
        serves = Path(command[0]).name == SERVER
        process = processes().Process(target=_carry_out, args=(command, folder, environment, files), daemon=serves)
        process.start()
        for descriptor in descriptors:
            os.close(descriptor)
        self.wfile.write(f"{process.pid}\n".encode())
        if self.connection in multiprocessing.connection.wait([self.connection, process.sentinel]):
            process.kill()
        process.join()
        with suppress(BrokenPipeError):
            self.wfile.write(f"{process.exitcode}\n".encode())


@cache
def commands() -> Path:
    """A folder with commands for the PATH of a test, `eft`, `prefect` and PYTHON, and the one that serves Prefect."""
    folder = Path(tempfile.mkdtemp(prefix="eft-warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    forks = ThreadingUnixStreamServer(str(folder / "forks"), _Fork)
    forks.daemon_threads = True
    threading.Thread(target=forks.serve_forever, daemon=True).start()
    for name in ("eft", "prefect", PYTHON, SERVER):
        script = SCRIPT.format(python=sys.executable, address=str(folder / "forks"), server=SERVER)
        (folder / name).write_text(script)
        (folder / name).chmod(0o700)
    return folder


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """An eft command that runs."""
    command = [str(commands() / "eft"), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """An eft command until its end."""
    command = [str(commands() / "eft"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
