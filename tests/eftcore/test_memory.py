"""Memory limits are those of the machine, the container and the process, whichever is least."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest

from eftcore import memory
from eftcore.errors import InputError, OutOfMemory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 GB, of which 6 are free, without a container."""
    said = tmp_path / "meminfo"
    said.write_text("MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: 6000000 kB\n")
    monkeypatch.setattr(memory, "MACHINE", said)
    monkeypatch.setattr(memory, "CONTAINER", tmp_path / "cgroup")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return tmp_path / "cgroup"


def test_a_machine(machine: Path) -> None:
    assert (memory.limit(), memory.available()) == (8.192e9, 6.144e9)


@pytest.mark.parametrize(
    ("most", "used", "files"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_container(machine: Path, most: str, used: str, files: str) -> None:
    (machine / most).parent.mkdir(parents=True)
    (machine / most).write_text("3000000000\n")
    (machine / used).write_text("1500000000\n")
    (machine / used).with_name("memory.stat").write_text(f"cache 7\n{files} 500000000\n")
    assert (memory.limit(), memory.available()) == (3e9, 2e9)
    (machine / most).write_text("max\n")
    assert memory.limit() == 8.192e9


def test_a_process(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**9, 10**9))
    assert memory.limit() == 1e9
    assert 0 <= memory.available() < 1e9


def test_a_system_that_does_not_say(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MACHINE", machine / "absent")
    assert memory.limit() == memory.available() == math.inf


def test_too_much_is_refused_with_what_fits(machine: Path) -> None:
    memory.require(6e9, "it", place="kernel", fitting=str)
    with pytest.raises(
        OutOfMemory, match=r"it needs about 7 GB of memory, and 6\.14 GB are free; wait .* or 6144000000"
    ):
        memory.require(7e9, "it", place="kernel", fitting=lambda size: str(round(size)))
    with pytest.raises(InputError, match=r"9 GB of memory, and there are 8\.19 GB; 8192000000"):
        memory.require(9e9, "it", place="kernel", fitting=lambda size: str(round(size)))
