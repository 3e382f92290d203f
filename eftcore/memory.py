"""How much memory there is for a computation: of the machine, of the container, and of what the process may have.

Where a system does not say, a limit is taken to be absent.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from pathlib import Path

from eftcore.errors import InputError, OutOfMemory

MACHINE = Path("/proc/meminfo")
PROCESS = Path("/proc/self/statm")
CONTAINER = Path("/sys/fs/cgroup")
_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Where Linux says what a container may have, uses, and uses for files only as long as nothing else wants it; in the
second and in the first version of control groups."""


def gigabytes(size: float) -> str:
    """
    >>> gigabytes(2.5e9)
    '2.5 GB'
    """
    return f"{size / 1e9:.3g} GB"


def limit() -> float:
    """Bytes that a process can have at most when nothing else runs; infinite where the system does not say."""
    return min(_named(MACHINE, "MemTotal:", math.inf) * 1024, _allowed(), *(_number(most) for most, *_ in _FILES))


def available() -> float:
    """Bytes that can be had now, without swapping; infinite where the system does not say."""
    container = [
        _number(most) - _number(used, 0.0) + _named(CONTAINER / said, files, 0.0) for most, used, said, files in _FILES
    ]
    left = _allowed() - _pages() * resource.getpagesize()
    return max(min(_named(MACHINE, "MemAvailable:", math.inf) * 1024, left, *container), 0.0)


def require(size: float, what: str, *, place: str, fitting: Callable[[float], str]) -> None:
    """Refuse a computation that needs more bytes than there are.

    ``what`` names it, and ``fitting`` says what would fit into a number of bytes. Raises InputError where the machine
    has too little memory, and OutOfMemory where only too little of it is free.
    """
    if size > (most := limit()):
        raise InputError(
            f"{what} needs about {gigabytes(size)} of memory, and there are {gigabytes(most)}",
            place=place,
            remedy=fitting(most),
        )
    if size > (free := available()):
        raise OutOfMemory(
            f"{what} needs about {gigabytes(size)} of memory, and {gigabytes(free)} are free",
            place=place,
            remedy=f"wait until more is free, or {fitting(free)}",
        )


def _named(path: Path, name: str, absent: float) -> float:
    """The number beside a name, one to a line."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return absent
    return next((float(line[1]) for line in lines if line and line[0] == name), absent)


def _number(name: str, absent: float = math.inf) -> float:
    try:
        said = (CONTAINER / name).read_text().strip()
    except OSError:
        return absent
    return float(said) if said.isdigit() else absent


def _allowed() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if soft == resource.RLIM_INFINITY else float(soft)


def _pages() -> int:
    try:
        return int(PROCESS.read_text().split()[0])
    except OSError:
        return 0
