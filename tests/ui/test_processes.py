"""Computations in processes of their own: what each session gets, what ends, and that nothing outlives the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eftcore.errors import EnvironmentProblem, InputError
from ui import worker
from ui.processes import Computation, Processes

PATIENCE = 60


def busy(seconds: float) -> Iterator[tuple[str, Any]]:
    """What computes without a pause, as a prediction does, after it has told its process."""
    yield "process", os.getpid()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    yield "seconds", seconds


def refused() -> Iterator[tuple[str, Any]]:
    yield "first", 1
    raise InputError("is wrong", place="width", value=0)


def greedy() -> Iterator[tuple[str, Any]]:
    yield "length", len(bytearray(worker.MOST_MEMORY + 1))


@pytest.fixture(scope="module")
def present() -> set[str]:
    """The sessions that somebody looks at."""
    return set()


@pytest.fixture(scope="module")
def processes(present: set[str]) -> Processes:
    with pytest.MonkeyPatch.context() as patch:
        # what the processes compute is in this module
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        made = Processes(lambda session: session in present)
        made.ask("first", "first", busy, 0.0).wait(PATIENCE)
    return made


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _process(computation: Computation) -> int:
    """The process that computes, once it does."""
    _until(lambda: "process" in computation.parts)
    return int(computation.parts["process"])


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]


def test_parts_appear_while_it_computes_and_are_kept(processes: Processes, present: set[str]) -> None:
    present.add("a")
    found = processes.ask("a", "parts", busy, 0.5)
    process = _process(found)
    assert not found.done
    assert process != os.getpid()
    assert found.wait(PATIENCE)
    assert found.parts == {"process": process, "seconds": 0.5}
    assert processes.ask("b", "parts", busy, 0.5) is found


def test_another_question_of_a_session_ends_the_one_before(processes: Processes, present: set[str]) -> None:
    present |= {"a", "b"}
    old = processes.ask("a", "old", busy, 3600.0)
    process = _process(old)
    other = processes.ask("b", "other", busy, 3600.0)
    remaining = _process(other)
    assert processes.ask("a", "new", busy, 0.0).wait(PATIENCE)
    assert old.done
    _until(lambda: not _alive(process))
    assert not other.done
    assert _alive(remaining)
    processes.leave("b")
    _until(lambda: not _alive(remaining))
    assert not processes.known("other")


def test_what_two_sessions_wait_for_ends_with_the_last(processes: Processes, present: set[str]) -> None:
    present |= {"a", "b"}
    shared = processes.ask("a", "shared", busy, 3600.0)
    process = _process(shared)
    assert processes.ask("b", "shared", busy, 3600.0) is shared
    processes.leave("a")
    assert not shared.done
    assert _alive(process)
    present.remove("b")  # the tab is closed
    _until(lambda: shared.done)
    _until(lambda: not _alive(process))


def test_a_short_question_does_not_wait_for_long_ones(processes: Processes, present: set[str]) -> None:
    names = [f"long-{number}" for number in range(os.cpu_count() or 1)]
    present |= {*names, "a"}
    waiting = [processes.ask(name, name, busy, 3600.0, long=True) for name in names]
    _process(waiting[0])
    assert processes.ask("a", "short", busy, 0.0).wait(PATIENCE)
    assert not any(each.done for each in waiting)
    for name in names:
        processes.leave(name)


def test_what_goes_wrong_is_told(processes: Processes, present: set[str]) -> None:
    present.add("a")
    found = processes.ask("a", "refused", refused)
    assert found.wait(PATIENCE)
    assert found.parts == {"first": 1}
    assert isinstance(found.error, InputError)
    assert found.error.line == "width = 0: is wrong"
    found = processes.ask("a", "killed", busy, 3600.0)
    os.kill(_process(found), signal.SIGKILL)
    assert found.wait(PATIENCE)
    assert isinstance(found.error, EnvironmentProblem)
    assert processes.ask("a", "after", busy, 0.0).wait(PATIENCE), "another process takes its place"


def test_memory_is_limited(processes: Processes, present: set[str]) -> None:
    present.add("a")
    found = processes.ask("a", "greedy", greedy)
    assert found.wait(PATIENCE)
    assert str(found.error) == "prediction: it takes more than 4 GB of memory; take fewer inputs or layers"


def test_no_process_outlives_its_server() -> None:
    program = (
        "import time; from ui.processes import Processes; from tests.ui.test_processes import busy\n"
        "found = Processes(lambda session: True).ask('a', 'key', busy, 3600.0)\n"
        "while 'process' not in found.parts: time.sleep(0.02)\n"
        "print(found.parts['process'], flush=True); time.sleep(600)"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        process = int(server.stdout.readline())
        assert _alive(process)
        server.kill()
        server.wait()
        _until(lambda: not _alive(process))
