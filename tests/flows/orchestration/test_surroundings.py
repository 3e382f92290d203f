"""A study runs wherever it is started: among other projects' folders, behind proxies that do not know this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.orchestration import surroundings
from tests.flows.conftest import PROXIES, shell


def test_neither_folders_named_as_our_packages_nor_proxies_disturb_a_run(
    ready: dict[str, str], foreign_folder: Path, tiny: Path
):
    """Nor its server and its worker process."""
    arguments = ("run", str(tiny), "--runner", "processes", "--workers", "1")
    run = shell({**ready, **PROXIES}, *arguments, folder=foreign_folder)
    assert run.returncode == 0, run.stderr
    assert "0 tasks cached, 12 computed." in run.stdout


@pytest.mark.parametrize(
    ("given", "direct"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "example.org"}, "example.org,127.0.0.1,localhost,::1"),
        ({"no_proxy": "localhost", "NO_PROXY": "not read"}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_what_is_asked_directly_stays_so(
    given: dict[str, str], direct: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, given.get(name, ""))
    for name in ("PREFECT_HOME", *surroundings.QUIET):
        monkeypatch.setenv(name, surroundings.QUIET.get(name, str(tmp_path)))
    surroundings.configure(tmp_path)
    surroundings.configure(tmp_path)
    assert [os.environ[name] for name in ("no_proxy", "NO_PROXY")] == [direct, direct]
