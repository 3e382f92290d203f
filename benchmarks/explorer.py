"""How fast the explorer answers with 1000 runs in its database: `python -m benchmarks.explorer [DATABASE_URL]`.

First the processor time of the server for one interaction; then every page is used in a real Chromium (needs the test
extra) on this machine. Without a database, a temporary SQLite file is filled with small real results first, which takes
some minutes.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from streamlit.testing.v1 import AppTest

import eftcore as eft
from db.session import Database
from db.upkeep import migrate
from db.writing.repository import record_comparison, record_prediction, record_simulation
from eftcore.specs import Closure
from ui.launch import APP
from ui.screenshots import PAGES, chromium, explorer, wait_until_drawn

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

ACTIVATIONS = ("tanh", "erf", "relu", "gelu")
WEIGHT_VARIANCES = (1.0, 1.5, 2.0, 2.5, 3.0)
CORRELATIONS = (0.0, 0.3, 0.6, 0.9)
EPSILONS = (0.1, 0.2)
WIDTHS = (16, 32, 64)
CLOSURES: tuple[Closure, ...] = ("source_only", "g_only", "sigma")
LAYERS = 100
REPEATS = 5
PROVENANCE = {"host": "bench", "device": "cpu", "python": "3.11", "worker_seconds": 1.0}


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
                    database, prediction_run_id=prediction, reference_run_id=simulation, comparison=comparison
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


COUNT_SCRIPT_RUNS = """() => {
    window.scriptRuns = 0;
    const app = document.querySelector('[data-testid=stApp]');
    new MutationObserver(() => { window.scriptRuns += app.dataset.testScriptState === 'notRunning'; })
        .observe(app, {attributes: true, attributeFilter: ['data-test-script-state']});
}"""

FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"

TITLES = {name: name.capitalize() for name in PAGES} | {"answer": "My network", "sql": "SQL"}

WIDGETS = {
    "answer": ("K0", "V4"),
    "windows": ("0.1", "0.05"),
    "compare": ("log", "linear"),
    "run": ("SVG", "PNG"),
    "predict": ("log", "linear"),
    "sql": ("v_errors", "v_windows"),
}
"""A choice on each page, with the one that leads back."""


def time_pages(url: str) -> None:
    """Print, for each page, medians over repeats of what a user waits for.

    Opened by its address in a browser that has seen the explorer before: the first paint, and everything drawn; then
    reached from another page; and drawn again after a change of one of its choices.
    """
    print(f"{'page':10s} {'first paint':>12s} {'all drawn':>10s} {'from another page':>18s} {'after a choice':>15s}")
    with explorer(url) as address, chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        for name, path in PAGES.items():
            seconds = np.array([_visit(context, address, name, path) for _ in range(REPEATS + 1)])
            paint, drawn, switch, choice = np.median(seconds[1:], axis=0)
            print(f"{name:10s} {paint:10.2f} s {drawn:8.2f} s {switch:16.2f} s {choice:13.2f} s", flush=True)


def _visit(context: BrowserContext, address: str, name: str, path: str) -> tuple[float, float, float, float]:
    """Seconds to the first paint, to all drawn, from another page, and after a choice (NaN on a page without one)."""
    page = context.new_page()
    start = time.perf_counter()
    page.goto(address + path)
    page.get_by_role("heading", level=1).wait_for()
    wait_until_drawn(page)
    drawn = time.perf_counter() - start
    paint = page.evaluate(FIRST_PAINT)
    page.evaluate(COUNT_SCRIPT_RUNS)
    away = "sql" if name == "studies" else "studies"
    _seconds_of(page, page.get_by_role("link", name=TITLES[away], exact=True).click)
    switch = _seconds_of(page, page.get_by_role("link", name=TITLES[name], exact=True).click)
    choice = float("nan")
    if name in WIDGETS:
        other, usual = (page.get_by_role("radio", name=label, exact=True).first for label in WIDGETS[name])
        choice = _seconds_of(page, other.click)
        _seconds_of(page, usual.click)
    page.close()
    return paint, drawn, switch, choice


def _seconds_of(page: Page, act: Callable[[], None]) -> float:
    """From a click to the end of the script run that it starts, everything drawn."""
    before = page.evaluate("window.scriptRuns")
    start = time.perf_counter()
    act()
    page.wait_for_function("before => window.scriptRuns > before", arg=before)
    wait_until_drawn(page)
    return time.perf_counter() - start


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
