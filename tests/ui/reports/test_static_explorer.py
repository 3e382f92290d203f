"""The static explorer of a release says and draws in a browser what the release holds, without a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import eftcore as eft
from db.session import Database
from db.upkeep.release import write_release
from db.writing.repository import record_comparison, record_prediction, record_widths
from eftcore.verdicts.widths import widths_of
from tests.ui.conftest import PROVENANCE
from ui.reports.static_explorer import write_static_explorer
from ui.screenshots import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

KERNEL = eft.InputKernel.explicit([[1.0]])
TOLERANCES = (0.05, 0.1)


def _record(db: Database, activation: str, **block: str) -> None:
    """Predictions of one network judged in depth and, where the next order is there, in width, at 5 % and 10 %."""
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.1, depth=40, **block)
    depths = range(0, 41, 4)
    exact = eft.predict(model, KERNEL, "exact", next_order=True, depths=depths)
    crude = eft.predict(model, KERNEL, "g_only", step="exact", depths=depths)
    reference, own = (record_prediction(db, theory, provenance=PROVENANCE) for theory in (exact, crude))
    comparison = eft.compare(crude, exact, tolerances=TOLERANCES)
    record_comparison(db, prediction_run_id=own, reference_run_id=reference, comparison=comparison)
    for theory, run_id in ((exact, reference), (crude, own)):
        widths = widths_of(theory, exact, TOLERANCES)
        record_widths(db, prediction_run_id=run_id, reference_run_id=reference, widths=widths)


@pytest.fixture(scope="module")
def release(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static")
    db = Database(f"sqlite:///{shutil.copy(sqlite_template, folder / 'results.db')}")
    for activation in ("tanh", "relu"):
        _record(db, activation)
    _record(db, "relu", block="two_matrix", normalisation="rms")
    write_release(db, folder / "release")
    db.dispose()
    write_static_explorer(folder / "release", folder / "release" / "explorer")
    return folder / "release"


@pytest.fixture(scope="module")
def page(release: Path) -> Iterator[Page]:
    """The page as a local file, in a browser; no error of its scripts is overlooked."""
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 1280, "height": 1000})
        wrong: list[str] = []
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.goto((release / "explorer" / "index.html").as_uri())
        yield opened
        assert wrong == []


def _answer(page: Page, **choice: str) -> str:
    for name, value in choice.items():
        page.select_option(f"[name={name}]", value)
        page.wait_for_function("() => document.querySelector('[name=activation]').value in known")
    return page.inner_text("#answer")


def _deepest(release: Path, activation: str, block: str, closure: str, tolerance: float, width: int) -> int:
    """The last recorded layer down to which the upper bound of n* is at most this width."""
    rows = pd.read_parquet(release / "widths.parquet")
    mine = rows[
        (rows["activation"] == activation)
        & (rows["block"] == block)
        & (rows["closure"] == closure)
        & (rows["quantity"] == "V4")
        & (rows["tolerance"] == tolerance)
        & (rows["layer"] > 0)
    ].sort_values("layer")
    holds = (mine["width_high"] <= width).to_numpy()
    return 0 if not holds[0] else int(mine["layer"].to_numpy()[holds.argmin() - 1 if not holds.all() else -1])


def test_the_page_says_what_the_release_holds(page: Page, release: Path) -> None:
    """For a theory that fails on the way, and for one that holds to the end."""
    said = _answer(page, activation="relu", block="one matrix", quantity="V4", tolerance="0.05")
    deepest = _deepest(release, "relu", "one_matrix", "g_only", 0.05, 64)
    assert 0 < deepest < 40
    assert f"g_only, exact step surely holds down to layer {deepest} of 40" in said
    page.fill("[name=width]", "4000")
    page.dispatch_event("[name=width]", "change")
    assert _deepest(release, "relu", "one_matrix", "exact", 0.05, 4000) == 40
    assert "exact surely holds down to the last layer, 40" in page.inner_text("#answer")


def test_the_plane_is_drawn_and_the_table_has_the_windows(page: Page, release: Path) -> None:
    _answer(page, activation="tanh", quantity="V4", tolerance="0.1")
    page.locator("#plane .main-svg").first.wait_for()
    names = page.evaluate("() => document.getElementById('plane').data.map(each => each.name).filter(Boolean)")
    assert {"exact", "g_only, exact step", "your network"} <= set(names)
    windows = pd.read_parquet(release / "windows.parquet")
    mine = windows[(windows["activation"] == "tanh") & (windows["quantity"] == "V4") & (windows["tolerance"] == 0.1)]
    assert page.locator("#windows tbody tr").count() == len(mine) == 1


def test_a_link_restores_the_choice(page: Page) -> None:
    labels = page.evaluate("() => (known.relu ?? []).map(row => row.block)")
    block = next(label for label in labels if "two matrices" in label)
    said = _answer(page, activation="relu", block=block, quantity="K0", tolerance="0.1")
    page.reload()
    page.wait_for_function("() => 'relu' in known")
    assert page.input_value("[name=block]") == block
    assert page.input_value("[name=quantity]") == "K0"
    assert page.inner_text("#answer") == said
