"""Prefect's surroundings: settings that must be in place before Prefect is imported, and an API to talk to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from eftcore.errors import EnvironmentProblem
from flows import server_access
from flows.server import LocalServer

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
    # The server records task runs in batches, and loses the last ones when it stops right after the last task. Large
    # batches each second keep up best; an interval below a second makes it spin.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}


def configure(home: Path) -> None:
    """Set Prefect's environment variables, leaving those that the user set. Call it before anything imports Prefect.

    Prefect's own database and profile live in ``home/prefect``, which only its owner can enter: another user of a
    shared ``home`` gets a folder of their own.
    """
    if "PREFECT_HOME" not in os.environ:
        os.environ["PREFECT_HOME"] = str(server_access.own_folder(home, "prefect"))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        Path.home()
    except RuntimeError:  # a user without a home, whom Prefect would not be imported for
        os.environ["HOME"] = os.environ["PREFECT_HOME"]


def local_server() -> LocalServer:
    """The local server of PREFECT_HOME, running or not; call ``configure`` first."""
    return LocalServer(Path(os.environ["PREFECT_HOME"]))


@contextlib.contextmanager
def api(*, whole: bool = False) -> Iterator[str]:
    """An API for the flows of this process: the configured one, or that of the local server, started where need be.

    ``whole`` asks for a local server with pages and schedules. Yields the URL; the local server's key is in the
    environment meanwhile.

    Raises EnvironmentProblem when a configured API does not answer or the local one does not start.
    """
    from prefect.settings import PREFECT_API_URL

    configured = PREFECT_API_URL.value()
    if configured:
        with _everywhere(known_key(configured)):
            require_answer(configured)
            yield configured
        return
    server = local_server()
    with (
        server.used(whole=whole) as running,
        _everywhere({"PREFECT_API_URL": running.url, server_access.AUTH_STRING: server.key}),
    ):
        yield running.url


def known_key(url: str) -> dict[str, str]:
    """PREFECT_API_AUTH_STRING for a configured API that is the local server's; nothing where it is set, or elsewhere.

    Call ``configure`` first.
    """
    if server_access.AUTH_STRING in os.environ:
        return {}
    server = local_server()
    running = server.running()
    if running is None or url.rstrip("/") not in (running.url, running.url.replace("127.0.0.1", "localhost")):
        return {}
    return {server_access.AUTH_STRING: server.key}


@contextlib.contextmanager
def _everywhere(settings: Mapping[str, str]) -> Iterator[None]:
    """Make these Prefect's settings in this process, in all its threads, and in its children.

    A thread of Prefect's own that does not see the address would start another server.
    """
    import prefect.settings
    from prefect.context import refresh_global_settings_context

    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    refresh_global_settings_context()
    try:
        updates = {getattr(prefect.settings, name): value for name, value in settings.items()}
        with prefect.settings.temporary_settings(updates):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        refresh_global_settings_context()


def require_answer(url: str) -> None:
    """Raises EnvironmentProblem when the API at PREFECT_API_URL does not answer, or asks for a key that we lack."""
    import httpx
    from prefect.client.orchestration import get_client

    from db.addresses import shown

    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
        if failure is None:
            try:
                client.hello()  # which, unlike the health, is not for everybody
            except httpx.HTTPStatusError as refusal:
                if refusal.response.status_code != httpx.codes.UNAUTHORIZED:
                    raise
                raise EnvironmentProblem(
                    f"PREFECT_API_URL = {shown(url)!r}: the server asks for a key; set {server_access.AUTH_STRING} to "
                    "it (`eft server key` prints that of a server started there)"
                ) from None
    if failure is not None:
        raise EnvironmentProblem(
            f"PREFECT_API_URL = {shown(url)!r}: does not answer ({failure or type(failure).__name__}); "
            "start that server, or unset the variable to use a local one"
        )
