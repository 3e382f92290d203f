"""The local Prefect server: one for all commands that share a PREFECT_HOME; it ends when no command uses it.

The state is kept in files below PREFECT_HOME/server, by locks that the kernel releases however their holder ends:

* ``alive`` is locked by the server; ``server.json`` says where it listens.
* ``users`` is locked, shared, by each command that uses the server. A server that gets an exclusive lock has no users.
* ``change`` is locked while a process starts or stops the server.
* ``key`` holds the key that clients have to send (flows/orchestration/server_access.py).

A server started by a command ends with the last command that uses it. A server of ``eft server start`` also has
Prefect's pages and schedules, and runs until ``eft server stop``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from eftcore.errors import EnvironmentProblem
from flows.orchestration import history, server_access
from flows.orchestration.watch import SERVER, answers

STARTUP_SECONDS = 120.0
STOP_SECONDS = 10.0
PORT = 4200
"""Prefect's default port; where it is taken, the next free one is used."""

_LOOK_SECONDS = 0.5
_DATABASE = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
"""The two environment variables that may hold the address of Prefect's own database."""

COMMAND = (
    *(sys.executable, "-P", "-c"),
    f"import runpy, sys; sys.path.append({str(Path(__file__).parents[2])!r}); "
    "runpy.run_module('flows.orchestration.server', run_name='__main__')",
)
"""Command that runs this module as a program: ``serve`` with its three arguments, the socket by the number of its file.

It ignores the working directory, which may have a folder ``flows``."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that this process started."""


@dataclass(frozen=True)
class Running:
    """A server: its process, its address, whether it has pages and schedules, whether it is kept without users."""

    pid: int
    port: int
    whole: bool
    kept: bool
    started_at: float

    @property
    def url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def pages(self) -> str:
        """Address of Prefect's pages, which only a whole server has."""
        return f"http://127.0.0.1:{self.port}"


class LocalServer:
    """The server of one PREFECT_HOME, running or not."""

    def __init__(self, prefect_home: Path) -> None:
        self.prefect_home = prefect_home
        self.folder = server_access.private_folder(prefect_home / "server")

    @contextlib.contextmanager
    def used(self, *, whole: bool = False) -> Iterator[Running]:
        """Use the server while the block runs; it is started if there is none. The last user waits until it has ended.

        Args:
            whole: ask for a server with Prefect's pages and schedules, which starts more slowly.

        Raises EnvironmentProblem when it does not start.
        """
        with self._open("users") as users:
            fcntl.flock(users, fcntl.LOCK_SH)
            with self._locked("change"):
                running = self._answering(whole=whole) or self._start(whole=whole, kept=False)
            try:
                yield running
            finally:
                with contextlib.suppress(FileNotFoundError):  # without its folder the server ends by itself
                    if _try_lock(users):
                        left = self.running()  # it may be another server, if ours hung and was replaced
                        if left is not None and not left.kept:
                            self._end(left.pid)

    def again(self, lost: Running) -> Running:
        """The server at the port of ``lost``, started again if it ended or hangs. Raises EnvironmentProblem."""
        with self._locked("change"):
            running = self._answering(whole=lost.whole)
            if running is None:
                running = self._start(whole=lost.whole, kept=lost.kept, port=lost.port)
            if running.port != lost.port:
                raise EnvironmentProblem(
                    "has gone", place=SERVER, value=lost.pages, remedy=f"another one is at {running.pages}"
                )
            return running

    def start(self, port: int | None = None) -> Running:
        """Start a server that runs without users; one that runs already is kept. Raises EnvironmentProblem."""
        with self._locked("change"):
            running = self._answering(whole=True)
            if running is not None and running.kept:
                return running
            if running is not None:
                self._refuse_if_used(running)
                self._end(running.pid)
            return self._start(whole=True, kept=True, port=port)

    def stop(self, *, force: bool = False) -> Running | None:
        """End the server and return it; None if there was none. Raises EnvironmentProblem if it is in use."""
        with self._locked("change"):
            running = self.running()
            if running is not None:
                if not force:
                    self._refuse_if_used(running)
                self._end(running.pid)
            return running

    def at(self, url: str) -> Running | None:
        """The server, if it is running and ``url`` is the address of its API; else None."""
        running = self.running()
        addresses = () if running is None else (running.url, running.url.replace("127.0.0.1", "localhost"))
        return running if url.rstrip("/") in addresses else None

    @property
    def key(self) -> str:
        """The key that clients have to send. Raises EnvironmentProblem when other users can read it."""
        return server_access.key(self.folder)

    def running(self) -> Running | None:
        """The server if its process is running, whether it answers or not."""
        with self._open("alive") as alive:
            if _try_lock(alive):
                return None
        return self._card()

    def is_used(self) -> bool:
        """Whether a command uses the server now."""
        with self._open("users") as users:
            return not _try_lock(users)

    def _card(self) -> Running | None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Running(**json.loads((self.folder / "server.json").read_text()))
        return None

    def _left(self) -> int | None:
        """The port of a server that was killed, where other commands wait for it.

        A server that ends in order removes ``server.json``, which holds the port.
        """
        card = self._card()
        return None if card is None else card.port

    def _answering(self, *, whole: bool) -> Running | None:
        """The server if it is running and answers; a server that hangs is killed."""
        running = self.running()
        if running is None:
            return None
        if not answers(running.url):
            self._end(running.pid)
            return None
        if whole and not running.whole:
            raise EnvironmentProblem(
                "is that of a running command, without pages and schedules",
                place=SERVER,
                value=running.pages,
                remedy="wait until it has ended",
            )
        return running

    def _start(self, *, whole: bool, kept: bool, port: int | None = None) -> Running:
        log = self.folder / "server.log"
        with _listening(port or self._left() or (PORT if whole else 0)) as door, log.open("wb") as output:
            # that of a server that was killed says nothing of the new one
            (self.folder / "server.json").unlink(missing_ok=True)
            taken = door.getsockname()[1]
            if port is not None and taken != port:
                raise EnvironmentProblem(
                    "is taken", place="port", value=port, remedy="choose another one, or leave it out"
                )
            running = Running(pid=0, port=taken, whole=whole, kept=kept, started_at=time.time())
            process = subprocess.Popen(
                [*COMMAND, str(self.folder), str(door.fileno()), json.dumps(asdict(running))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(running),
                pass_fds=[door.fileno()],
                start_new_session=True,  # so that Ctrl-C reaches only the commands that use the server
            )
        _children[process.pid] = process
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise EnvironmentProblem(
                    f"ended at once (exit code {process.returncode}, see {log})",
                    place=SERVER,
                    remedy=f"check that {self.prefect_home} can be written, or set PREFECT_API_URL to a running server",
                )
            ready = self._card()
            if ready is not None and answers(ready.url):
                return ready
            time.sleep(0.05)
        self._end(process.pid)
        raise EnvironmentProblem(
            f"did not answer within {STARTUP_SECONDS:.0f} s",
            place=SERVER,
            remedy="try again, or set PREFECT_API_URL to a running server",
        )

    def _end(self, pid: int) -> None:
        """Ask the process to end, kill it if it does not, and return when it has ended."""
        deadline = time.monotonic() + STOP_SECONDS
        with self._open("alive") as alive, contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            while not _try_lock(alive):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    deadline = float("inf")
                time.sleep(0.02)
        if pid in _children:
            _children.pop(pid).wait()

    def _refuse_if_used(self, running: Running) -> None:
        if self.is_used():
            raise EnvironmentProblem(
                "is in use by a running command",
                place=SERVER,
                value=running.pages,
                remedy="wait until that has ended",
            )

    def _environment(self, running: Running) -> dict[str, str]:
        """Environment of the server process. Its pages find the API by the address set here."""
        given = {
            "PREFECT_HOME": str(self.prefect_home),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(running.port),
            "PREFECT_UI_API_URL": running.url,
            "PREFECT_UI_ENABLED": str(int(running.whole)),
            "PREFECT_UI_STATIC_DIRECTORY": str(self.prefect_home / "ui"),
            "PREFECT__SERVER_FINAL": "1",
            # kinds of blocks are shown on the pages alone
            "PREFECT_API_BLOCKS_REGISTER_ON_START": str(int(running.whole)),
            "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": str(int(running.whole)),
            **self._own_database(),
            **server_access.protection(self.key, running.port),
        }
        inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        return {**history.settings(pages=running.whole), **inherited, **given}

    def _own_database(self) -> dict[str, str]:
        """Address of Prefect's own database, where the address that Prefect builds from the path would be wrong."""
        import sqlalchemy as sa

        path = str(self.prefect_home / "prefect.db")
        pasted = sa.make_url(f"sqlite+aiosqlite:///{path}")
        if pasted.database == path or any(name in os.environ for name in _DATABASE):
            return {}
        return {_DATABASE[0]: sa.URL.create("sqlite+aiosqlite", database=path).render_as_string()}

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with self._open(name) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _open(self, name: str) -> IO[bytes]:
        return (self.folder / name).open("ab")


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _listening(wanted: int) -> socket.socket:
    """A socket that listens at this port, or at another if it is taken; the server then keeps the port."""
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("127.0.0.1", wanted))
        door.listen()
    except OSError:  # two processes may bind to the same port; the second one fails when it listens
        door.close()
        if wanted == 0:
            raise
        return _listening(0)
    return door


def serve(folder: Path, door: socket.socket, wanted: Running) -> None:
    """Serve Prefect's API at an open socket until SIGTERM or, unless the server is kept, until no command uses it."""
    alive = (folder / "alive").open("ab")
    for _ in range(100):  # another process may hold the lock for a moment, to see whether a server runs
        if _try_lock(alive):
            break
        time.sleep(0.01)
    else:
        sys.exit("another server runs here")
    card = folder / "server.json"

    import uvicorn
    from prefect.server.api.server import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.pruning = asyncio.create_task(history.prune())

    # without pages and schedules the server starts in half the time
    application = create_app(final=True, ephemeral=not wanted.whole)
    api = Server(uvicorn.Config(application, log_level="critical"))
    me = replace(wanted, pid=os.getpid())

    def look_after() -> None:
        with contextlib.suppress(OSError):  # without its folder no command can find the server
            users = (folder / "users").open("ab")
            while not api.should_exit:
                if api.started and not card.exists():
                    card.with_suffix(".part").write_text(json.dumps(asdict(me)))
                    card.with_suffix(".part").replace(card)
                if not me.kept and _try_lock(users):  # it stays locked: a new user waits until this server has ended
                    break
                time.sleep(_LOOK_SECONDS if api.started else 0.05)
            card.unlink(missing_ok=True)
        api.should_exit = True
        time.sleep(STOP_SECONDS / 2)
        os._exit(0)

    threading.Thread(target=look_after, daemon=True).start()
    api.run(sockets=[door])


if __name__ == "__main__":
    serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), Running(**json.loads(sys.argv[3])))
