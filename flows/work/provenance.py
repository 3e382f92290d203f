"""Provenance of results: recorded beside a result, never part of its identity."""

from __future__ import annotations

import platform
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("resnet-eft", "numpy", "scipy", "numba", "torch", "pandas", "prefect", "sqlalchemy")


_origin: ContextVar[dict[str, str | None] | None] = ContextVar("origin", default=None)


@contextmanager
def made_by(*, flow_run_id: str | None, task_run_id: str | None = None) -> Iterator[None]:
    """Let the provenance of results computed within the block name these runs of Prefect."""
    token = _origin.set({"flow_run_id": flow_run_id, "task_run_id": task_run_id})
    try:
        yield
    finally:
        _origin.reset(token)


def origin() -> dict[str, str | None]:
    """The runs of Prefect that this context belongs to, as keys of a provenance record; empty outside of runs."""
    return _origin.get() or {}


@contextmanager
def timed(*, device: str = "cpu", seed: int | None = None) -> Iterator[dict[str, Any]]:
    """A provenance record of the block: start, host, versions and commit at its start, elapsed time at its end."""
    record: dict[str, Any] = {
        **_source(),
        "versions": _versions(),
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "device": device,
        "seed": seed,
        "started_at": datetime.now(UTC).isoformat(),
        **origin(),
    }
    start = time.perf_counter()
    yield record
    record["worker_seconds"] = record["elapsed_seconds"] = round(time.perf_counter() - start, 6)


def of_parts(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The provenance of a sum: total work of its parts, and the time from the first start to the last end."""
    starts = [datetime.fromisoformat(part["started_at"]) for part in parts]
    ends = [start + timedelta(seconds=part["elapsed_seconds"]) for start, part in zip(starts, parts, strict=True)]
    return {
        **parts[0],
        **origin(),
        "started_at": min(starts).isoformat(),
        "worker_seconds": sum(part["worker_seconds"] for part in parts),
        "elapsed_seconds": round((max(ends) - min(starts)).total_seconds(), 6),
    }


def as_now(record: dict[str, Any], parts: int = 1) -> dict[str, Any]:
    """A provenance record in the present form. Older versions stored the sum of the times of all ``parts`` only."""
    older = dict(record)
    seconds = older.pop("wall_seconds", None)
    if seconds is None:
        return record
    return {**older, "worker_seconds": seconds, "elapsed_seconds": seconds if parts == 1 else None}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def _source() -> dict[str, Any]:
    """Commit of the checkout that the code runs from; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"git_commit": commit, "git_dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def _git(root: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return run.stdout.strip()
