"""Task runners: Prefect's own on this machine, or prefect-dask on a cluster.

A simulation uses several threads. Each worker process gets its share of the processors, so that all processes together
do not use more threads than there are processors.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from prefect.events import related
from prefect.settings import PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from eftcore.errors import EnvironmentProblem
from flows.orchestration.cluster import CONNECT_SECONDS, tasks_at_a_time
from flows.orchestration.dispatch import Dispatcher
from flows.study.requests import Resources


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def dispatching(resources: Resources) -> Iterator[Dispatcher]:
    """A dispatcher with the requested task runner, which is shut down at the end of the block.

    Raises EnvironmentProblem when the Dask extra is missing, or its scheduler does not answer or has no workers.
    """
    runner, workers = _task_runner(resources)
    # each process would ask the server for its version; one that starts while the server is away would fail its task
    with temporary_settings({PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False}), runner:
        yield Dispatcher(runner, workers)


class Processes(ProcessPoolTaskRunner):
    """Prefect's worker processes, of which one ends when a task in it, or Prefect around the task, calls ``exit``.

    Prefect hands the SystemExit on to this process but never takes it there, so that the run would wait for ever. A
    worker process that ended is noticed, and the Dispatcher replaces it.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        assert self._executor is not None
        submit: Any = self._executor.submit
        self._executor.submit = lambda call: submit(_result_or_end, call)  # type: ignore[method-assign, assignment]
        return self


def _result_or_end(call: Callable[[], bytes]) -> bytes:
    """Called in a worker process: what the call returns; if the call exits, the process ends."""
    try:
        return call()
    except SystemExit:
        os._exit(1)


def _task_runner(resources: Resources) -> tuple[TaskRunner[Any], int]:
    workers = resources.workers or processors()
    if resources.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=workers), workers
    share = max(1, processors() // workers)
    if resources.runner == "processes":
        return Processes(max_workers=workers, initializer=start_worker, initargs=(share,)), workers
    return _dask(resources, workers, share)


def _dask(resources: Resources, workers: int, share: int) -> tuple[TaskRunner[Any], int]:
    try:
        from prefect_dask.task_runners import DaskTaskRunner

        logging.getLogger("distributed").setLevel(logging.ERROR)
    except ModuleNotFoundError as missing:
        raise EnvironmentProblem(
            f"needs the Python package {missing.name}",
            place="runner",
            value="dask",
            remedy="pip install 'resnet-eft[dask]'",
        ) from None
    if resources.dask_address is not None:
        # a scheduler that was lost and restarted does not know our tasks, so waiting for it is useless
        runner = DaskTaskRunner(address=resources.dask_address, client_kwargs={"timeout": CONNECT_SECONDS})
        return runner, tasks_at_a_time(resources.dask_address)
    cluster = {
        "security": True,  # certificates for this cluster only: other users of the machine could else run code in it
        "n_workers": workers,
        "threads_per_worker": 1,
        "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        "silence_logs": "CRITICAL",
        "env": _threads(share),
    }
    return DaskTaskRunner(cluster_class=_cluster, cluster_kwargs=cluster), workers


def _cluster(**options: Any) -> Any:
    """A Dask cluster on this machine, without the scheduler's HTTP routes, by which any user could retire workers."""
    import dask
    from distributed import LocalCluster

    with dask.config.set({"distributed.scheduler.http.routes": []}):
        return LocalCluster(**options)


def _threads(share: int) -> dict[str, str]:
    return {"NUMBA_NUM_THREADS": str(share), "OMP_NUM_THREADS": str(share)}


def start_worker(share: int) -> None:
    """Prepare a worker process: set its share of the processors, and let it end when the flow's process ends.

    Ctrl-C reaches all processes of a terminal; what it means is decided by the flow's process alone. Call this before
    anything imports numba or torch, which read the shares only once. The worker reports the outcome of tasks to the
    flow's process; only that process talks to the Prefect server.
    """
    os.environ.update(_threads(share))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    related._get_and_cache_related_object = _nothing_related  # type: ignore[assignment]
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, name="eft-follow-parent", daemon=True).start()


async def _nothing_related(**_about: Any) -> dict[str, Any]:
    """Replaces Prefect's request for the resources related to a flow run, for which the end of a task would wait."""
    return {}
