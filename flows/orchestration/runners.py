"""Who computes: Prefect's own task runners on this machine, or prefect-dask on a cluster.

A simulation uses several threads of its own. Each worker process gets its share of the processors, so that processes
together do not ask for more than there are.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

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
"""A Dask scheduler must answer within so long, also when it was lost."""


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def dispatching(resources: Resources) -> Iterator[Dispatcher]:
    """A dispatcher over the runner that is asked for, which ends with the block.

    Raises EnvironmentProblem when the Dask extra is missing, or its scheduler does not answer or has no workers.
    """
    runner, workers = _task_runner(resources)
    # each process would ask by itself, and one that begins while the server is away fail its task
    with temporary_settings({PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False}), runner:
        yield Dispatcher(runner, workers)


def _task_runner(resources: Resources) -> tuple[TaskRunner[Any], int]:
    workers = resources.workers or processors()
    if resources.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=workers), workers
    share = max(1, processors() // workers)
    if resources.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=workers, initializer=start_worker, initargs=(share,)), workers
    return _dask(resources, workers, share)


def _dask(resources: Resources, workers: int, share: int) -> tuple[TaskRunner[Any], int]:
    try:
        from prefect_dask.task_runners import DaskTaskRunner

        logging.getLogger("distributed").setLevel(logging.ERROR)
    except ModuleNotFoundError as missing:
        raise EnvironmentProblem(
            f"runner = 'dask' needs the Python package {missing.name}; pip install 'resnet-eft[dask]'"
        ) from None
    if resources.dask_address is not None:
        # a scheduler that is lost and comes back knows nothing of our tasks: no need to wait for it for long
        runner = DaskTaskRunner(address=resources.dask_address, client_kwargs={"timeout": CONNECT_SECONDS})
        return runner, _cluster_threads(resources.dask_address)
    cluster = {
        "security": True,  # certificates for this cluster alone: another user of the machine could run code in it
        "n_workers": workers,
        "threads_per_worker": 1,
        "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        "silence_logs": "CRITICAL",
        "env": _threads(share),
    }
    return DaskTaskRunner(cluster_class=_cluster, cluster_kwargs=cluster), workers


def _cluster(**options: Any) -> Any:
    """A Dask cluster on this machine whose scheduler answers nothing by HTTP, where any user could retire workers."""
    import dask
    from distributed import LocalCluster

    with dask.config.set({"distributed.scheduler.http.routes": []}):
        return LocalCluster(**options)


def _cluster_threads(address: str) -> int:
    """Tasks that a running cluster works on at a time, after a look whether its workers share our results."""
    from distributed import Client

    try:
        with Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client:
            threads: int = sum(client.nthreads().values())
            elsewhere = _without_our_home(client)
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"dask_address = {address!r}: no Dask scheduler answers there ({error}); check the address and start one "
            "with `dask scheduler`"
        ) from None
    if not threads:
        raise EnvironmentProblem(
            f"dask_address = {address!r}: the scheduler has no workers; start some with `dask worker {address}`"
        )
    if elsewhere:
        worker, home = next(iter(elsewhere.items()))
        raise EnvironmentProblem(
            f"dask worker {worker} keeps results in {home}, which is not {data_home()} of this command, or cannot be "
            "written there; start the workers with the same EFT_HOME, on a file system that all machines share"
        )
    return threads


def _without_our_home(client: Client) -> dict[str, str]:
    """Workers that do not share our folder of results, and theirs: paths may be equal and folders not.

    We make a folder there, each worker makes a file in it, and we look for the file.
    """
    folder = data_home() / f".shared-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder}: cannot be made ({error.strerror}); choose a folder for results with EFT_HOME=PATH"
        ) from error
    try:
        answers = client.run(_answer, folder.name)
        return {worker: home for worker, (name, home) in answers.items() if not (folder / name).exists()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(folder: str) -> tuple[str, str]:
    """Called on a worker: leave a file in the folder of that name, if it is there; the file's name, and our home."""
    name, home = secrets.token_hex(8), data_home()
    with suppress(OSError):
        (home / folder / name).touch()
    return name, str(home)


def _threads(share: int) -> dict[str, str]:
    return {"NUMBA_NUM_THREADS": str(share), "OMP_NUM_THREADS": str(share)}


def start_worker(share: int) -> None:
    """Begin the life of a worker process: its share of the processors, and an end when the flow's process ends.

    Call it before anything imports numba or torch, which read the shares once. What becomes of its tasks the process
    tells the flow's process, which alone talks to the Prefect server.
    """
    os.environ.update(_threads(share))
    related._get_and_cache_related_object = _nothing_related  # type: ignore[assignment]
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, name="eft-follow-parent", daemon=True).start()


async def _nothing_related(**_about: Any) -> dict[str, Any]:
    """In place of Prefect's question to the server what belongs to a flow run, which a task's end would wait for."""
    return {}
