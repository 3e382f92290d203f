"""A study runs wherever it is started: among other projects' folders, behind proxies that do not know this machine."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.orchestration import surroundings
from flows.orchestration.server_access import AUTH_STRING
from tests.flows.conftest import PROXIES, shell


def test_neither_folders_named_as_our_packages_nor_proxies_disturb_a_run(
    ready: dict[str, str], foreign_folder: Path, tiny: Path
):
    """Nor its server and its worker process."""
    arguments = ("run", str(tiny), "--runner", "processes", "--workers", "1")
    run = shell({**ready, **PROXIES}, *arguments, folder=foreign_folder)
    assert run.returncode == 0, run.stderr
    assert "0 tasks cached, 12 computed." in run.stdout


@pytest.mark.parametrize("within", ["no settings", "settings of a flow"])
def test_every_thread_has_the_key_while_the_api_is_used_and_afterwards_what_it_had(
    prefect_api: str, within: str, monkeypatch: pytest.MonkeyPatch
):
    from prefect import context, settings

    def seen() -> list[str | None]:
        with ThreadPoolExecutor() as threads:
            ask = settings.PREFECT_API_AUTH_STRING.value
            return [ask(), threads.submit(ask).result()]

    monkeypatch.delenv(AUTH_STRING)
    monkeypatch.setattr(context, "GLOBAL_SETTINGS_CONTEXT", context.root_settings_context())
    key, before = surroundings.local_server().key, [None, None]
    with contextlib.ExitStack() as stack:
        if within == "settings of a flow":
            stack.enter_context(settings.temporary_settings({settings.PREFECT_API_AUTH_STRING: "another"}))
            before = ["another", None]
        assert seen() == before
        with surroundings.api():
            assert seen() == [key, key]
        assert seen() == before


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
