"""A local Prefect server remembers some days: old runs go, and the server of one command keeps no events."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flows.orchestration import history
from flows.orchestration.server import LocalServer, Running
from tests.servers import PrefectHome

pytestmark = pytest.mark.usefixtures("warm_server")


def _client(server: LocalServer, running: Running) -> httpx.Client:
    auth = tuple(server.key.split(":"))
    return httpx.Client(base_url=f"{running.url}/", auth=auth, trust_env=False, timeout=60)


def test_runs_of_last_month_go_and_those_of_yesterday_stay(prefect_home: PrefectHome, tmp_path: Path):
    server = LocalServer(prefect_home(tmp_path / "prefect"))
    runs = {}
    with server.used() as running, _client(server, running) as client:
        flow = client.post("flows/", json={"name": "any"}).raise_for_status().json()["id"]
        for name in ("last month", "yesterday"):
            made = client.post("flow_runs/", json={"flow_id": flow, "name": name, "state": {"type": "RUNNING"}})
            runs[name] = made.raise_for_status().json()["id"]
            ended = {"state": {"type": "COMPLETED"}, "force": True}
            client.post(f"flow_runs/{runs[name]}/set_state", json=ended).raise_for_status()
    days = {"last month": history.FLOW_RUN_DAYS + 1, "yesterday": 1}
    with sqlite3.connect(tmp_path / "prefect" / "prefect.db") as database:
        for name, ago in days.items():
            end = (datetime.now(UTC) - timedelta(days=ago)).strftime("%Y-%m-%d %H:%M:%S.%f")
            database.execute("UPDATE flow_run SET end_time = ? WHERE name = ?", (end, name))
        for table in ("events", "block_type"):
            assert database.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (0,), "nobody can look at them"
    database.close()

    with server.used() as running, _client(server, running) as client:
        deadline = time.monotonic() + 60
        while client.get(f"flow_runs/{runs['last month']}").status_code != httpx.codes.NOT_FOUND:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert client.get(f"flow_runs/{runs['yesterday']}").is_success
