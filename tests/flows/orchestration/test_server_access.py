"""Only who can read its key uses a local Prefect server: no other user, and no page in somebody's browser."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from eftcore.errors import EnvironmentProblem
from flows.orchestration import server_access, surroundings
from flows.orchestration.server import LocalServer, Running
from tests.flows import warm
from tests.servers import PrefectHome

EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def server(prefect_home: PrefectHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    server = LocalServer(prefect_home(tmp_path_factory.mktemp("access") / "prefect"))
    server.start()
    yield server
    server.stop(force=True)


@pytest.fixture
def running(server: LocalServer) -> Running:
    found = server.running()
    assert found is not None
    return found


def _basic(key: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(key.encode()).decode()}"}


@pytest.mark.parametrize("path", ["flows/filter", "deployments/filter", "flow_runs/filter", "admin/settings", "flows/"])
def test_without_the_key_every_question_is_refused(server: LocalServer, running: Running, path: str):
    with httpx.Client(base_url=f"{running.url}/", trust_env=False) as client:
        method = "GET" if path.startswith("admin") else "POST"
        body = {"name": "x"} if path == "flows/" else {}
        for shown in (
            {},
            _basic("eft:wrong"),
            _basic("eft"),
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic x"},
        ):
            assert client.request(method, path, json=body, headers=shown).status_code == 401
        assert client.request(method, path, json=body, headers=_basic(server.key)).is_success
        assert client.get("health").status_code == 200


def test_the_pages_know_the_kinds_of_blocks(server: LocalServer, running: Running):
    found = httpx.post(f"{running.url}/block_types/filter", json={}, headers=_basic(server.key), trust_env=False)
    assert "secret" in {kind["slug"] for kind in found.raise_for_status().json()}


def test_a_page_of_another_origin_may_not_ask(server: LocalServer, running: Running):
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    with httpx.Client(trust_env=False) as client:
        preflight = client.options(f"{running.url}/flows/filter", headers=asked)
        assert "access-control-allow-origin" not in preflight.headers
        assert preflight.status_code == 400
        own = client.options(f"{running.url}/flows/filter", headers={**asked, "Origin": running.pages})
        assert own.headers["access-control-allow-origin"] == running.pages
        sent = client.post(f"{running.url}/flow_runs/filter", json={}, headers={"Origin": EVIL})
        assert sent.status_code == 401
        assert "access-control-allow-origin" not in sent.headers


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
@pytest.mark.parametrize("subprotocols", [None, ["prefect"]])
def test_event_streams_ask_for_the_key_too(server: LocalServer, running: Running, path: str, subprotocols):
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    address = f"ws://127.0.0.1:{running.port}/api/{path}"

    def listen() -> str:
        with connect(address, subprotocols=subprotocols) as socket:
            socket.send(json.dumps({"type": "auth", "token": "eft:wrong"}))
            return str(socket.recv(timeout=10))

    with pytest.raises((ConnectionClosed, InvalidStatus)):
        listen()


def test_the_key_is_a_file_for_its_owner_alone(server: LocalServer):
    path = server.folder / server_access.KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert LocalServer(server.prefect_home).key == server.key, "made once and kept"
    assert sorted(item.name for item in server.folder.glob("key*")) == ["key"]
    log = (server.folder / "server.log").read_text()
    assert server.key not in log + (server.folder / "server.json").read_text()
    arguments = Path(f"/proc/{server.running().pid}/cmdline").read_bytes()  # type: ignore[union-attr]
    assert server.key.encode() not in arguments


def test_a_key_that_others_can_read_is_refused(tmp_path: Path):
    server = LocalServer(tmp_path)
    first = server.key
    (server.folder / "key").chmod(0o640)
    with pytest.raises(EnvironmentProblem, match=r"server/key: others can read .* delete it"):
        _ = server.key
    (server.folder / "key").unlink()
    assert server.key != first


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another user takes root")
def test_the_folder_of_another_user_is_not_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "prefect" / "server").mkdir(parents=True)
    os.chown(tmp_path / "prefect" / "server", 65534, 65534)
    with pytest.raises(EnvironmentProblem, match="belongs to another user"):
        LocalServer(tmp_path / "prefect")
    os.chown(tmp_path / "prefect", 65534, 65534)
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    for name in surroundings.QUIET:
        monkeypatch.setenv(name, surroundings.QUIET[name])
    surroundings.configure(tmp_path)
    assert os.environ["PREFECT_HOME"] == str(tmp_path / f"prefect-{os.geteuid()}")
    assert stat.S_IMODE((tmp_path / f"prefect-{os.geteuid()}").stat().st_mode) == 0o700
    monkeypatch.delenv("PREFECT_HOME")


def test_commands_find_the_key_and_say_what_lacks_without_it(ready: dict[str, str], tiny: Path):
    started = warm.run(ready, "server", "start")
    try:
        assert "eft server key" in started.stdout
        key = warm.run(ready, "server", "key").stdout.strip()
        assert key.startswith("eft:")
        assert len(key) > 40
        assert key not in started.stdout + warm.run(ready, "server", "status").stdout
        address = json.loads(warm.run(ready, "server", "status", "--json").stdout)["api"]
        configured = {**ready, "PREFECT_API_URL": address}
        assert "12 computed" in warm.run(configured, "run", str(tiny)).stdout
        elsewhere = {**configured, "EFT_HOME": f"{ready['EFT_HOME']}-other"}
        assert warm.run(elsewhere, "db", "upgrade").returncode == 0
        refused = warm.run(elsewhere, "run", str(tiny))
        assert refused.returncode == 1
        assert "PREFECT_API_AUTH_STRING" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert "12 computed" in warm.run({**elsewhere, "PREFECT_API_AUTH_STRING": key}, "run", str(tiny)).stdout
    finally:
        warm.run(ready, "server", "stop", "--force")


@pytest.mark.browser
def test_a_person_shows_the_key_to_the_pages_once(server: LocalServer, running: Running):
    import shutil

    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{running.pages}/deployments")
        page.locator("input[type=password]").fill(server.key)
        page.keyboard.press("Enter")
        page.get_by_text("Deployments").first.wait_for(timeout=30_000)
        page.reload()
        page.get_by_text("Deployments").first.wait_for(timeout=30_000)
        assert page.locator("input[type=password]").count() == 0
        browser.close()
