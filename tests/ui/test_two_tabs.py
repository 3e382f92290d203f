"""One tab computes for minutes: others answer meanwhile, what nobody waits for ends, and so does the server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Page

from ui.screenshots import chromium

pytestmark = pytest.mark.browser

PATIENCE = 60_000
ENDS_SECONDS = 3
HEAVY = "predict?sigma=gelu&N=16&T=5"


def _until(true: Callable[[], bool], seconds: float = PATIENCE / 1000) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The explorer as `eft ui` serves it, without a database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"from ui.launch import serve; serve('sqlite:///{tmp_path / 'none.db'}', {port})"
    with subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "EFT_HOME": str(tmp_path)}) as started:

        def up() -> bool:
            with suppress(OSError):
                return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5))
            return False

        try:
            _until(up)
            yield started, f"http://127.0.0.1:{port}"
        finally:
            started.kill()


def _busy(server: int) -> set[int]:
    """Processes of this server that compute now."""

    def spent() -> dict[int, int]:
        found = {}
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and b"ui.worker" in (folder / "cmdline").read_bytes():
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[1]) == server:
                        found[int(folder.name)] = int(fields[11])
        return found

    before = spent()
    time.sleep(0.5)
    return {process for process, ticks in spent().items() if ticks > before.get(process, ticks)}


def _begin(tab: Page, address: str, server: int) -> None:
    """A prediction that takes minutes, begun in this tab."""
    tab.goto(f"{address}/{HEAVY}")
    tab.get_by_role("button", name="Compute").click()
    tab.get_by_role("button", name="Stop").wait_for()
    _until(lambda: len(_busy(server)) == 1)


def test_a_long_prediction_is_nobody_elses_and_ends_with_its_tab_and_with_the_server(
    server: tuple[subprocess.Popen[bytes], str],
) -> None:
    process, address = server
    with chromium() as browser:
        first, second = browser.new_page(), browser.new_page()
        for tab in (first, second):
            tab.set_default_timeout(PATIENCE)
        _begin(first, address, process.pid)
        second.goto(f"{address}/predict?T=0.2&N=1")
        second.get_by_text("Windows t* of networks of width").wait_for()
        assert first.get_by_role("button", name="Stop").is_visible(), "and the other one goes on"
        _until(lambda: len(_busy(process.pid)) == 1)  # once the next process is ready to compute
        first.close()
        _until(lambda: not _busy(process.pid))
        _begin(second, address, process.pid)
        computing = _busy(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_SECONDS) == 0
        _until(lambda: not any(Path(f"/proc/{number}").exists() for number in computing))
