"""Prefect's surroundings: settings that must be in place before Prefect is imported, and a server for one command.

Prefect needs an API. When PREFECT_API_URL names one, it is used. Otherwise a server of our own serves this command
alone: it holds the read end of a pipe whose write end only we have, so it stops when we do, however we end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from eftcore.errors import EnvironmentProblem

STARTUP_SECONDS = 120.0
STOP_SECONDS = 10.0

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


@contextlib.contextmanager
def server() -> Iterator[str]:
    """An API for the flows of this process: the configured one, or a temporary one that ends with the block.

    Yields its URL. Raises EnvironmentProblem when a configured API does not answer or a temporary one does not start.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    configured = PREFECT_API_URL.value()
    if configured:
        _require_answer(configured)
        yield configured
        return
    with _temporary_server() as url, temporary_settings({PREFECT_API_URL: url}):
        yield url


def _require_answer(url: str) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
    if failure is not None:
        raise EnvironmentProblem(
            f"PREFECT_API_URL = {url!r}: does not answer ({failure or type(failure).__name__}); "
            "start that server, or unset the variable to use a temporary one"
        )


@contextlib.contextmanager
def _temporary_server() -> Iterator[str]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.orchestration", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
        start_new_session=True,  # Ctrl-C is for us to answer; the server follows through the pipe
    )
    assert process.stdin is not None
    try:
        _wait_until_healthy(process, url)
        yield url
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str) -> None:
    import httpx

    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EnvironmentProblem(
                f"the temporary Prefect server ended at once (exit code {process.returncode}); "
                f"check that {os.environ['PREFECT_HOME']} can be written, or set PREFECT_API_URL to a running server"
            )
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.05)
    raise EnvironmentProblem(
        f"the temporary Prefect server did not answer within {STARTUP_SECONDS:.0f} s; "
        "try again, or set PREFECT_API_URL to a running server"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(port: int) -> None:
    """Serve Prefect's API on loopback until standard input closes."""
    import uvicorn
    from prefect.server.api.server import create_app

    application = create_app(final=True, ephemeral=True)
    api = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="critical"))

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        api.should_exit = True
        time.sleep(STOP_SECONDS / 2)
        os._exit(0)

    threading.Thread(target=stop_with_parent, daemon=True).start()
    api.run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
