"""Asking a configured Prefect server to run a study: the deployment of the flow run-study, over its REST API.

If the server requires a key, it is read from PREFECT_API_AUTH_STRING, as by Prefect's own clients.
"""

from __future__ import annotations

import base64
import os
import time
from typing import Any

import httpx

from db.addresses import shown
from eftcore.errors import EnvironmentProblem

FLOW = "run-study"
_SECONDS = 5
_TRIES, _PAUSE = 4, 0.5
"""Number of tries and seconds between them: Prefect answers 503 while its database is locked."""


def server() -> str | None:
    """Address of the Prefect API that the environment names; None if it names none."""
    return os.environ.get("PREFECT_API_URL") or None


def trigger(api: str, study: str, transport: httpx.BaseTransport | None = None) -> str:
    """Start the deployment of run-study with a study file; returns the name of the flow run.

    Args:
        study: path of the file, which must exist on the machine of the worker.

    Raises EnvironmentProblem where the server does not answer, refuses, or has no such deployment.
    """
    key = os.environ.get("PREFECT_API_AUTH_STRING")
    credentials = {"Authorization": f"Basic {base64.b64encode(key.encode()).decode()}"} if key else {}
    try:
        with httpx.Client(
            base_url=api.rstrip("/"), timeout=_SECONDS, transport=transport, headers=credentials
        ) as client:
            wanted = {"flows": {"name": {"any_": [FLOW]}}, "sort": "UPDATED_DESC", "limit": 1}
            found = _answer(client, "/deployments/filter", wanted)
            if not found:
                raise EnvironmentProblem(
                    f"has no deployment of the flow {FLOW}",
                    place="Prefect server",
                    value=shown(api),
                    remedy=f"start `eft serve`, or run the file with `eft run {study}`",
                )
            body = {"parameters": {"request": {"study": study}}}
            run = _answer(client, f"/deployments/{found[0]['id']}/create_flow_run", body)
    except httpx.HTTPError as problem:
        raise EnvironmentProblem(
            f"does not answer ({type(problem).__name__})",
            place="Prefect server",
            value=shown(api),
            remedy="start it, or unset PREFECT_API_URL",
        ) from None
    return str(run["name"])


def _answer(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    for _ in range(_TRIES):
        response = client.post(path, json=body)
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(_PAUSE)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise EnvironmentProblem(
            "asks for a key",
            place="Prefect server",
            value=response.request.url.host,
            remedy="start the explorer with its PREFECT_API_AUTH_STRING",
        )
    if response.is_error:
        raise EnvironmentProblem(
            f"refused {path} with {response.status_code}: {response.text[:200]}", place="Prefect server"
        )
    return response.json()
