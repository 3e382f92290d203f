"""How fast the explorer answers with 1000 runs in its database: `python -m benchmarks.explorer [DATABASE_URL]`.

First the processor time of the server for one interaction; then every page is opened in a real Chromium (needs the
test extra), on this machine: seconds from the address to the last chart drawn. Without a database, a temporary
SQLite file is filled with small real results first, which takes some minutes.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

from streamlit.testing.v1 import AppTest

import eftcore as eft
from db import migrate
from db.repository import record_comparison, record_prediction, record_simulation
from db.session import Database
from ui.launch import APP
from ui.screenshots import PAGES, chromium, explorer, wait_until_drawn

ACTIVATIONS = ("tanh", "erf", "relu", "gelu")
WEIGHT_VARIANCES = (1.0, 1.5, 2.0, 2.5, 3.0)
CORRELATIONS = (0.0, 0.3, 0.6, 0.9)
EPSILONS = (0.1, 0.2)
WIDTHS = (16, 32, 64)
CLOSURES = ("source_only", "g_only", "sigma")
LAYERS = 100
REPEATS = 5
PROVENANCE = {"host": "bench", "device": "cpu", "python": "3.11", "wall_seconds": 1.0}


def fill(database: Database) -> None:
    """160 configurations: 480 simulations of three widths, 480 predictions, 1440 comparisons; 101 recorded layers."""
    numerics = eft.Numerics(rtol=1e-6)
    grid = itertools.product(ACTIVATIONS, WEIGHT_VARIANCES, CORRELATIONS, EPSILONS)
    for activation, weight_variance, correlation, epsilon in grid:
        model = eft.ResNet(activation=activation, weight_variance=weight_variance, epsilon=epsilon, depth=LAYERS)
        kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=correlation)
        theories = [eft.predict(model, kernel, closure, numerics=numerics) for closure in CLOSURES]
        ids = [record_prediction(database, theory, provenance=PROVENANCE) for theory in theories]
        for width in WIDTHS:
            sample = eft.simulate(model, kernel, width=width, samples=256, device="cpu")
            simulation = record_simulation(database, sample, provenance=PROVENANCE)
            for prediction, theory in zip(ids, theories, strict=True):
                comparison = eft.compare(theory, sample)
                record_comparison(
                    database, prediction_run_id=prediction, simulation_run_id=simulation, comparison=comparison
                )


def count_work(url: str) -> None:
    """Print processor seconds of the server for one interaction with each page, which other load hardly changes."""
    os.environ["EFT_DATABASE_URL"] = url
    for name in PAGES:
        app = AppTest.from_file(str(APP), default_timeout=600)
        app.switch_page(f"views/{name}.py").run()
        seconds = []
        for _ in range(REPEATS):
            start = time.process_time()
            app.run()
            seconds.append(time.process_time() - start)
        print(f"{name:10s} {sorted(seconds)[REPEATS // 2]:6.2f} s of processor time")


def time_pages(url: str) -> None:
    """Print the median over repeats of each page's time to be drawn."""
    with explorer(url) as address, chromium() as browser:
        for name, path in PAGES.items():
            seconds = []
            for _ in range(REPEATS + 1):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                start = time.perf_counter()
                page.goto(address + path)
                page.get_by_role("heading", level=1).wait_for()
                wait_until_drawn(page)
                seconds.append(time.perf_counter() - start)
                page.close()
            print(
                f"{name:10s} {sorted(seconds[1:])[REPEATS // 2]:6.2f} s   (first after the start: {seconds[0]:.2f} s)"
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        count_work(sys.argv[1])
        time_pages(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            filled = f"sqlite:///{Path(folder) / 'results.db'}"
            migrate.upgrade(filled)
            with warnings.catch_warnings(action="ignore"):
                fill(Database(filled))
            count_work(filled)
            time_pages(filled)
