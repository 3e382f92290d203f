"""`eft run` as a shell sees it: its own Prefect server, progress, exit codes, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc (Linux)")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables of a new user, with results in a temporary folder that also marks our processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EFT_", "PREFECT_"))}
    return {**kept, "EFT_HOME": str(tmp_path / "home")}


def eft(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def servers_of(environment: dict[str, str]) -> list[int]:
    """Processes that serve Prefect for this folder of results."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if b"flows.orchestration" in command and f"EFT_HOME={environment['EFT_HOME']}\0".encode() in variables:
            found.append(int(folder.name))
    return found


def test_two_runs_in_two_processes(environment: dict[str, str], tiny: Path):
    assert eft(environment, "db", "upgrade").returncode == 0
    first = eft(environment, "run", str(tiny))
    assert first.returncode == 0, first.stderr
    assert "0 tasks cached, 12 computed." in first.stdout
    assert "[12/12] record" in first.stderr
    second = eft(environment, "run", str(tiny))
    assert second.returncode == 0, second.stderr
    assert "12 tasks cached, 0 computed." in second.stdout
    assert "g_only" in second.stdout
    assert servers_of(environment) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_no_server_outlives_a_command_that_is_stopped(environment: dict[str, str], tiny: Path, how: signal.Signals):
    eft(environment, "db", "upgrade")
    tiny.write_text(tiny.read_text().replace("samples = 4096", "samples = 400_000_000"))
    command = [sys.executable, "-m", "flows.cli", "run", str(tiny)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        assert "predict" in run.stderr.readline()
        (server,) = servers_of(environment)
        run.send_signal(how)
        rest = run.stderr.read()
        code = run.wait()
    with open_pid(server) as gone:
        assert gone.wait(30)
    if how is signal.SIGINT:
        assert code == 130, rest
        assert "finished work is kept" in rest
        assert "Traceback" not in rest


class open_pid:
    """A process by its number, to wait for; one that is already gone counts as ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __enter__(self) -> open_pid:
        try:
            self.handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.handle = -1
        return self

    def wait(self, seconds: float) -> bool:
        """Whether the process ends within so many seconds."""
        import select

        return self.handle < 0 or bool(select.select([self.handle], [], [], seconds)[0])

    def __exit__(self, *_: object) -> None:
        if self.handle >= 0:
            os.close(self.handle)


def test_a_server_that_does_not_answer_is_told(environment: dict[str, str], tiny: Path):
    eft(environment, "db", "upgrade")
    result = eft({**environment, "PREFECT_API_URL": "http://127.0.0.1:1/api"}, "run", str(tiny))
    assert result.returncode == 1
    assert "PREFECT_API_URL" in result.stderr
    assert "unset" in result.stderr
    assert "Traceback" not in result.stderr
