"""A cluster without a file system in common: two Dask workers in folders of their own, an object store, PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from db.reading import queries
from db.schema.models import Claim
from db.session import Database
from db.upkeep import migrate
from db.writing import claims
from eftcore.errors import EnvironmentProblem
from flows.orchestration.cluster import tasks_at_a_time
from flows.orchestration.server_access import AUTH_STRING
from flows.study.expansion import load_study
from flows.study.requests import Resources, StudyRequest
from flows.work.store import default_store
from tests.flows import warm
from tests.flows.conftest import FREE_PORT, TINY
from tests.objects import SECRET, ObjectServer

VIEWS = {
    "v_errors": "activation, width, closure, quantity, layer, error, error_se, absolute_error",
    "v_windows": "activation, width, closure, quantity, tolerance, certified_until, refuted_from, status",
}


def _rows(url: str) -> dict[str, list[str]]:
    """Every number that a study leaves in the database, in an order that does not depend on who was first."""
    db = Database(url, read_only=True)
    with db.reading() as session:
        found = {
            view: sorted(repr(tuple(row)) for row in session.execute(sa.text(f"SELECT {columns} FROM {view}")))
            for view, columns in VIEWS.items()
        }
    statuses = set(queries.runs(db)["status"])
    db.dispose()
    assert statuses == {"succeeded"}
    return found


def _run(study: Path, **resources: Any) -> None:
    from flows.run import run_study

    assert run_study(StudyRequest(study=str(study)), Resources(**resources)).failures == []


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    made = ObjectServer()
    yield made
    made.stop()


@pytest.fixture
def shared(
    results: Path, server: ObjectServer, postgresql: str, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """What a worker of the cluster is told; this process is told it too."""
    warm.processes()  # those of other tests must not inherit what follows
    told = {"EFT_STORE": f"s3://cluster/{results.parent.name}", "EFT_DATABASE_URL": postgresql, **server.environment}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    pytest.importorskip("s3fs").S3FileSystem(skip_instance_cache=True).mkdirs("cluster", exist_ok=True)
    return {**told, "PREFECT_API_URL": prefect_api, AUTH_STRING: os.environ[AUTH_STRING]}


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Address of a Dask scheduler without workers."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, scheduler_kwargs=FREE_PORT, silence_logs="CRITICAL") as made:
        yield made.scheduler_address


def _work(address: str, folder: str, told: dict[str, str]) -> None:
    """A Dask worker in its own folder, without EFT_HOME."""
    from distributed import Worker
    from prefect.context import refresh_global_settings_context

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EFT_", "PREFECT_", "AWS_"))}
    os.environ.clear()
    os.environ |= {**kept, **told, "HOME": folder, "PREFECT_HOME": f"{folder}/prefect", "NUMBA_NUM_THREADS": "1"}
    os.chdir(folder)
    refresh_global_settings_context()

    async def serve() -> None:
        async with Worker(address, nthreads=1, dashboard=False, local_directory=folder) as worker:
            await worker.finished()

    asyncio.run(serve())


def _wait_for(scheduler: str, workers: int) -> None:
    from distributed import Client

    with Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=120)


@pytest.fixture
def workers(scheduler: str, shared: dict[str, str], tmp_path: Path) -> Iterator[list[Any]]:
    """Two of them, as processes."""
    started = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        started.append(warm.processes().Process(target=_work, args=(scheduler, str(folder), shared)))
        started[-1].start()
    _wait_for(scheduler, 2)
    yield started
    for process in started:
        process.kill()
        process.join()


class Trouble:
    """When one of the workers computes, it is killed and the store goes away for a while."""

    def __init__(self, workers: list[Any], server: ObjectServer, url: str, seconds: float) -> None:
        self.struck: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._strike, args=(workers, server, url, seconds))

    def __enter__(self) -> Trouble:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _strike(self, workers: list[Any], server: ObjectServer, url: str, seconds: float) -> None:
        db, processes = Database(url), {process.pid for process in workers}
        while not self._stop.wait(0.02) and not self.struck:
            with db.reading() as session:
                holders = session.scalars(sa.select(Claim.holder).where(Claim.task == "computing")).all()
            self.struck += [pid for pid in map(claims.process_of, holders) if pid in processes][:1]
        db.dispose()
        if self.struck:
            os.kill(self.struck[0], signal.SIGKILL)
            server.away_for(seconds)


@pytest.mark.parametrize("away", [2.0, pytest.param(20.0, marks=pytest.mark.campaign)])
def test_workers_without_a_folder_in_common_compute_the_same(
    results: Path,
    tiny: Path,
    server: ObjectServer,
    shared: dict[str, str],
    scheduler: str,
    workers: list[Any],
    away: float,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    """A worker is killed while it computes, the store is away then, and half of an object was there before."""
    tiny.write_text(TINY.replace("samples = 4096", "samples = 60_000"))
    half = next(iter(load_study(tiny).predictions))
    with default_store().place.writing(f"{half[:2]}/{half}.npz") as file:
        file.write(b"PK\x03\x04 and no more")
    with Trouble(workers, server, shared["EFT_DATABASE_URL"], away) as trouble:
        _run(tiny, runner="dask", dask_address=scheduler)
    assert trouble.struck
    assert not (results / "arrays").exists()
    assert [path.name for name in ("one", "two") for path in (results.parent / name).glob("eft-data/*")] == []
    found = _rows(shared["EFT_DATABASE_URL"])
    store = default_store()
    assert store.is_intact(half)
    assert SECRET not in capfd.readouterr().err

    for name in ("EFT_STORE", "EFT_DATABASE_URL"):
        monkeypatch.delenv(name)
    _run(tiny)
    assert len(found["v_errors"]) > 20
    assert found == _rows(f"sqlite:///{results / 'results.db'}")


def test_a_worker_with_another_database_is_told(
    scheduler: str, shared: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    migrate.upgrade(other)
    (tmp_path / "one").mkdir()
    told = {**shared, "EFT_DATABASE_URL": other}
    process = warm.processes().Process(target=_work, args=(scheduler, str(tmp_path / "one"), told), daemon=True)
    process.start()
    _wait_for(scheduler, 1)
    with pytest.raises(
        EnvironmentProblem, match=r"Dask worker = .*EFT_DATABASE_URL of a PostgreSQL database"
    ) as told_so:
        tasks_at_a_time(scheduler)
    assert f"uses the database {other}, which is not postgresql://" in str(told_so.value)
    db = Database(shared["EFT_DATABASE_URL"])
    with db.reading() as session:
        assert session.scalars(sa.select(Claim.digest)).all() == []
    db.dispose()
    process.kill()
    process.join()
