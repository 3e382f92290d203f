"""Several runs in one process share its local server: in a script, within a running event loop, in a Jupyter kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.flows import warm
from tests.flows.conftest import servers_of

TWO_RUNS = """
import flows
for _ in range(2):
    print(flows.run_study({study!r}).summary, flush=True)
"""
CACHED = "12 tasks cached, 0 computed"


def test_two_runs_in_one_process_also_in_a_running_event_loop(environment: dict[str, str], tiny: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    body = "".join(f"    {line}\n" for line in TWO_RUNS.format(study=str(tiny)).splitlines())
    script.write_text(f"import asyncio\nasync def main():\n{body}\nasyncio.run(main())\n")
    command = [str(warm.commands() / warm.PYTHON), str(script)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["0 tasks cached, 12 computed", CACHED]
    assert servers_of(environment) == [], "the server ends with the process"


@pytest.mark.campaign
def test_two_runs_in_a_jupyter_kernel(environment: dict[str, str], tiny: Path):
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import start_new_kernel

    said: list[str] = []

    def hear(message: dict) -> None:
        said.append(str(message["content"].get("text") or message["content"].get("traceback") or ""))

    manager, client = start_new_kernel(env=environment, startup_timeout=120)
    try:
        for _ in range(2):
            code = f"import flows; print(flows.run_study({str(tiny)!r}).summary)"
            reply = client.execute_interactive(code, output_hook=hear, timeout=200)
            assert reply["content"]["status"] == "ok", said
        assert len(servers_of(environment)) == 1
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    assert "".join(said).count(CACHED) == 1
    assert servers_of(environment) == []
