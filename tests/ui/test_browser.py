"""The explorer as a user meets it: a real server, a real Chromium, a real database."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from ui.screenshots import chromium, explorer, wait_until_drawn

pytestmark = pytest.mark.browser

PATIENCE = 60_000


@pytest.fixture(scope="module")
def address(results_file: Path) -> Iterator[str]:
    with explorer(f"sqlite:///{results_file}") as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 1400})
    opened.set_default_timeout(PATIENCE)
    yield opened
    opened.close()


def _open(page: Page, url: str, title: str) -> None:
    page.goto(url)
    page.get_by_role("heading", name=title, level=1).wait_for()
    wait_until_drawn(page)


def _one(path: Path, sql: str) -> tuple[float, ...]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        (row,) = connection.execute(sql).fetchall()
    finally:
        connection.close()
    return tuple(row)


def test_a_number_on_the_run_page_is_the_stored_one(page: Page, address: str, results_file: Path) -> None:
    (run,) = _one(results_file, "SELECT run_id FROM v_runs WHERE kind = 'simulation' AND activation = 'tanh'")
    _open(page, f"{address}/run?simulation={run}", "Run")
    row = page.locator("tr", has=page.get_by_role("cell", name="V4", exact=True)).filter(has_text="00,11").first
    simulated, error = map(float, row.get_by_role("cell").nth(2).inner_text().split(" ± "))
    predicted = float(row.get_by_role("cell").nth(5).inner_text().split()[0])
    value, se, theory = _one(
        results_file,
        "SELECT simulated, simulated_se, predicted FROM v_trajectories WHERE quantity = 'V4' AND component = '00,11'"
        f" AND closure = 'g_only' AND simulation_run_id = {run} ORDER BY layer DESC LIMIT 1",
    )
    assert simulated == pytest.approx(value, abs=0.05 * se)
    assert error == pytest.approx(se, rel=0.05)
    assert predicted == pytest.approx(theory, rel=5e-6)
    expect(page.get_by_text("M = 2048 networks of width n = 16").first).to_be_visible()


def test_a_copied_link_restores_the_view(page: Page, browser: Browser, address: str) -> None:
    _open(page, address, "Validity windows")
    expect(page.get_by_text("Windows 1 to 12 of 12.")).to_be_visible()
    page.get_by_role("button", name="tanh", exact=True).click()
    page.get_by_role("radio", name="0.1", exact=True).click()
    page.wait_for_url(re.compile(r"activation=tanh.*tolerance=0\.1"))
    expect(page.get_by_text("Windows 1 to 6 of 6.")).to_be_visible()
    other = browser.new_page()
    _open(other, page.url, "Validity windows")
    expect(other.get_by_text("Windows 1 to 6 of 6.")).to_be_visible()
    expect(other.get_by_text("τ = 0.1 and, for all below, tanh")).to_be_visible()
    other.close()


def test_a_row_leads_to_its_run(page: Page, address: str, results_file: Path) -> None:
    (run,) = _one(results_file, "SELECT run_id FROM v_runs WHERE kind = 'simulation' AND activation = 'relu'")
    _open(page, f"{address}/?activation=relu", "Validity windows")
    table = page.get_by_test_id("stDataFrame")
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    assert box is not None
    # the cells are painted, not elements: the link is at the left of the first row, below the header
    x, y = box["x"] + 12, box["y"] + 36 + 14
    page.mouse.move(x, y)
    page.wait_for_function(
        "([x, y]) => getComputedStyle(document.elementFromPoint(x, y)).cursor == 'pointer'", arg=[x, y]
    )
    with page.context.expect_page() as opened:
        page.mouse.click(x, y)
    opened.value.get_by_role("heading", name="Run", level=1).wait_for()
    assert opened.value.url == f"{address}/run?simulation={run}"
    opened.value.close()


def test_nothing_is_fetched_from_elsewhere(page: Page, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path, title in (("", "Validity windows"), ("/run", "Run")):
        _open(page, address + path, title)
    assert asked
    assert [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))] == []


def test_nothing_goes_wrong_in_the_browser(page: Page, address: str) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    for path, title in (("", "Validity windows"), ("/run", "Run")):
        _open(page, address + path, title)
    # Streamlit looks for its server below the page's own path first
    assert [complaint for complaint in complaints if "/run/_stcore/" not in complaint] == []
