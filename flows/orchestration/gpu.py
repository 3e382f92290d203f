"""One task at a time on each GPU, whichever flow started it, by a global concurrency limit of the Prefect server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LEASE_SECONDS = 60.0
"""Seconds after which the limit releases a GPU whose process was killed."""


def limit_name() -> str:
    """Name of the concurrency limit for the GPU that this process uses: ``gpu-HOST-NUMBER``."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    return f"gpu-{socket.gethostname()}-{first}"


@contextmanager
def alone(device: str) -> Iterator[None]:
    """Within the block no other task uses ``device`` if it is a GPU ("cuda"). Call it within a task run."""
    if device != "cuda":
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectAlreadyExists

    name = limit_name()
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # another task may have just created it
        client.upsert_global_concurrency_limit_by_name(name, limit=1)
    with concurrency(name, occupy=1, strict=True, lease_duration=LEASE_SECONDS):
        yield
