"""kill -9 at any moment of a study: the same command goes on from there, and the database is whole."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from db.reading import queries
from db.session import Database
from flows.orchestration.server_access import AUTH_STRING
from flows.study.expansion import load_study
from tests.conftest import FaultLog
from tests.flows import killed, warm
from tests.flows.conftest import TINY

STEPS = 150
"""About half of the statements and stored results of the whole study, so that few runs end before the kill."""

LONGEST = 0.2
"""Seconds from a step to the kill, so that it strikes between steps too."""

STUDY = TINY.replace("samples = 4096", "samples = 1_000_000")


def _counts(url: str) -> tuple[dict[str, int], int, int]:
    """Runs by status, windows, and windows that say the same as another."""
    db = Database(url, read_only=True)
    runs, windows = queries.runs(db), queries.windows(db)
    db.dispose()
    identity = ["prediction_run_id", "simulation_run_id", "quantity", "tolerance"]
    return runs["status"].value_counts().to_dict(), len(windows), int(windows.duplicated(identity).sum())


MANY = (20, random.SystemRandom().randrange(1000))


@pytest.mark.parametrize(
    ("url", "kills", "seed"),
    [
        ("sqlite", 1, 0),
        ("postgresql", 1, 1),
        pytest.param("sqlite", *MANY, marks=pytest.mark.campaign, id="sqlite-20"),
        pytest.param("postgresql", *MANY, marks=pytest.mark.campaign, id="postgresql-20"),
    ],
    indirect=["url"],
)
def test_a_killed_study_goes_on_and_leaves_no_trace_of_it(
    prefect_api: str,
    url: str,
    environment: dict[str, str],
    tmp_path: Path,
    fault_log: FaultLog,
    kills: int,
    seed: int,
):
    print(f"moments of the kills: random.Random({seed})")
    moments = random.Random(seed)
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    shards = sum(len(simulation.all_shards) for simulation in load_study(study).simulations.values())
    assert shards > 20
    environment |= {"EFT_DATABASE_URL": url, "PREFECT_API_URL": prefect_api, AUTH_STRING: os.environ[AUTH_STRING]}
    home = Path(environment["EFT_HOME"])

    ensembles = 1
    struck: list[tuple[str, bool]] = []
    while len(struck) < kills:
        after, delay, said = moments.randint(1, STEPS), moments.uniform(0.0, LONGEST), tmp_path / "said"
        run = warm.processes().Process(target=killed.carry_out, args=(str(study), environment, after, delay, said))
        run.start()
        run.join()
        statuses, _, doubled = _counts(url)
        sound = doubled == 0 and set(statuses) <= {"pending", "running", "stale", "succeeded"}
        assert run.exitcode in (0, -signal.SIGKILL)
        if run.exitcode != 0:
            shown = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items())) or "none yet"
            moment = f"{delay:.2f} s after step {after}, {said.read_text()}; runs then: {shown}"
            struck.append((moment, sound))
        else:  # it was faster than the kill: other networks give it something to do again
            ensembles += 1
            study.write_text(STUDY.replace("seed = 7", f"seed = {6 + ensembles}"))

    finished = {path: path.stat().st_mtime_ns for path in home.glob("arrays/*/*.npz")}
    last = warm.run(environment, "run", str(study))
    kept = {path: path.stat().st_mtime_ns for path in finished} == finished
    whole = _counts(url) == ({"succeeded": 2 + 2 * ensembles}, 2 * (1 + 3) * 2 * ensembles, 0)
    completes = last.returncode == 0 and kept and whole
    for moment, sound in struck:
        fault_log.note("kill -9 of the flow", url.split(":")[0], moment, consistent=sound, completes=completes)
    assert last.returncode == 0, last.stderr
    assert all(sound for _, sound in struck), struck
    assert kept
    assert whole
    # a process that is killed after it stored a result, and before it unlocked it, leaves the lock beside the result
    left = [path for path in home.glob("arrays/*/*") if not path.with_suffix(".npz").exists()]
    assert [path for path in left if path.suffix != ".part"] == []
    again = warm.run(environment, "run", str(study))
    assert f"{2 + shards + 2 * (1 + 2 + 1)} tasks cached, 0 computed." in again.stdout
