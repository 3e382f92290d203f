"""Pictures of the explorer, as a browser draws them: `python -m ui.screenshots [FOLDER]` (needs the test extra).

Without FOLDER it writes the pictures of the documentation to docs/images; with it every page, light and dark, there.
Reads the results database as the explorer does; see `eft ui`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from db.settings import default_url
from eftcore.errors import EnvironmentProblem
from ui.data.sql import EXAMPLES
from ui.launch import arguments

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = {
    "answer": "/?my_sigma=relu&my_L=200",
    "windows": "/windows",
    "compare": "/compare",
    "run": "/run",
    "checks": "/checks",
    "predict": "/predict",
    "paper": "/paper",
    "sql": f"/sql?{urlencode({'sql': EXAMPLES['error of V4 over depth'], 'chart_shown': 'true'})}",
    "studies": "/studies",
}
LATE = {"predict": "Reference: the exact leading order", "answer": "What this rests on"}
"""Text on a page that appears only after it was first drawn; a picture waits for it."""

SHOWN = {"answer": 1270, "predict": 1200, "windows": 1060}
"""The pages that README and documentation show, each with the height of its picture in pixels, so that a file stays
below 150 kB."""

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

WIDTH = 1280
START_SECONDS = 60
PAGE_MILLISECONDS = 60_000


@contextmanager
def explorer(database_url: str) -> Iterator[str]:
    """Serve the explorer of a database on a free port while the block runs; yields its address without a final slash.

    Raises EnvironmentProblem where the server ends or does not answer in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, "-m", "streamlit", *arguments(port)],
        env={**os.environ, "EFT_DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            _wait_until_up(server, f"{address}/_stcore/health")
            yield address
        finally:
            server.terminate()
            server.communicate()


def _wait_until_up(server: subprocess.Popen[str], health: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    server.terminate()
    raise EnvironmentProblem(f"did not start ({server.communicate()[0]})", place="explorer")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of this machine. Raises EnvironmentProblem where there is none."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise EnvironmentProblem(
            "is not on this machine", place="Chromium", remedy="on Debian: apt-get install chromium"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def wait_until_drawn(page: Page) -> None:
    """Return when the page's script has ended and every chart and table on it is drawn."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=PAGE_MILLISECONDS)
    page.wait_for_function(
        """() => [...document.querySelectorAll('[data-testid=stPlotlyChart]')]
                     .every(chart => chart.querySelector('.main-svg'))
                 && [...document.querySelectorAll('[data-testid=stDataFrame]')]
                     .every(table => table.querySelector('canvas'))
                 && !document.querySelector('[data-testid=stSkeleton]')""",
        timeout=PAGE_MILLISECONDS,
    )


@contextmanager
def drawn(browser: Browser, address: str, name: str, scheme: Literal["light", "dark"]) -> Iterator[Page]:
    """One page of the explorer in full: the browser's window is enlarged until the page needs no scrolling."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme=scheme)
    page.goto(address + PAGES[name])
    page.get_by_role("heading", level=1).wait_for(timeout=PAGE_MILLISECONDS)
    if name in LATE:
        page.get_by_text(LATE[name]).wait_for(timeout=PAGE_MILLISECONDS)
    wait_until_drawn(page)
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": WIDTH, "height": height})
    wait_until_drawn(page)
    yield page
    page.close()


def every_page(folder: Path) -> None:
    """Write PAGE-light.png and PAGE-dark.png of every page into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with explorer(default_url()) as address, chromium() as browser:
        for scheme in SCHEMES:
            for name in PAGES:
                with drawn(browser, address, name, scheme) as page:
                    page.screenshot(path=folder / f"{name}-{scheme}.png", animations="disabled")


def shown_pages(folder: Path) -> None:
    """Write explorer-PAGE.png of the pages that the documentation shows into ``folder``."""
    with explorer(default_url()) as address, chromium() as browser:
        for name, height in SHOWN.items():
            with drawn(browser, address, name, "light") as page:
                page.screenshot(
                    path=folder / f"explorer-{name}.png",
                    clip={"x": 0, "y": 0, "width": WIDTH, "height": height},
                    animations="disabled",
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m ui.screenshots", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder for pictures of every page, light and dark")
    chosen = parser.parse_args().folder
    if chosen is None:
        shown_pages(Path("docs/images"))
    else:
        every_page(chosen)
