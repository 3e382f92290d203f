"""Task runners: Prefect's own on this machine, or prefect-dask on a cluster.

A simulation uses several threads. Each worker process gets its share of the processors, so that all processes together
do not use more threads than there are processors.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from prefect.events import related
from prefect.settings import PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from db.settings import data_home
from eftcore.errors import EnvironmentProblem
from flows.orchestration.dispatch import Dispatcher
from flows.study.requests import Resources

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
"""Seconds within which a Dask scheduler must answer, also after the connection was lost."""


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
        return runner, _cluster_threads(resources.dask_address)
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


def _cluster_threads(address: str) -> int:
    """Number of tasks that a running cluster executes at a time; checks that workers share our folder of results."""
    from distributed import Client

    try:
        with Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client:
            threads: int = sum(client.nthreads().values())
            elsewhere = _without_our_home(client)
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"no Dask scheduler answers there ({error})",
            place="dask_address",
            value=address,
            remedy="check the address and start one with `dask scheduler`",
        ) from None
    if not threads:
        raise EnvironmentProblem(
            "the scheduler has no workers",
            place="dask_address",
            value=address,
            remedy=f"start some with `dask worker {address}`",
        )
    if elsewhere:
        worker, home = next(iter(elsewhere.items()))
        raise EnvironmentProblem(
            f"keeps results in {home}, which is not {data_home()} of this command, or cannot be written there",
            place="Dask worker",
            value=worker,
            remedy="start the workers with the same EFT_HOME, on a file system that all machines share",
        )
    return threads


def _without_our_home(client: Client) -> dict[str, str]:
    """Workers that do not share our folder of results, with the path of theirs.

    Equal paths may be different folders on two machines. So a folder is made in ours, each worker makes a file in it,
    and we look for the file.
    """
    folder = data_home() / f".shared-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot be made ({error.strerror})", place=folder, remedy="choose a folder for results with EFT_HOME=PATH"
        ) from error
    try:
        answers = client.run(_answer, folder.name)
        return {worker: home for worker, (name, home) in answers.items() if not (folder / name).exists()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(folder: str) -> tuple[str, str]:
    """Called on a worker: make a file in this folder if it exists; returns its name and the worker's EFT_HOME."""
    name, home = secrets.token_hex(8), data_home()
    with suppress(OSError):
        (home / folder / name).touch()
    return name, str(home)


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
