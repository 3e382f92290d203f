"""One Prefect server for each folder of results, wherever and whenever they start."""

from __future__ import annotations

import os
import select
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.orchestration.server import LocalServer
from flows.orchestration.watch import answers
from tests.servers import PrefectHome

pytestmark = pytest.mark.usefixtures("warm_server")


def test_servers_that_start_together_do_not_take_each_others_port(prefect_home: PrefectHome, tmp_path: Path):
    servers = [LocalServer(prefect_home(tmp_path / name)) for name in ("one", "two")]
    with ThreadPoolExecutor() as threads:
        running = list(threads.map(LocalServer.start, servers))
    assert running[0].port != running[1].port
    for server, found in zip(servers, running, strict=True):
        assert answers(found.url)
        assert server.stop() == found
        assert server.running() is None


def test_a_server_ends_when_its_folder_is_gone(prefect_home: PrefectHome, tmp_path: Path):
    with LocalServer(prefect_home(tmp_path / "home")).used() as running:
        handle = os.pidfd_open(running.pid)
        shutil.rmtree(tmp_path / "home", ignore_errors=True)  # its database tidies up meanwhile
        assert select.select([handle], [], [], 60)[0]
        os.close(handle)
