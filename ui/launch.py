"""Starting the explorer: arguments of Streamlit, and its server in the process of ``eft ui``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

APP = Path(__file__).with_name("app.py")


def arguments(port: int | None = None) -> list[str]:
    """Arguments of Streamlit that serve the explorer, on the loopback address only.

    Without ``port`` the server takes 8501 or the next free port above it. The settings in ``.streamlit/config.toml``
    next to the app apply in any working directory.

    >>> arguments(8600)[0], arguments(8600)[-1]
    ('run', '--server.port=8600')
    """
    given = ["run", str(APP), "--server.address=127.0.0.1"]
    return given if port is None else [*given, f"--server.port={port}"]


def serve(database_url: str, port: int | None = None) -> None:
    """Serve the explorer on a database until Ctrl-C or SIGTERM, which end this process at once.

    Streamlit itself would wait for open pages and their computations. What the explorer writes is one transaction each,
    so that its process may end at any point; a thread receives the signals in place of Streamlit's handlers.
    """
    from streamlit.web import cli

    from ui.waiting import processes

    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)

    def end() -> None:
        signal.sigwait(ends)
        sys.stdout.flush()
        os._exit(0)

    threading.Thread(target=end, name="eft-signals", daemon=True).start()
    os.environ["EFT_DATABASE_URL"] = database_url
    processes()  # one gets ready to compute before the first page asks
    cli.main(arguments(port), prog_name="streamlit")
