"""A process of the explorer that computes: `python -m ui.worker FD`, started by ui/processes.py.

It serves one request after the other over the socket FD: a generator function and its arguments; what the function
yields is sent back at once, and then how it ended. It ends with the process that started it, however that one ends.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from eftcore.errors import EnvironmentProblem

MOST_MEMORY = 4 * 10**9
"""Bytes that computations may take beyond what the idle process has."""

_DEATH_OF_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def main() -> None:
    """Serve requests until the other end closes the socket."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_DEATH_OF_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it ended before
    connection = Connection(int(sys.argv[1]))
    _warm_up()
    limit_memory(MOST_MEMORY)
    while True:
        try:
            work, arguments = connection.recv()
        except EOFError:
            return
        for part in served(work, arguments):
            connection.send(part)


def served(work: Any, arguments: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """ "part" with each value that the work yields, then "end" with None or with the exception that ended it."""
    try:
        for part in work(*arguments):
            yield "part", part
    except MemoryError:
        said = f"it takes more than {MOST_MEMORY / 1e9:g} GB of memory"
        yield "end", EnvironmentProblem(said, place="prediction", remedy="take fewer inputs or layers")
    except Exception as error:
        yield "end", error
    else:
        yield "end", None


def limit_memory(more: int) -> None:
    """Let this process have so many bytes beyond its present ones; what asks for more gets a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))


def _warm_up() -> None:
    """Import and load what the first request would otherwise wait for."""
    import eftcore as eft
    import ui.data.predict  # noqa: F401

    model = eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=2)
    eft.predict(model, eft.InputKernel.explicit([[1.0]]), "exact", next_order=True, truncation=0.05)


if __name__ == "__main__":
    main()
