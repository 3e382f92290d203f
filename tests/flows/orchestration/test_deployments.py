"""Flows triggered through Prefect: `eft serve`, and prefect.yaml with a work pool and a worker, on a real server."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from db.reading import queries
from db.session import Database
from eftcore.errors import EnvironmentProblem
from tests.flows import warm
from ui.data.deployments import trigger

ROOT = Path(__file__).parents[3]
CONFIGURATION = {"activation": "tanh", "epsilon": 0.5, "total_time": 1.0, "width": 8, "samples": 64}
FLOWS = {"run-study", "run-configuration", "top-up", "verify-theorems", "sweep-stale"}


@pytest.fixture
def served(ready: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of the server that `eft serve` offers the deployments on; it looks each second for what was triggered.

    Processes of flow runs have everything imported; in tests/flows/cli/test_how_to.py they start as for a user.
    """
    ready |= {"PREFECT_RUNNER_POLL_FREQUENCY": "1", warm.FLOW_RUNS: "1"}
    with warm.start(ready, "serve") as serve:
        assert serve.stdout is not None
        pages = serve.stdout.readline().split()[-1]
        ready["PREFECT_API_AUTH_STRING"] = warm.run(ready, "server", "key").stdout.strip()
        shown = tuple(ready["PREFECT_API_AUTH_STRING"].split(":"))
        with httpx.Client(base_url=f"{pages}/api/", auth=shown, trust_env=False, timeout=60) as client:
            _until(lambda: len(client.post("deployments/filter", json={}).json()) == len(FLOWS))
            yield client
        serve.terminate()
        serve.wait(60)


def _until(ready: Any) -> Any:
    deadline = time.monotonic() + 180
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def _deployment(client: httpx.Client, flow: str, name: str) -> dict[str, Any]:
    return client.get(f"deployments/name/{flow}/{name}").json()


def _answer(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer to a request; while its database is locked the server answers 503 and asks to try again."""

    def answered() -> httpx.Response | None:
        answer = send()
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

    answer: httpx.Response = _until(answered)
    return answer


def _trigger(
    client: httpx.Client, deployment: dict[str, Any], request: dict[str, Any], **further: Any
) -> httpx.Response:
    """Create a flow run."""
    body = {"parameters": {"request": request}, **further}
    return _answer(lambda: client.post(f"deployments/{deployment['id']}/create_flow_run", json=body))


def _change(client: httpx.Client, deployment: dict[str, Any], job_variables: dict[str, Any]) -> None:
    """Change the job variables of a deployment."""
    body = {"job_variables": job_variables}
    _answer(lambda: client.patch(f"deployments/{deployment['id']}", json=body)).raise_for_status()


def _triggered(client: httpx.Client, deployment: dict[str, Any], request: dict[str, Any]) -> str:
    """Id of a flow run that was accepted."""
    answer = _trigger(client, deployment, request)
    assert answer.is_success, f"{answer.status_code}: {answer.text}"
    return str(answer.json()["id"])


def _ended(client: httpx.Client, run: str) -> dict[str, Any]:
    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    def look() -> dict[str, Any] | None:
        found = client.get(f"flow_runs/{run}").json()
        return found if found["state_type"] in final else None

    return dict(_until(look))


WRONG = (
    ({"width": 0}, "less than the minimum of 1"),
    ({"widht": 8}, "widht"),
    ({"activation": "tahn"}, "does not match"),
    ({"activation": "tanh; rm"}, "does not match"),
    ({"activation": "tanhtanh"}, "does not match"),
    ({"activation": "softplus(beta=two)"}, "does not match"),
    ({"closures": ["gonly"]}, "is not one of"),
    ({"epsilon": "small"}, "is not of type"),
    ({"tolerances": [2]}, "greater than or equal to the maximum"),
    ({"seed": -1}, "less than the minimum"),
)


@pytest.mark.parametrize("worker", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_flows_are_triggered_with_a_checked_form(
    served: httpx.Client,
    environment: dict[str, str],
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    worker: bool,
):
    """The worker of a work pool carries a flow out in docs/how-to/deploy.md too, whose commands always run."""
    deployment = _deployment(served, "run-configuration", "eft")
    form = deployment["parameter_openapi_schema"]["definitions"]["ConfigurationRequest"]["properties"]
    assert form["estimator"]["enum"] == ["plain", "paired"]
    assert form["weight_variance"]["description"] == "C_W"
    for wrong, said in WRONG:
        refused = _trigger(served, deployment, {**CONFIGURATION, **wrong})
        assert refused.status_code == 409, wrong
        assert said in refused.json()["detail"]
    assert served.post("flow_runs/filter", json={"flows": {"name": {"any_": ["run-configuration"]}}}).json() == []

    # what a run of it may override does not reach the process
    mark = tmp_path / "it-ran"
    hostile = {"command": f"touch {mark}", "env": {"EFT_HOME": str(tmp_path / "elsewhere")}, "working_dir": "/"}
    run = str(_trigger(served, deployment, CONFIGURATION, job_variables=hostile).json()["id"])
    assert _ended(served, run)["state_type"] == "COMPLETED"
    db = Database(f"sqlite:///{environment['EFT_HOME']}/results.db", read_only=True)
    runs = queries.runs(db)
    db.dispose()
    assert set(runs["status"]) == {"succeeded"}
    assert set(runs["flow_run_id"]) == {run}
    (schedule,) = _deployment(served, "sweep-stale", "eft")["schedules"]
    assert schedule["schedule"]["interval"] == 600

    assert not mark.exists()
    assert not (tmp_path / "elsewhere").exists()

    # as the explorer's button does
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    with pytest.raises(EnvironmentProblem, match="asks for a key"):
        trigger(str(served.base_url), str(tiny))
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", environment["PREFECT_API_AUTH_STRING"])
    name = trigger(str(served.base_url), str(tiny))
    (run,) = served.post("flow_runs/filter", json={"flow_runs": {"name": {"any_": [name, "tiny"]}}}).json()
    ended = _ended(served, run["id"])
    assert (ended["state_type"], ended["name"]) == ("COMPLETED", "tiny")

    # the same flows from prefect.yaml, carried out by a worker
    with_api = {**environment, "PREFECT_API_URL": str(served.base_url).rstrip("/"), "PREFECT_HOME": str(tmp_path / "p")}
    for name in ("prefect.yaml", "work-pool.json"):
        shutil.copy(ROOT / name, tmp_path)
    prefect = [str(warm.commands() / "prefect"), "--no-prompt"]
    create = ["work-pool", "create", "eft", "--type", "process", "--base-job-template", "work-pool.json"]
    for arguments in (create, ["deploy", "--all"]):
        done = subprocess.run([*prefect, *arguments], env=with_api, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    pool = {flow: _deployment(served, flow, "pool") for flow in FLOWS}
    assert all(deployment["work_pool_name"] == "eft" for deployment in pool.values())
    for name, value in hostile.items():
        further = {"job_variables": {name: value}}
        assert _trigger(served, pool["run-configuration"], CONFIGURATION, **further).is_client_error, name
        _change(served, pool["run-configuration"], {name: value})
        assert _trigger(served, pool["run-configuration"], CONFIGURATION).is_client_error, name
    _change(served, pool["run-configuration"], {})
    run = _triggered(served, pool["run-configuration"], {**CONFIGURATION, "activation": "erf"})
    assert _answer(lambda: served.patch(f"flow_runs/{run}", json={"job_variables": hostile})).is_client_error
    if not worker:
        return
    command = [*prefect, "worker", "start", "--pool", "eft", "--run-once"]
    done = subprocess.run(command, env=with_api, cwd=tmp_path, capture_output=True, text=True)
    assert _ended(served, run)["state_type"] == "COMPLETED", done.stdout + done.stderr
    assert not mark.exists()
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_with_packages_of_our_names_is_no_place_to_serve(
    foreign_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from flows import deployments

    monkeypatch.chdir(foreign_folder)
    with pytest.raises(EnvironmentProblem, match=r"project/eftcore: .*start `eft serve` in another folder"):
        deployments.serve(1)
