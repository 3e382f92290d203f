"""Draw docs/images/quick.png from the results of the quick study: `make figures`, after `make run`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import plotly.io
from playwright.sync_api import sync_playwright

from db import queries
from db.session import Database, default_url
from ui.figures import errors_figure, trajectories_figure
from ui.run_data import build_errors, build_trajectories

TARGET = Path(__file__).parent / "images" / "quick.png"
COMPONENTS = {"V4": "00,00", "K1": "00"}
WIDTH = 1000


def main() -> None:
    """Trajectories of one component of V4 and of K1 above the relative errors of K0, V4 and K1."""
    db = Database(default_url(), read_only=True)
    windows = queries.windows(db, study="quick")
    if windows.empty:
        sys.exit("no results of the quick study: call `make run` first")
    simulation = int(windows["simulation_run_id"].iloc[0])
    trajectories = build_trajectories(db, simulation, sorted(set(COMPONENTS.values())))
    trajectories = trajectories[trajectories["component"] == trajectories["quantity"].map(COMPONENTS)]
    errors = build_errors(db, simulation)
    figures = [trajectories_figure(trajectories), errors_figure(errors, sorted(windows["tolerance"].unique()))]
    pieces = [
        plotly.io.to_html(figure.update_layout(width=WIDTH), full_html=False, include_plotlyjs=position == 0)
        for position, figure in enumerate(figures)
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH + 16, "height": 100}, device_scale_factor=1.5)
        page.set_content("".join(pieces), wait_until="load")
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=TARGET, full_page=True)
        browser.close()
    print(TARGET)


if __name__ == "__main__":
    main()
