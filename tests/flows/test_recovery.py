"""kill -9 at any moment of a study: the same command goes on from there, and the database is whole."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from db import migrate, queries
from db.session import Database
from flows.study import load_study
from tests.flows import killed
from tests.flows.conftest import TINY, shell

KILLS = 20

LONGEST = 3.0
"""Seconds from the call of the flow to the kill; the whole study takes about as long."""

STUDY = TINY.replace("samples = 4096", "samples = 1_000_000")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, environment: dict[str, str]) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    made = f"sqlite:///{environment['EFT_HOME']}/results.db"
    migrate.upgrade(made)
    return made


def _counts(url: str) -> tuple[dict[str, int], int, int]:
    """Runs by status, windows, and windows that say the same as another."""
    db = Database(url, read_only=True)
    runs, windows = queries.runs(db), queries.windows(db)
    db.dispose()
    identity = ["prediction_run_id", "simulation_run_id", "quantity", "tolerance"]
    return runs["status"].value_counts().to_dict(), len(windows), int(windows.duplicated(identity).sum())


def test_a_killed_study_goes_on_and_leaves_no_trace_of_it(
    prefect_api: str, url: str, environment: dict[str, str], tmp_path: Path
):
    seed = random.SystemRandom().randrange(1000)
    print(f"moments of the kills: random.Random({seed})")
    moments = random.Random(seed)
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    shards = sum(len(simulation.all_shards) for simulation in load_study(study).simulations.values())
    assert shards > 20
    environment |= {"EFT_DATABASE_URL": url, "PREFECT_API_URL": prefect_api}
    home = Path(environment["EFT_HOME"])

    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["flows.launch", "flows.run", "tests.flows.killed"])
    kills, ensembles = 0, 1
    while kills < KILLS:
        begun = processes.Event()
        run = processes.Process(target=killed.carry_out, args=(str(study), environment, begun))
        run.start()
        assert begun.wait(60)
        time.sleep(moments.uniform(0.0, LONGEST))
        assert run.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.pid, signal.SIGKILL)
        run.join()
        statuses, _, doubled = _counts(url)
        assert doubled == 0
        assert set(statuses) <= {"pending", "running", "stale", "succeeded"}
        if run.exitcode != 0:
            kills += 1
        else:  # it was faster than the kill: other networks give it something to do again
            ensembles += 1
            study.write_text(STUDY.replace("seed = 7", f"seed = {6 + ensembles}"))

    finished = {path: path.stat().st_mtime_ns for path in home.glob("arrays/*/*.npz")}
    last = shell(environment, "run", str(study))
    assert last.returncode == 0, last.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert _counts(url) == ({"succeeded": 2 + 2 * ensembles}, 2 * (1 + 3) * 2 * ensembles, 0)
    assert [path for path in home.glob("arrays/*/*") if path.suffix not in (".npz", ".part")] == []
    again = shell(environment, "run", str(study))
    assert f"{2 + shards + 2 * (1 + 2 + 1)} tasks cached, 0 computed." in again.stdout
