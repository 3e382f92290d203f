"""Who computes does not matter: threads, processes, a Dask cluster and PostgreSQL give the same digits."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import prefect
import psutil
import pytest
import sqlalchemy as sa

from db.reading import queries
from db.session import Database
from db.settings import default_url
from db.upkeep import migrate
from eftcore.errors import EnvironmentProblem, InputError
from flows.orchestration.runners import dispatching
from flows.study.requests import Resources, StudyRequest
from tests.flows.conftest import FREE_PORT, TINY

STUDY = TINY.replace("samples = 4096", "samples = 150_000")
"""Three shards at each of two widths."""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def _run(study: Path, **resources: object) -> None:
    from flows.run import run_study

    summary = run_study(StudyRequest(study=str(study)), Resources(**resources))
    assert summary.failures == []


def _arrays(home: Path) -> dict[str, dict[str, np.ndarray]]:
    """Everything that the study computed, by digest; descriptions (time, host) left out."""
    found = {}
    for path in sorted(home.glob("arrays/*/*.npz")):
        with np.load(path) as archive:
            found[path.stem] = {name: archive[name] for name in archive.files if name != "meta.json"}
    return found


def _rows(url: str) -> list[tuple[object, ...]]:
    """Every number of the comparisons, in an order that does not depend on who was first."""
    columns = "activation, width, closure, quantity, layer, error, error_se, absolute_error"
    db = Database(url, read_only=True)
    with db.reading() as session:
        rows = session.execute(sa.text(f"SELECT {columns} FROM v_errors")).all()
    db.dispose()
    return sorted(((tuple(row)) for row in rows), key=repr)


@pytest.fixture(scope="module")
def reference(
    prefect_api: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, dict[str, np.ndarray]], list[tuple[object, ...]]]:
    """What one thread computes."""
    folder = tmp_path_factory.mktemp("reference")
    study, url = folder / "study.toml", f"sqlite:///{folder / 'results.db'}"
    study.write_text(STUDY)
    migrate.upgrade(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFT_HOME", str(folder))
        patch.setenv("EFT_DATABASE_URL", "")
        _run(study, workers=1)
    made = _arrays(folder)
    assert len(made) == 2 + 2 * (3 + 1 + 2)
    return made, _rows(url)


def _assert_same(found: dict[str, dict[str, np.ndarray]], reference: dict[str, dict[str, np.ndarray]]) -> None:
    assert found.keys() == reference.keys()
    for digest, arrays in reference.items():
        assert found[digest].keys() == arrays.keys()
        for name, values in arrays.items():
            np.testing.assert_array_equal(found[digest][name], values)


@pytest.fixture
def killer() -> Iterator[list[signal.Signals]]:
    """Sends these signals, one to each worker process that begins to compute, until they are used up."""
    signals: list[signal.Signals] = []
    sent: set[int] = set()
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.05):
            for child in psutil.Process().children():  # Python's own child processes do not compute
                with contextlib.suppress(psutil.Error):  # it has ended
                    computing = "--multiprocessing-fork" in child.cmdline() and child.cpu_times().user > 2.5
                    if signals and computing and child.pid not in sent:
                        child.send_signal(signals.pop())
                        sent.add(child.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    yield signals
    stop.set()
    thread.join()


def _servers_started() -> list[list[str]]:
    """Command lines of Prefect servers below this process; processes that ended are not among them."""
    commands = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended, and nobody may have waited for it yet
            commands.append(child.cmdline())
    return [command for command in commands if "uvicorn" in command]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.campaign)])
def test_threads_and_processes_give_the_same_numbers_though_workers_are_killed(
    results: Path, reference, study: Path, killer: list[signal.Signals], workers: int
):
    _run(study, workers=3)
    _assert_same(_arrays(results), reference[0])
    (results / "arrays").rename(results / "threads")

    killer += [signal.SIGINT, signal.SIGKILL]  # the last one comes first; Ctrl-C is for the run, not for its workers
    _run(study, runner="processes", workers=workers)
    assert killer == []
    assert _servers_started() == []
    _assert_same(_arrays(results), reference[0])


@prefect.task
def leave() -> None:
    """A task that ends as Prefect's own code does where it cannot go on."""
    sys.exit(1)


def test_a_task_that_exits_is_tried_again_and_fails(results: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flows.orchestration.dispatch.LOST_WORKERS", 1)
    with dispatching(Resources(runner="processes", workers=1)) as dispatcher:
        assert dispatcher.run(leave, {}) == ("failed", "worker processes ended 1 times; is memory short?")


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.campaign)])
def cluster(results: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a Dask scheduler with worker processes, as `dask scheduler` and `dask worker` start them."""
    from distributed import LocalCluster

    options = {
        "n_workers": request.param,
        "threads_per_worker": 1,
        "scheduler_kwargs": FREE_PORT,
        "silence_logs": "CRITICAL",
    }
    with LocalCluster(**options) as made:
        yield made.scheduler_address


@pytest.fixture
def in_postgresql(results: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty database that this process uses, and the processes that it starts."""
    monkeypatch.setenv("EFT_DATABASE_URL", postgresql)
    return postgresql


def test_a_dask_cluster_and_postgresql_give_the_same_numbers(
    in_postgresql: str, results: Path, reference, study: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
):
    _run(study, runner="dask", dask_address=cluster)
    _assert_same(_arrays(results), reference[0])
    assert _rows(in_postgresql) == reference[1]

    monkeypatch.setenv("EFT_HOME", str(results / "elsewhere"))
    with pytest.raises(EnvironmentProblem, match="same EFT_HOME"):
        _run(study, runner="dask", dask_address=cluster)


def test_a_scheduler_that_does_not_answer_is_told(results: Path, study: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flows.orchestration.cluster.CONNECT_SECONDS", 1)
    with pytest.raises(EnvironmentProblem, match=r"127\.0\.0\.1:1.*no Dask scheduler answers.*`dask scheduler`"):
        _run(study, runner="dask", dask_address="tcp://127.0.0.1:1")


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Dask scheduler in a process of its own with one worker, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, here = f"tcp://127.0.0.1:{port}", ("--host", "127.0.0.1", "--no-dashboard")
    dask = [sys.executable, "-m", "dask"]
    with (tmp_path / "log").open("wb") as log, contextlib.ExitStack() as stack:
        arguments = (["scheduler", "--port", str(port), *here], ["worker", address, "--nthreads", "1", *here])
        started = [stack.enter_context(subprocess.Popen([*dask, *given], stderr=log)) for given in arguments]
        from distributed import Client

        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        yield started[0], address
        for process in started:
            process.terminate()


def test_a_scheduler_that_is_lost_is_told_once_and_fails_no_task(
    results: Path, tmp_path: Path, scheduler: tuple[subprocess.Popen[bytes], str]
):
    process, address = scheduler
    long = tmp_path / "long.toml"
    long.write_text(TINY.replace("samples = 4096", "samples = 400_000_000"))
    db = Database(default_url(), read_only=True)

    killed = []

    def kill_when_simulating() -> None:
        while not (results / "arrays").exists() or "running" not in set(queries.runs(db, kind="simulation")["status"]):
            time.sleep(0.1)
        process.kill()
        killed.append(time.monotonic())

    killer = threading.Thread(target=kill_when_simulating)
    killer.start()
    with pytest.raises(EnvironmentProblem, match=rf"Dask scheduler = '{address}': was lost.*start it again"):
        _run(long, runner="dask", dask_address=address)
    killer.join()
    assert time.monotonic() - killed[0] < 25, "Dask by itself tries to connect again for 30 s"
    assert "failed" not in set(queries.runs(db)["status"])
    db.dispose()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"runner": "mpi"}, "'threads', 'processes' or 'dask'"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"dask_address": "tcp://here:8786"}, "goes with runner = 'dask'"),
        ({"runner": "dask", "dask_address": "tcp://here:8786", "workers": 2}, "has its own"),
    ],
)
def test_resources_that_do_not_go_together_are_refused(given: dict[str, object], said: str):
    with pytest.raises(InputError, match=said):
        Resources(**given)
