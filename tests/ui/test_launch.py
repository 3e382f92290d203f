"""How the explorer is served, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ui import launch

ENDS_SECONDS = 3
BUSY = """
import time
from concurrent.futures import ThreadPoolExecutor

ThreadPoolExecutor(1).submit(time.sleep, 600)
print("computing", flush=True)
time.sleep(600)
"""


def test_the_server_listens_to_this_machine_only() -> None:
    assert "--server.address=127.0.0.1" in launch.arguments()
    assert "--server.port=8600" in launch.arguments(8600)
    assert not [argument for argument in launch.arguments() if "port" in argument]


def _open_page(port: int) -> Any:
    """A connection as a browser has it, whose page runs."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from websockets.sync.client import connect

    deadline = time.monotonic() + 60
    while True:
        try:
            connection = connect(f"ws://127.0.0.1:{port}/_stcore/stream", subprotocols=["streamlit"], proxy=None)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    message = BackMsg()
    message.rerun_script.query_string = ""
    connection.send(message.SerializeToString())
    return connection


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_explorer_at_once_also_while_a_page_computes(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = (
        "from pathlib import Path; from ui import launch; "
        f"launch.APP = Path({str(tmp_path / 'busy.py')!r}); launch.serve('sqlite:///results.db', {port})"
    )
    command = [sys.executable, "-c", serve]
    environment = {**os.environ, "STREAMLIT_SERVER_HEADLESS": "true", "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            page = _open_page(port)
            assert server.stdout is not None
            while "computing" not in (line := server.stdout.readline()):
                assert line, "the server ended"
            server.send_signal(how)
            assert server.wait(ENDS_SECONDS) == 0
            page.close()
        finally:
            server.kill()


def test_no_folder_makes_streamlit_run_pages_without_the_app() -> None:
    assert not (launch.APP.parent / "pages").exists()


def test_settings_lie_beside_the_app_and_send_nothing() -> None:
    settings = tomllib.loads((launch.APP.parent / ".streamlit" / "config.toml").read_text())
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["server"] == {"headless": True, "fileWatcherType": "none"}
    assert settings["client"]["toolbarMode"] == "minimal"
