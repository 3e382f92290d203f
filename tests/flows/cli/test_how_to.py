"""The pages of docs/how-to: their command lines run as they stand, in the order of the pages; links lead on."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.orchestration.server import LocalServer
from tests.flows import warm
from tests.servers import PrefectHome

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "how-to"
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8")
PAGES = re.findall(r"\]\((\w+\.md)\)", INDEX)


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@pytest.fixture(scope="module")
def folder(prefect_home: PrefectHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the study file and prefect.yaml; the pages run in it one after another."""
    made = tmp_path_factory.mktemp("how-to")
    (study,) = _blocks(INDEX, "toml")
    (made / "my-study.toml").write_text(study)
    for name in ("prefect.yaml", "work-pool.json"):
        (made / name).write_text((ROOT / name).read_text())
    prefect_home(made / "prefect")
    yield made
    LocalServer(made / "prefect").stop(force=True)


def test_every_page_is_listed_and_every_link_leads_somewhere():
    assert sorted([*PAGES, "README.md"]) == sorted(path.name for path in FOLDER.iterdir())
    for path in FOLDER.iterdir():
        targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
        assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.usefixtures("warm_server")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, folder: Path, postgresql: str):
    """An address of a PostgreSQL of the tests, and free ports, stand in for those of the examples.

    They are carried out by processes that have imported everything, and find a server that runs already, until a page
    stops it.
    """
    text = (FOLDER / page).read_text(encoding="utf-8")
    commands = "\n".join(_blocks(text, "sh"))
    server, scheduler = _free_ports(2)
    stand_in = {"postgresql://eft@db.example/eft": f"'{postgresql}'", "4321": str(server), "8799": str(scheduler)}
    for shown, used in stand_in.items():
        commands = commands.replace(shown, used)
    if program := "\n".join(_blocks(text, "python")):
        commands += f"\n{warm.PYTHON} -W error - <<'EOF'\n{program}\nEOF\n"
    assert "eft " in commands
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EFT_", "PREFECT_"))}
    path = os.pathsep.join([str(warm.commands()), str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",  # seconds in which `eft serve` sees a run that was triggered
    }
    script = [
        "bash",
        "-e",
        "-u",
        "-o",
        "pipefail",
        "-c",
        f"trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{commands}",
    ]
    LocalServer(folder / "prefect").start(server)
    done = subprocess.run(
        script, cwd=folder, env={**kept, **quiet, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    if page == "resume.md":
        assert re.search(r"Study my-study: \d+ tasks cached, 0 computed\.", done.stdout)
