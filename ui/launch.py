"""How the explorer is started: the command and the environment of its server process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

APP = Path(__file__).with_name("app.py")


def command(port: int | None = None) -> list[str]:
    """Arguments of the process that serves the explorer, on the loopback address only.

    ``port`` None takes 8501, or the next free port above it. The settings in ``.streamlit/config.toml``
    next to the app hold from any working directory.

    >>> command(8600)[1:4], command(8600)[-1]
    (['-m', 'streamlit', 'run'], '--server.port=8600')
    """
    arguments = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.address=127.0.0.1"]
    return arguments if port is None else [*arguments, f"--server.port={port}"]


def environment(database_url: str) -> dict[str, str]:
    """This process's environment with the results database in it.

    The URL travels in the environment, not in the arguments: it may hold a password, and arguments are public.
    """
    return {**os.environ, "EFT_DATABASE_URL": database_url}


def serve(database_url: str, port: int | None = None) -> NoReturn:
    """Become the explorer's server: this process is replaced, so signals and the exit code need no forwarding."""
    arguments = command(port)
    sys.stdout.flush()
    os.execve(arguments[0], arguments, environment(database_url))
