"""Take docs/images/prefect-form.png: `python docs/prefect_screenshots.py` (needs Chromium)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
COMMAND = (sys.executable, "-m", "flows.cli")


def main() -> None:
    """Serve the deployments on a server of their own, and photograph the form of one of them."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "EFT_HOME": folder}
        subprocess.run([*COMMAND, "db", "upgrade"], env=environment, check=True)
        with subprocess.Popen([*COMMAND, "serve"], env=environment, stdout=subprocess.PIPE, text=True) as serve:
            assert serve.stdout is not None
            pages = serve.stdout.readline().split()[-1]
            shown = subprocess.run(
                [*COMMAND, "server", "key"], env=environment, capture_output=True, text=True, check=True
            )
            try:
                photograph(pages, shown.stdout.strip())
            finally:
                serve.terminate()


def photograph(pages: str, key: str) -> None:
    """The form of a server that has the deployments and asks for this key."""
    user, _, password = key.partition(":")
    with httpx.Client(base_url=f"{pages}/api/", auth=(user, password), timeout=60) as client:
        while not (deployment := client.get("deployments/name/run-configuration/eft").json().get("id")):
            time.sleep(0.5)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(pages)
        page.locator("input[type=password]").fill(key)
        page.keyboard.press("Enter")
        page.get_by_text("Dashboard").first.wait_for(timeout=60_000)
        page.goto(f"{pages}/deployments/deployment/{deployment}/run")
        page.get_by_text("size of the residual branch").first.wait_for(timeout=60_000)
        page.wait_for_timeout(1000)  # fonts
        page.screenshot(path=IMAGES / "prefect-form.png")
        browser.close()


if __name__ == "__main__":
    main()
