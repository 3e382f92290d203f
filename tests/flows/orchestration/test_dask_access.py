"""Dask as the how-to shows it: nobody without the certificate reaches it, and it listens where it was told."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.orchestration import runners
from flows.study.requests import Resources

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "cluster.md"


def _speaks_plainly(address: tuple[str, int]) -> bool:
    """Whether what listens there answers who shows no certificate; Dask without TLS greets by itself."""
    with socket.create_connection(address, timeout=5) as plain:
        plain.settimeout(3)
        try:
            return bool(plain.recv(8))
        except (TimeoutError, ConnectionError):
            return False


def test_a_cluster_of_our_own_listens_on_loopback_alone_and_asks_for_a_certificate():
    with runners.dispatching(Resources(runner="dask", workers=1)) as dispatcher:
        runner: Any = dispatcher.runner
        known = runner.client.scheduler_info()
        opened = [known["address"], *known["workers"]]
        assert len(opened) == 2
        for address in opened:
            protocol, _, place = address.partition("://")
            host, _, port = place.partition(":")
            assert (protocol, host) == ("tls", "127.0.0.1")
            assert not _speaks_plainly((host, int(port))), "another user of the machine could run code there"
        served = runner.client.cluster.scheduler.http_server
        places = [socket_.getsockname() for socket_ in served._sockets.values()]
        assert [host for host, _ in places] == ["127.0.0.1"]
        address = f"http://127.0.0.1:{places[0][1]}"
        for path in ("/health", "/info/main/workers.html", "/api/v1/retire_workers", "/json/counts.json"):
            assert httpx.get(address + path, timeout=20).status_code == httpx.codes.NOT_FOUND


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Port of a scheduler that was started by the lines of the page, and the environment that they make."""
    lines = PAGE.read_text(encoding="utf-8").split("```sh\n")[2].split("```")[0]
    shown = subprocess.run(
        ["bash", "-euc", f"{lines}\nenv -0"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    environment = dict(pair.split("=", 1) for pair in shown.split("\0") if "=" in pair)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    command = [sys.executable, "-m", "dask", *arguments]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        deadline = time.monotonic() + 120
        while f"tls://127.0.0.1:{port}" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield port, environment
        process.terminate()


def test_nobody_without_the_certificate_reaches_the_scheduler(scheduler: tuple[int, dict[str, str]], tmp_path: Path):
    port, environment = scheduler
    assert oct((tmp_path / "dask-key.pem").stat().st_mode)[-3:] == "600"
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:

        def speak() -> bytes:
            with stranger.wrap_socket(plain) as wrapped:  # TLS 1.3 tells of a missing certificate at the first read
                wrapped.sendall(b"hello")
                return wrapped.recv(100)

        with pytest.raises((ssl.SSLError, ConnectionError)):
            speak()
    ask = "from distributed import Client; Client('{}://127.0.0.1:{}', timeout=5); print('in')"
    without = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    for protocol, known, let_in in (("tls", environment, True), ("tls", without, False), ("tcp", without, False)):
        command = [sys.executable, "-c", ask.format(protocol, port)]
        done = subprocess.run(command, env=known, capture_output=True, text=True, check=False)
        assert ("in" in done.stdout.split()) is let_in, done.stderr[-500:]
