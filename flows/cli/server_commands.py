"""``eft server``: a local Prefect server that keeps running between commands."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.orchestration.server import LocalServer

server_app = typer.Typer(
    name="server",
    help="The local Prefect server: commands start one when they need it; keep one for its pages and schedules.",
    epilog="Example: eft server start",
    no_args_is_help=True,
)


@server_app.command(epilog="Example: eft server start --port 4321")
def start(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; 4200, else a free one.")] = None,
) -> None:
    """Start a server that stays until `eft server stop`; `eft run` and others then use it and start faster."""
    running = _local_server().start(port)
    print(f"Prefect server {running.pages} (process {running.pid}), key: `eft server key`; `eft server stop` ends it")


@server_app.command(epilog="Example: eft server stop")
def stop(
    force: Annotated[
        bool, typer.Option("--force", help="Also while a command uses it, which starts it again.")
    ] = False,
) -> None:
    """Stop the server."""
    stopped = _local_server().stop(force=force)
    print("no Prefect server runs here" if stopped is None else f"Prefect server {stopped.pages} stopped")


@server_app.command(epilog="Example: eft server key")
def key() -> None:
    """Print the key that the server asks for: for its pages, and as PREFECT_API_AUTH_STRING for `prefect`."""
    print(_local_server().key)


@server_app.command(epilog="Example: eft server status --json")
def status(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say whether a server runs, where, and whether a command uses it."""
    from flows import tables

    described = _describe()
    if json:
        tables.print_json(described)
    else:
        for name, value in described.items():
            print(f"{name}: {value}")


def _local_server() -> LocalServer:
    """The server of EFT_HOME, running or not. Its module is imported here, since every command loads this one."""
    from db.settings import data_home
    from flows.orchestration import surroundings

    surroundings.configure(data_home())
    return surroundings.local_server()


def _describe() -> dict[str, Any]:
    """The state of the server, with the keys of ``eft server status --json``."""
    from flows.orchestration.watch import answers

    server = _local_server()
    running = server.running()
    described: dict[str, Any] = {"running": running is not None, "prefect_home": str(server.prefect_home)}
    if configured := os.environ.get("PREFECT_API_URL"):
        from db.addresses import shown

        described["used_instead"] = shown(configured)
    if running is not None:
        described |= {
            "answers": answers(running.url),
            "api": running.url,
            "pages": running.pages if running.whole else None,
            "process": running.pid,
            "up_seconds": round(time.time() - running.started_at),
            "used": server.is_used(),
            "stays": running.kept,
        }
    return described
