"""kill -9 at any moment of a study: the same command goes on from there, and the database is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from db import migrate, queries
from db.session import Database
from flows.study import load_study
from tests.flows.conftest import TINY

KILLS = 5
"""Each costs a start of Prefect."""

LONGEST_WAIT = 2.5
"""Seconds after the first task; the whole study takes about as long."""

_COMMAND = (sys.executable, "-m", "flows.cli")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EFT_", "PREFECT_"))}
    return {**kept, "EFT_HOME": str(tmp_path / "home")}


def _run_and_kill(environment: dict[str, str], study: Path, wait: float) -> None:
    command = [*_COMMAND, "run", str(study)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as run:
        assert run.stderr is not None
        assert "predict" in run.stderr.readline()
        time.sleep(wait)
        run.send_signal(signal.SIGKILL)


def _counts(url: str) -> tuple[int, int, int]:
    """Runs, windows and windows that say the same as another."""
    db = Database(url, read_only=True)
    runs, windows = queries.runs(db), queries.windows(db)
    db.dispose()
    assert set(runs["status"]) <= {"succeeded"}
    identity = ["prediction_run_id", "simulation_run_id", "quantity", "tolerance"]
    return len(runs), len(windows), int(windows.duplicated(identity).sum())


def test_a_killed_study_goes_on_and_leaves_no_trace_of_it(environment: dict[str, str], tmp_path: Path):
    seed = random.SystemRandom().randrange(1000)
    print(f"moments of the kills: random.Random({seed})")
    moments = random.Random(seed)
    study = tmp_path / "study.toml"
    study.write_text(TINY.replace("samples = 4096", "samples = 1_000_000"))
    shards = sum(len(simulation.all_shards) for simulation in load_study(study).simulations.values())
    assert shards > 20
    home = Path(environment["EFT_HOME"])
    url = f"sqlite:///{home / 'results.db'}"
    migrate.upgrade(url)

    for _ in range(KILLS):
        _run_and_kill(environment, study, moments.uniform(0.0, LONGEST_WAIT))
        assert _counts(url)[2] == 0

    finished = {path: path.stat().st_mtime_ns for path in home.glob("arrays/*/*.npz")}
    last = subprocess.run([*_COMMAND, "run", str(study)], env=environment, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    runs, windows, doubled = _counts(url)
    assert (runs, windows, doubled) == (2 + 2, 2 * (1 + 3) * 2, 0)
    assert list(home.glob("arrays/*/*.npz"))
    again = subprocess.run([*_COMMAND, "run", str(study)], env=environment, capture_output=True, text=True, check=False)
    assert f"{2 + shards + 2 * (1 + 2 + 1)} tasks cached, 0 computed." in again.stdout
