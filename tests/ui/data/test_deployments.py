"""Asking a Prefect server for a run: what is sent, and what is said when it does not work."""

from __future__ import annotations

import json

import httpx
import pytest

from eftcore.errors import EnvironmentProblem
from ui.data import deployments

API = "http://prefect:4200/api"


def test_the_deployment_of_the_study_flow_is_started_with_the_file() -> None:
    sent: list[tuple[str, dict[str, object]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, json.loads(request.content)))
        if request.url.path.endswith("filter"):
            return httpx.Response(200, json=[{"id": "abc"}])
        return httpx.Response(201, json={"name": "brave-lynx"})

    assert deployments.trigger(API, "/studies/x.toml", httpx.MockTransport(answer)) == "brave-lynx"
    (listed, wanted), (created, body) = sent
    assert (listed, created) == ("/api/deployments/filter", "/api/deployments/abc/create_flow_run")
    assert wanted["flows"] == {"name": {"any_": ["run-study"]}}
    assert body == {"parameters": {"request": {"study": "/studies/x.toml"}}}


def _refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no route")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda request: httpx.Response(200, json=[]), "no deployment"),
        (lambda request: httpx.Response(422, text="bad"), "refused .* 422"),
        (_refuse, "does not answer"),
    ],
)
def test_what_went_wrong_is_said(answer: object, words: str) -> None:
    with pytest.raises(EnvironmentProblem, match=words):
        deployments.trigger(API, "x.toml", httpx.MockTransport(answer))


def test_no_server_is_asked_where_none_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert deployments.server() is None
