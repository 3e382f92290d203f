"""An S3-compatible server (moto's) that tests start, make unreachable, and count the requests of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

SECRET = "its-secret-key"
STRANGER = "a-stranger"
"""The access key that the server refuses."""

_REFUSAL = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.0"  # no connection outlives its request, so that one that goes away is gone

    def log(self, *_: Any) -> None:
        """Say nothing."""


class ObjectServer:
    """A server on a port of its own, with its objects in this process."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer | None = None
        self.port = 0
        self._start()

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which the AWS libraries find the server."""
        return {
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def _start(self) -> None:
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True, request_handler=_Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Be unreachable: nothing listens at the port any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Within the block it is unreachable."""
        self.stop()
        try:
            yield
        finally:
            self._start()

    def away_for(self, seconds: float) -> None:
        """Be unreachable from now on, for so long."""
        self.stop()
        threading.Timer(seconds, self._start).start()

    def _answer(self, environment: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append(f"{environment['REQUEST_METHOD']} {environment['PATH_INFO']}")
        if STRANGER in environment.get("HTTP_AUTHORIZATION", ""):
            respond("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_REFUSAL)))])
            return [_REFUSAL]
        answer: Iterable[bytes] = self._application(environment, respond)
        return answer
