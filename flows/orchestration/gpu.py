"""One task at a time on each GPU, whoever started it: a global concurrency limit of the Prefect server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LEASE_SECONDS = 60.0
"""After kill -9 of its user, a GPU is free again after so long."""


def limit_name() -> str:
    """Name of the limit of the GPU that this process uses: ``gpu-HOST-NUMBER``."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    return f"gpu-{socket.gethostname()}-{first}"


@contextmanager
def alone(device: str) -> Iterator[None]:
    """Use ``device`` within the block, alone when it is a GPU ("cuda"). Call it within a task run."""
    if device != "cuda":
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectAlreadyExists

    name = limit_name()
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # by another task just now
        client.upsert_global_concurrency_limit_by_name(name, limit=1)
    with concurrency(name, occupy=1, strict=True, lease_duration=LEASE_SECONDS):
        yield
