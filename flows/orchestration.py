"""Prefect's surroundings: settings that must be in place before Prefect is imported, and an API to talk to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from eftcore.errors import EnvironmentProblem
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

    Prefect's own database and profile live in ``home/prefect``; task results in ``home/results``.
    """
    try:
        (home / "prefect").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"{home}: cannot be written ({error.strerror}); choose a folder for results with EFT_HOME=PATH"
        ) from None
    os.environ.setdefault("PREFECT_HOME", str(home / "prefect"))
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(home / "results"))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def local_server() -> LocalServer:
    """The local server of PREFECT_HOME, running or not; call ``configure`` first."""
    return LocalServer(Path(os.environ["PREFECT_HOME"]))


@contextlib.contextmanager
def api(*, whole: bool = False) -> Iterator[str]:
    """An API for the flows of this process: the configured one, or that of the local server, started where need be.

    ``whole`` asks for a local server with pages and schedules. Yields the URL.

    Raises EnvironmentProblem when a configured API does not answer or the local one does not start.
    """
    from prefect.settings import PREFECT_API_URL

    configured = PREFECT_API_URL.value()
    if configured:
        require_answer(configured)
        yield configured
        return
    with local_server().used(whole=whole) as running, _everywhere(running.url):
        yield running.url


@contextlib.contextmanager
def _everywhere(url: str) -> Iterator[None]:
    """Make ``url`` the API of this process in all its threads, and of its children.

    A thread of Prefect's own that does not see the setting would start another server.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_API_URL, temporary_settings

    os.environ["PREFECT_API_URL"] = url
    refresh_global_settings_context()
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        del os.environ["PREFECT_API_URL"]
        refresh_global_settings_context()


def require_answer(url: str) -> None:
    """Raises EnvironmentProblem when the API at PREFECT_API_URL does not answer."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
    if failure is not None:
        raise EnvironmentProblem(
            f"PREFECT_API_URL = {url!r}: does not answer ({failure or type(failure).__name__}); "
            "start that server, or unset the variable to use a local one"
        )
