"""Take docs/images/prefect-form.png and prefect-artifact.png: `python docs/prefect_screenshots.py` (needs Chromium)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
REQUEST = {"activation": "tanh", "epsilon": 0.1, "total_time": 2.0, "samples": 4000}
COMMAND = (sys.executable, "-m", "flows.cli")


def main() -> None:
    """Serve the deployments on a server of their own, run one configuration, and photograph its form and artifact."""
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
    """Both pictures from the pages of a server that has the deployments and asks for this key."""
    user, _, password = key.partition(":")
    with httpx.Client(base_url=f"{pages}/api/", auth=(user, password), timeout=60) as client:
        deployment = _until(lambda: client.get("deployments/name/run-configuration/eft").json().get("id"))
        body = {"parameters": {"request": REQUEST}}
        run = client.post(f"deployments/{deployment}/create_flow_run", json=body).json()["id"]
        _until(lambda: client.get(f"flow_runs/{run}").json()["state_type"] == "COMPLETED")
        artifacts = client.post("artifacts/filter", json={}).json()
    (study,) = [artifact["id"] for artifact in artifacts if artifact["key"].startswith("study-")]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(pages)
        page.locator("input[type=password]").fill(key)
        page.keyboard.press("Enter")
        page.get_by_text("Dashboard").first.wait_for(timeout=60_000)
        for name, address, shown in (
            ("prefect-form", f"deployments/deployment/{deployment}/run", "size of the residual branch"),
            ("prefect-artifact", f"artifacts/artifact/{study}", "Explorer:"),
        ):
            page.goto(f"{pages}/{address}")
            page.get_by_text(shown).first.wait_for(timeout=60_000)
            page.wait_for_timeout(1000)  # pictures and fonts
            page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


def _until(ready: Any) -> Any:
    while not (found := ready()):
        time.sleep(0.5)
    return found


if __name__ == "__main__":
    main()
