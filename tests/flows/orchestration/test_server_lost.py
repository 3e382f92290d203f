"""The Prefect server is killed, or goes away, while a study runs: results are there, and nothing waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.reading import queries
from db.session import Database
from flows.orchestration.server import LocalServer, Running
from flows.orchestration.server_access import AUTH_STRING
from tests.conftest import FaultLog
from tests.flows import warm
from tests.flows.conftest import servers_of
from tests.servers import PrefectHome

pytestmark = [
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc (Linux)"),
    pytest.mark.usefixtures("warm_server"),
]

ENOUGH = 120
"""Seconds in which a run surely ends, on a busy machine too."""

WINDOWS = 2 * (1 + 3) * 2
"""Of the tiny study: two widths, one quantity of the mean and three of g_only, two tolerances."""

SOON = 30
"""It takes five seconds at most on a machine that is not busy."""

CAMPAIGN = pytest.mark.campaign
"""On the runners of which another loss is among the tests; that of Dask's scheduler is in test_runners.py."""


@pytest.fixture
def foreign(
    prefect_home: PrefectHome, tmp_path: Path, ready: dict[str, str]
) -> Iterator[tuple[Running, dict[str, str]]]:
    """A server at PREFECT_API_URL that no command here can start again, and the environment that names it."""
    server = LocalServer(prefect_home(tmp_path / "elsewhere"))
    with server.used() as running:
        yield running, {**ready, "PREFECT_API_URL": running.url, AUTH_STRING: server.key}


def _windows(environment: dict[str, str]) -> int:
    """How many windows are recorded."""
    db = Database(f"sqlite:///{environment['EFT_HOME']}/results.db", read_only=True)
    found = len(queries.windows(db))
    db.dispose()
    return found


def begun(environment: dict[str, str], study: Path, runner: str) -> subprocess.Popen[str]:
    """`eft run` as the first task in this folder of results begins; its worker processes are not there yet."""
    run = warm.start(environment, "run", str(study), "--runner", runner, "--workers", "1")
    db = Database(f"sqlite:///{environment['EFT_HOME']}/results.db", read_only=True)
    while not len(queries.runs(db)):
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    db.dispose()
    return run


def read_to(run: subprocess.Popen[str], text: str) -> None:
    """Read what a run says up to a line with this text."""
    assert run.stderr is not None
    said = []
    while text not in (line := run.stderr.readline()):
        said.append(line)
        assert line, said


@pytest.mark.parametrize("runner", ["threads", pytest.param("processes", marks=CAMPAIGN)])
def test_a_server_of_our_own_is_started_again(ready: dict[str, str], tiny: Path, runner: str, fault_log: FaultLog):
    run = begun(ready, tiny, runner)
    running = LocalServer(Path(ready["EFT_HOME"]) / "prefect").running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    out, said = run.communicate(timeout=ENOUGH)
    completes = run.returncode == 0 and "0 tasks cached, 12 computed." in out
    whole = _windows(ready) == WINDOWS
    moment = f"as the first task begins, {runner}"
    fault_log.note("kill -9 of our server", "sqlite", moment, consistent=whole, completes=completes)
    assert completes, said
    assert whole
    assert "was lost and is started again" in said
    assert servers_of(ready) == []


@pytest.mark.parametrize(
    ("runner", "goes"),
    [
        ("threads", signal.SIGKILL),
        ("processes", signal.SIGSTOP),
        pytest.param("dask", signal.SIGKILL, marks=CAMPAIGN),
    ],
)
def test_what_is_computed_does_not_depend_on_the_server(
    foreign: tuple[Running, dict[str, str]],
    tiny: Path,
    tmp_path: Path,
    runner: str,
    goes: signal.Signals,
    fault_log: FaultLog,
):
    server, environment = foreign
    run = begun({**environment, "EFT_PATIENCE": str(ENOUGH)}, tiny, runner)
    os.kill(server.pid, goes)
    try:
        read_to(run, "[12/12]")
    finally:
        if goes == signal.SIGSTOP:
            os.kill(server.pid, signal.SIGCONT)
    whole = _windows(environment) == WINDOWS
    LocalServer(tmp_path / "elsewhere").again(server)
    out, said = run.communicate(timeout=ENOUGH)
    completes = run.returncode == 0 and "0 tasks cached, 12 computed." in out
    moment = f"as the first task begins, until all were done, {runner}, {goes.name}"
    fault_log.note("Prefect server away", "sqlite", moment, consistent=whole, completes=completes)
    assert completes, said
    assert whole, "recorded while there was no server"


@pytest.mark.parametrize(
    ("runner", "signals"),
    [
        ("threads", (signal.SIGTERM, signal.SIGINT)),
        pytest.param("processes", (signal.SIGTERM,), marks=CAMPAIGN),
        pytest.param("dask", (signal.SIGINT,), marks=CAMPAIGN),
    ],
)
def test_a_lost_server_that_is_not_ours_ends_runs_with_one_sentence_and_signals_end_them(
    foreign: tuple[Running, dict[str, str]], tiny: Path, runner: str, signals: tuple[signal.Signals, ...]
):
    server, environment = foreign
    tiny.write_text(tiny.read_text().replace("samples = 4096", "samples = 400_000_000"))
    waits = begun({**environment, "EFT_PATIENCE": "2"}, tiny, runner)
    others = [begun(environment, tiny, runner) for _ in signals]
    for run in (waits, *others):
        read_to(run, "predict")
    os.kill(server.pid, signal.SIGKILL)
    lost = time.monotonic()
    _, said = waits.communicate(timeout=ENOUGH)
    assert time.monotonic() - lost < SOON
    assert waits.returncode == 1, said
    assert "does not answer; the work goes on, and waits up to 2 s for it" in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("eft: Prefect server = 'http://127.0.0.1:")
    assert "was lost; finished work is kept, the same command goes on from there" in last
    assert "Traceback" not in said
    for run, how in zip(others, signals, strict=True):
        read_to(run, "does not answer")
        asked = time.monotonic()
        run.send_signal(how)
        _, said = run.communicate(timeout=ENOUGH)
        assert time.monotonic() - asked < SOON
        assert run.returncode == 128 + how, said
        assert "the same command goes on from there: eft run" in said
        assert "Traceback" not in said


def test_sigterm_ends_a_run_as_ctrl_c_does(warm_under_way: subprocess.Popen[str]):
    warm_under_way.terminate()
    _, said = warm_under_way.communicate(timeout=SOON)
    assert warm_under_way.returncode == 128 + signal.SIGTERM, said
    assert "the same command goes on from there: eft run" in said
    assert "Traceback" not in said
