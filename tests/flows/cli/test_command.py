"""`eft run` as a shell sees it: its own Prefect server, progress, exit codes, and nothing left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from flows.orchestration import server, watch
from tests.flows import warm
from tests.flows.conftest import servers_of, shell
from tests.servers import PrefectHome

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc (Linux)")


class Watched:
    """A process by its number, to wait for; one that is already gone counts as ended."""

    def __init__(self, pid: int) -> None:
        try:
            self.handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self.handle = -1

    def ends(self, seconds: float) -> bool:
        """Whether the process ends within so many seconds."""
        return self.handle < 0 or bool(select.select([self.handle], [], [], seconds)[0])

    def close(self) -> None:
        """Forget the process."""
        if self.handle >= 0:
            os.close(self.handle)


def test_runs_share_a_server_that_stays_until_it_is_stopped(ready: dict[str, str], tiny: Path):
    started = shell(ready, "server", "start")
    assert started.returncode == 0, started.stderr
    (process,) = servers_of(ready)
    assert warm.run(ready, "server", "start").stdout == started.stdout
    first = warm.run(ready, "run", str(tiny))
    assert first.returncode == 0, first.stderr
    assert "0 tasks cached, 12 computed." in first.stdout
    assert "[12/12] record" in first.stderr
    second = warm.run(ready, "run", str(tiny), "--json")
    assert json.loads(second.stdout)["tasks"] == {"cached": 12, "computed": 0, "skipped": 0}
    status = json.loads(warm.run(ready, "server", "status", "--json").stdout)
    assert (status["process"], status["answers"], status["used"], status["stays"]) == (process, True, False, True)
    assert servers_of(ready) == [process]
    assert "stopped" in warm.run(ready, "server", "stop").stdout
    assert servers_of(ready) == []
    assert json.loads(warm.run(ready, "server", "status", "--json").stdout)["running"] is False


def test_ctrl_c_stops_soon_and_says_how_to_go_on(
    environment: dict[str, str], warm_under_way: subprocess.Popen[str], long: Path
):
    (process,) = servers_of(environment)
    watched = Watched(process)
    warm_under_way.send_signal(signal.SIGINT)
    _, said = warm_under_way.communicate(timeout=30)  # it takes five seconds at most on a machine that is not busy
    assert warm_under_way.returncode == 130, said
    assert f"the same command goes on from there: eft run {long}" in said
    assert "Traceback" not in said
    assert watched.ends(30)
    watched.close()
    left = json.loads(warm.run(environment, "runs", "--json").stdout)
    assert {run["status"] for run in left} <= {"pending", "stale", "succeeded"}


def test_a_server_serves_every_command_and_ends_by_itself_after_kill_9(
    environment: dict[str, str], warm_under_way: subprocess.Popen[str], tiny: Path, tmp_path: Path
):
    (process,) = servers_of(environment)
    watched = Watched(process)
    refused = warm.run(environment, "server", "stop")
    assert refused.returncode == 1
    assert "in use" in refused.stderr
    short = tmp_path / "short.toml"
    short.write_text(tiny.read_text().replace("400_000_000", "4096"))
    other = warm.run(environment, "run", str(short))
    assert other.returncode == 0, other.stderr
    assert servers_of(environment) == [process]
    warm_under_way.kill()
    assert watched.ends(30)
    watched.close()


@pytest.mark.usefixtures("warm_server")
def test_a_server_that_hangs_is_ended_by_the_next_command(
    prefect_home: PrefectHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = prefect_home(tmp_path / "prefect")
    monkeypatch.setattr(server, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 0.5)
    with server.LocalServer(home).used() as first:
        os.kill(first.pid, signal.SIGSTOP)
        with server.LocalServer(home).used() as second:
            assert second.pid != first.pid
            assert watch.answers(second.url)
    assert server.LocalServer(home).running() is None


def test_a_server_that_does_not_answer_is_told(ready: dict[str, str], tiny: Path):
    result = warm.run({**ready, "PREFECT_API_URL": "http://127.0.0.1:1/api"}, "run", str(tiny))
    assert result.returncode == 1
    assert "PREFECT_API_URL" in result.stderr
    assert "unset" in result.stderr
    assert "Traceback" not in result.stderr
