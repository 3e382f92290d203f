"""Studies as a user runs them: started, topped up and stopped from a page in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from db.reading import queries
from db.reading.study_queries import studies_at_work
from db.session import Database
from tests.ui.test_running import SMALL
from ui.screenshots import chromium, explorer

pytestmark = pytest.mark.browser

PATIENCE = 120_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1400})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    yield opened
    context.close()


@pytest.fixture
def address(prefect_api: str, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The explorer of an empty database in a folder of its own; what runs by it leaves a processor to the others."""
    monkeypatch.setenv("EFT_HOME", str(tmp_path))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    with explorer(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'results.db')}") as served:
        yield served


def test_a_study_is_started_seen_topped_up_and_stopped_from_the_page(page: Page, address: str, tmp_path: Path) -> None:
    study = tmp_path / "small.toml"
    study.write_text(SMALL)
    other = page.context.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(f"{address}/run")
    other.get_by_role("heading", name="No simulation recorded yet").wait_for()
    page.goto(f"{address}/studies")
    expect(page.get_by_text("No study has been run into this database yet", exact=False)).to_be_visible()
    page.get_by_role("button", name="Start a study").click()
    page.locator("input[type=file]").set_input_files(study)
    page.get_by_role("button", name="Start the file").click()
    page.keyboard.press("Escape")
    # nothing ran when the page was opened; it shows by itself what runs, and that it has ended
    page.get_by_role("heading", name="small", level=3).wait_for()
    expect(page.get_by_text("small has ended.")).to_be_visible()
    db = Database(f"sqlite:///{tmp_path}/results.db", read_only=True)
    assert queries.runs(db, status="succeeded")["kind"].tolist() == ["simulation", "prediction"]
    # a page that was open before says that there is more, and shows it when asked
    other.get_by_role("button", name="Newer results: show them").click()
    other.get_by_role("heading", name="Run", exact=True, level=1).wait_for()
    other.close()

    page.get_by_role("link", name="Its windows").click()
    page.get_by_role("heading", name="Validity windows").wait_for()
    expect(page.get_by_test_id("stMultiSelect").first).to_contain_text("small")
    page.go_back()
    page.get_by_role("button", name="Top up").click()
    page.get_by_label("networks of each simulation").fill("400000000")
    page.get_by_role("button", name="Start", exact=True).click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Stop").first.wait_for()
    page.wait_for_function("() => document.body.innerText.includes('simulate shard')", timeout=PATIENCE)
    assert len(studies_at_work(db)) == 1
    page.get_by_role("button", name="Stop").first.click()
    expect(page.get_by_text("was stopped; what was finished is kept")).to_be_visible()
    assert studies_at_work(db).empty
    assert queries.runs(db, status="running").empty
    db.dispose()
