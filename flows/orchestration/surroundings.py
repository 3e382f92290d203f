"""Prefect's settings, which must be in place before it is imported, and the API that flows use."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from eftcore.errors import EnvironmentProblem
from flows.orchestration import server_access
from flows.orchestration.server import LocalServer, Running
from flows.orchestration.watch import ServerLost, watched

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",  # hides errors about events that a lost server did not receive
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

    Prefect's own database and profile are in ``home/prefect``, which only its owner can enter; another user of a shared
    ``home`` gets a separate folder.
    """
    if "PREFECT_HOME" not in os.environ:
        os.environ["PREFECT_HOME"] = str(server_access.own_folder(home, "prefect"))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    _ask_directly()
    try:
        Path.home()
    except RuntimeError:  # Prefect cannot be imported by a user without a home folder
        os.environ["HOME"] = os.environ["PREFECT_HOME"]


def _ask_directly() -> None:
    """Let requests to this machine bypass a network proxy (HTTP_PROXY)."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    direct = [host for host in given.split(",") if host]
    if "*" not in direct:
        direct += [host for host in ("127.0.0.1", "localhost", "::1") if host not in direct]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(direct)


def local_server() -> LocalServer:
    """The local server of PREFECT_HOME, running or not; call ``configure`` first."""
    return LocalServer(Path(os.environ["PREFECT_HOME"]))


_held: dict[Path, Running] = {}
_holding = threading.Lock()
_until_exit = contextlib.ExitStack()
atexit.register(_until_exit.close)


def _held_server(server: LocalServer, *, whole: bool) -> Running:
    """The local server, used until this process ends, since Prefect keeps its address in memory."""
    with _holding:
        held = _held.get(server.prefect_home)
        held = _until_exit.enter_context(server.used(whole=whole)) if held is None else server.again(held)
        _held[server.prefect_home] = held
        return held


@contextlib.contextmanager
def api(*, whole: bool = False, give_up: Callable[[ServerLost], None] = lambda lost: None) -> Iterator[str]:
    """An API for the flows of this process: the configured one, or the local server's, which is started if needed.

    Yields the URL. Within the block the server is watched, a local server that is lost is started again, and the key of
    the local server is in the environment.

    Args:
        whole: ask for a local server with pages and schedules.
        give_up: called, in another thread, when a server that was lost does not come back.

    Raises EnvironmentProblem when a configured API does not answer or the local one does not start, ServerLost when
    the block ended because the server was lost.
    """
    from prefect.settings import PREFECT_API_URL

    server = local_server()
    configured = PREFECT_API_URL.value()
    if configured:
        ours, url, settings = server.at(configured), configured, known_key(configured)
    else:
        ours = _held_server(server, whole=whole)
        url, settings = ours.url, {"PREFECT_API_URL": ours.url, server_access.AUTH_STRING: server.key}
    with _everywhere(settings):
        if configured:
            require_answer(url)
        with watched(url, None if ours is None else partial(server.again, ours), give_up):
            yield url


def known_key(url: str) -> dict[str, str]:
    """PREFECT_API_AUTH_STRING for a configured API that is the local server's; empty if set already or for another API.

    Call ``configure`` first.
    """
    if server_access.AUTH_STRING in os.environ:
        return {}
    server = local_server()
    return {server_access.AUTH_STRING: server.key} if server.at(url) else {}


@contextlib.contextmanager
def _everywhere(settings: Mapping[str, str]) -> Iterator[None]:
    """Set these settings of Prefect in this process, in all its threads, and in its child processes.

    Without them, one of Prefect's own threads would start another server. Child processes import our packages from the
    same place as this process, whatever is in the working directory. Warnings of Python's resource tracker, a child
    process that cleans up after worker processes, are silenced.
    """
    import prefect.settings
    from prefect import context

    ignored = os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker"
    wanted = {**settings, "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": ",".join(filter(None, ignored))}
    before = {name: os.environ.get(name) for name in wanted}
    of_all_threads = context.GLOBAL_SETTINGS_CONTEXT
    os.environ.update(wanted)
    context.refresh_global_settings_context()
    try:
        if context.get_settings_context() is context.GLOBAL_SETTINGS_CONTEXT:
            yield
        else:  # the caller has settings of its own, as within a flow
            updates = {getattr(prefect.settings, name): value for name, value in settings.items()}
            with prefect.settings.temporary_settings(updates):
                yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        context.GLOBAL_SETTINGS_CONTEXT = of_all_threads


def require_answer(url: str) -> None:
    """Raises EnvironmentProblem when the API at PREFECT_API_URL does not answer, or refuses our key."""
    import httpx
    from prefect.client.orchestration import get_client

    from db.addresses import shown

    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
        if failure is None:
            try:
                client.hello()  # needs the key, unlike the request for the server's health
            except httpx.HTTPStatusError as refusal:
                if refusal.response.status_code != httpx.codes.UNAUTHORIZED:
                    raise
                raise EnvironmentProblem(
                    "the server asks for a key",
                    place="PREFECT_API_URL",
                    value=shown(url),
                    remedy=f"set {server_access.AUTH_STRING} to it (`eft server key` prints that of a server started"
                    " there)",
                ) from None
    if failure is not None:
        raise EnvironmentProblem(
            f"does not answer ({failure or type(failure).__name__})",
            place="PREFECT_API_URL",
            value=shown(url),
            remedy="start that server, or unset the variable to use a local one",
        )
