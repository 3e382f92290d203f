"""The explorer as a user meets it: a real server, a real Chromium, a real database."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

import eftcore as eft
from tests.ui.conftest import ROOMY
from ui.screenshots import chromium, explorer, wait_until_drawn

pytestmark = pytest.mark.browser

PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)


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
    page.get_by_text("Numbers at one depth").click()
    page.wait_for_url(re.compile("numbers=true"))
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


@pytest.mark.campaign  # without a browser: tests/ui/test_windows_page.py
def test_a_copied_link_restores_the_view(page: Page, browser: Browser, address: str) -> None:
    _open(page, f"{address}/windows", "Validity windows")
    expect(page.get_by_text("12 windows.", exact=True)).to_be_visible()
    page.get_by_role("button", name="V4", exact=True).click()
    page.wait_for_url(re.compile("quantity=V4"))
    page.get_by_role("radio", name="0.1", exact=True).click()
    page.wait_for_url(re.compile(r"tolerance=0\.1"))
    page.get_by_role("radio", name="intervals", exact=True).click()
    page.wait_for_url(re.compile(r"quantity=V4.*tolerance=0\.1.*view=intervals"))
    expect(page.get_by_text("4 windows.", exact=True)).to_be_visible()
    other = browser.new_page()
    _open(other, page.url, "Validity windows")
    expect(other.get_by_text("4 windows.", exact=True)).to_be_visible()
    expect(other.get_by_text("τ = 0.1 and, for all below, C_W = 2")).to_be_visible()
    expect(other.get_by_role("radio", name="intervals", exact=True)).to_be_checked()
    other.close()


def test_back_forward_and_reload_restore_the_filters_and_the_link_is_copied(page: Page, address: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{address}/sql?sql=SELECT+1+AS+one&search=n+%3E%3D+16")
    query = page.get_by_role("textbox", name="query")
    expect(query).to_have_value("SELECT 1 AS one")
    query.fill("SELECT 2 AS two")
    query.press("Control+Enter")
    page.wait_for_url(re.compile("two"))
    wait_until_drawn(page)
    changed = page.url
    page.get_by_role("link", name="Paper", exact=True).click()
    page.get_by_role("heading", name="The paper, audited", level=1).wait_for()
    wait_until_drawn(page)
    expect(page.get_by_role("searchbox", name="search")).to_have_value("n >= 16")
    page.go_back()
    expect(query).to_have_value("SELECT 2 AS two")
    assert page.url == changed
    page.go_forward()
    page.get_by_role("heading", name="The paper, audited", level=1).wait_for()
    page.go_back()
    page.reload()
    expect(query).to_have_value("SELECT 2 AS two")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url == changed


def _table_at(page: Page, x: float, y: float) -> None:
    """Click in the table of windows, whose cells are painted and not elements."""
    table = page.get_by_test_id("stDataFrame").first
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + x, box["y"] + y)


def test_ticked_rows_are_compared_and_a_heading_sorts_all_rows(page: Page, address: str, results_file: Path) -> None:
    runs = [
        _one(results_file, f"SELECT run_id FROM v_runs WHERE kind = 'simulation' AND activation = '{name}'")[0]
        for name in ("relu", "tanh")
    ]
    _open(page, f"{address}/windows?closure=g_only&quantity=V4", "Validity windows")
    tick, first, row = 16, 36 + 14, 28
    _table_at(page, tick, first)
    expect(page.get_by_role("link", name=f"Open run {runs[0]}")).to_be_visible()
    _table_at(page, 200, 18)  # a heading: descending by the activation after two clicks
    _table_at(page, 200, 18)
    wait_until_drawn(page)
    _table_at(page, tick, first + row)
    page.get_by_role("link", name="Compare 2 simulations").click()
    page.get_by_role("heading", name="Compare", level=1).wait_for()
    page.wait_for_url(re.compile(rf"/compare\?run={runs[0]}&run={runs[1]}"))
    wait_until_drawn(page)
    for run in runs:
        expect(page.get_by_text(re.compile(rf"^run {run}: ")).first).to_be_visible()


def test_a_cell_of_the_map_leads_to_its_run(page: Page, address: str, results_file: Path, tmp_path: Path) -> None:
    (run,) = _one(results_file, "SELECT run_id FROM v_runs WHERE kind = 'simulation' AND activation = 'tanh'")
    _open(page, f"{address}/windows?view=map", "Validity windows")
    page.get_by_test_id("stPlotlyChart").first.hover()
    with page.expect_download() as saved:
        page.locator(".modebar-btn[data-title^=Download]").first.click()
    assert saved.value.suggested_filename == "windows-map-5pct.png"
    with page.expect_download() as saved:
        page.get_by_role("button", name="All 12 windows as CSV").click()
    assert saved.value.suggested_filename == "windows-5pct.csv"
    saved.value.save_as(tmp_path / "windows.csv")
    stored = _one(
        results_file,
        "SELECT sum(certified_until) FROM v_windows WHERE tolerance = 0.05 AND reference_kind = 'simulation'",
    )
    assert [pd.read_csv(tmp_path / "windows.csv")["certified until (t = ε² ℓ)"].sum()] == pytest.approx(stored)
    written = page.locator(".stPlotlyChart .scatterlayer text").last
    written.scroll_into_view_if_needed()
    box = written.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.get_by_role("link", name=f"Open run {run}").click()
    page.wait_for_url(f"{address}/run?simulation={run}")


@pytest.mark.campaign  # without a browser: tests/ui/test_windows_page.py
def test_parameters_are_weighed_and_configurations_stand_side_by_side(page: Page, address: str) -> None:
    _open(page, f"{address}/windows?tolerance=0.1&of_theory=source_only", "Validity windows")
    page.get_by_role("radio", name="parameters", exact=True).click()
    page.wait_for_url(re.compile("view=parameters"))
    page.get_by_role("heading", name="Which parameter matters for t*").wait_for()
    wait_until_drawn(page)
    expect(page.locator(".parcoords .axis-title").first).to_have_text("σ")
    expect(page.locator("tr", has=page.get_by_role("cell", name="σ", exact=True)).first).to_contain_text("100 ±")
    expect(page.get_by_text("relative error within τ = 10 % of simulations").first).to_be_visible()


def test_downloads_open_in_pandas(page: Page, address: str, results_file: Path, tmp_path: Path) -> None:
    (run,) = _one(results_file, "SELECT max(run_id) FROM v_runs WHERE kind = 'simulation'")
    _open(page, f"{address}/run?simulation={run}", "Run")
    for what in ("trajectories", "errors"):
        (rows, total) = _one(
            results_file,
            f"SELECT count(*), sum({'predicted' if what == 'trajectories' else 'absolute_error'}) FROM v_{what}"
            f" WHERE simulation_run_id = {run}",
        )
        for label, read in (("CSV", pd.read_csv), ("Parquet", pd.read_parquet)):
            with page.expect_download() as saved:
                page.get_by_role("button", name=f"{what} as {label}").click()
            path = tmp_path / saved.value.suggested_filename
            saved.value.save_as(path)
            frame = read(path)
            assert len(frame) == rows
            assert frame["predicted" if what == "trajectories" else "absolute_error"].sum() == pytest.approx(total)


@pytest.mark.parametrize(
    ("form", "start"), [pytest.param("PNG", b"\x89PNG", marks=pytest.mark.campaign), ("SVG", b"<svg")]
)
def test_figures_save_themselves(page: Page, address: str, tmp_path: Path, form: str, start: bytes) -> None:
    _open(page, f"{address}/run?figures={form}", "Run")
    page.get_by_test_id("stPlotlyChart").first.hover()
    with page.expect_download() as saved:
        page.locator(".modebar-btn[data-title^=Download]").first.click()
    path = tmp_path / saved.value.suggested_filename
    saved.value.save_as(path)
    assert path.name.endswith(f"-errors.{form.lower()}")
    assert path.read_bytes().startswith(start)


def test_a_query_written_by_hand_answers(page: Page, address: str, results_file: Path, tmp_path: Path) -> None:
    _open(page, f"{address}/sql", "SQL")
    page.get_by_role("textbox", name="query").fill("SELECT count(*) AS n FROM v_errors WHERE defined")
    page.get_by_role("textbox", name="query").press("Control+Enter")
    page.get_by_role("button", name="Result as CSV").wait_for()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Result as CSV").click()
    saved.value.save_as(tmp_path / "result.csv")
    wanted = _one(results_file, "SELECT count(*) FROM v_errors WHERE defined")
    assert pd.read_csv(tmp_path / "result.csv")["n"].tolist() == list(wanted)


def test_a_table_has_no_download_that_leaves_formulas(page: Page, address: str) -> None:
    _open(page, f"{address}/sql", "SQL")
    page.get_by_role("textbox", name="query").fill("SELECT '=1+1' AS n")
    page.get_by_role("textbox", name="query").press("Control+Enter")
    page.get_by_role("button", name="Result as CSV").wait_for()
    page.get_by_test_id("stDataFrame").first.hover()
    toolbar = page.get_by_test_id("stElementToolbar").first
    toolbar.get_by_role("button", name="Search").wait_for()
    assert toolbar.get_by_role("button", name="Download as CSV").count() == 0


@pytest.mark.campaign  # without a browser: tests/ui/test_answer_page.py
def test_the_first_page_answers_and_its_link_and_the_back_button_restore_the_question(
    page: Page, browser: Browser, address: str
) -> None:
    _open(page, f"{address}/?my_sigma=relu&my_L=20&my_residual=0.25", TITLES[""])
    page.get_by_role("heading", name="Use ").wait_for()
    page.get_by_text("The nearest simulations").wait_for()
    first = page.get_by_role("heading", name="Use ").inner_text()
    page.get_by_role("spinbutton", name="width n").fill("4096")
    page.get_by_role("spinbutton", name="width n").press("Enter")
    page.wait_for_url(re.compile(r"my_n=4096"))
    page.get_by_role("heading", name="down to the last of 20 layers").wait_for()
    assert "down to the last" not in first
    other = browser.new_page()
    _open(other, page.url, TITLES[""])
    other.get_by_role("heading", name="down to the last of 20 layers").wait_for()
    other.get_by_role("link", name="Predict", exact=True).click()
    other.get_by_role("heading", name="Predict", level=1).wait_for()
    wait_until_drawn(other)
    other.go_back()
    other.get_by_role("heading", name="down to the last of 20 layers").wait_for()
    expect(other.get_by_role("spinbutton", name="width n")).to_have_value("4096")
    other.close()


def test_predict_finishes_by_itself(page: Page, address: str) -> None:
    _open(page, f"{address}/predict?T=0.5", "Predict")
    page.get_by_text("Reference: the exact leading order").wait_for()
    row = page.locator("tr", has=page.get_by_role("cell", name="g_only", exact=True)).first
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=50)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3)
    theory = eft.predict(model, kernel, "g_only")
    assert theory.correction is not None
    assert float(row.get_by_role("cell").nth(3).inner_text()) == pytest.approx(theory.correction[-1, 0, 0], rel=1e-4)


TITLES = {
    "": "How deep, and how wide, can I trust which theory for my network?",
    "windows": "Validity windows",
    "compare": "Compare",
    "run": "Run",
    "checks": "Checks",
    "predict": "Predict",
    "paper": "The paper, audited",
    "sql": "SQL",
    "studies": "Studies",
}


def test_pages_fit_phone_and_desk_fetch_nothing_from_elsewhere_and_nothing_goes_wrong(page: Page, address: str) -> None:
    """Each page is opened on a phone, where nothing scrolls sideways, and then made as wide as a desk's."""
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    phone, desk = {"width": 390, "height": 844}, {"width": 1280, "height": 1400}
    tabs: dict[str, str] = {}
    for path, title in {
        **TITLES,
        **{f"windows?view={view}": TITLES["windows"] for view in ("intervals", "map")},
    }.items():
        page.set_viewport_size(phone)
        _open(page, f"{address}/{path}", title)
        page.wait_for_function(ROOMY, arg=True, timeout=PATIENCE)
        page.set_viewport_size(desk)
        page.wait_for_function(ROOMY, arg=False, timeout=PATIENCE)
        tabs.setdefault(page.title(), title)
        assert tabs[page.title()] == title, "each page has a title of its own in the browser"
        assert page.get_by_text("This app has encountered an error").count() == 0
    assert asked
    assert [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))] == []
    # Streamlit looks for its server below the page's own path first
    below = tuple(f"{address}/{path}/_stcore/" for path in TITLES if path)
    assert [complaint for complaint in complaints if not complaint.startswith(below)] == []


def test_filters_of_one_page_leave_the_inputs_of_another_alone(page: Page, address: str) -> None:
    _open(page, f"{address}/windows?activation=relu", "Validity windows")
    page.get_by_role("link", name="Predict", exact=True).click()
    page.get_by_role("heading", name="Predict", level=1).wait_for()
    page.get_by_text("Reference: the exact leading order").wait_for()
    expect(page.get_by_role("combobox", name="activation σ")).to_have_value("tanh")


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server, and the file that it reads; what lies there changes."""
    path = tmp_path_factory.mktemp("changing") / "results.db"
    with explorer(f"sqlite:///{path}") as served:
        yield served, path


SHAPES = {
    "missing": ("There is no results database yet", "There is no results database yet", "Predict"),
    "old": ("The database belongs to another version", "The database belongs to another version", "Predict"),
    "empty": ("No comparison of theory and simulation recorded yet", "Studies", "Predict"),
    "failed": ("No comparison of theory and simulation recorded yet", "Studies", "Predict"),
    "half": ("No comparison of theory and simulation recorded yet", "Studies", "Predict"),
}
"""What lies there: the titles of the windows page, the studies page and the predict page."""


RARE = ("old", "empty", "failed", "half")
"""Shapes that only a campaign opens in a browser; tests/ui/test_states_of_a_database.py has their pages without one."""


@pytest.mark.parametrize(
    "shape", [pytest.param(shape, marks=[pytest.mark.campaign] * (shape in RARE)) for shape in SHAPES]
)
def test_every_page_is_helpful_whatever_it_finds(
    page: Page, changing: tuple[str, Path], shapes: dict[str, Path], shape: str
) -> None:
    served, path = changing
    path.unlink(missing_ok=True)
    if shape in shapes:
        shutil.copy(shapes[shape], path)
    windows, studies, predict = SHAPES[shape]
    _open(page, served, TITLES[""])
    page.get_by_role("heading", name="Use G-only").wait_for()
    _open(page, f"{served}/windows", windows)
    simulations = windows.replace("comparison of theory and simulation", "simulation")
    sql = "SQL" if studies == "Studies" else studies
    paper = "The paper, audited" if studies == "Studies" else studies
    titles = {"Compare": simulations, "Run": simulations, "Predict": predict}
    titles |= {"Paper": paper, "SQL": sql, "Studies": studies}
    for name, title in titles.items():
        page.get_by_role("link", name=name, exact=True).click()
        page.wait_for_url(f"{served}/{name.lower()}")
        page.get_by_role("heading", name=title, level=1).wait_for()
        wait_until_drawn(page)
        assert page.get_by_text("This app has encountered an error").count() == 0
    said = {"empty": "eft run quick", "failed": "eft run wild", "half": "eft run half"}.get(shape, "eft db upgrade")
    expect(page.get_by_text(said).first).to_be_visible()
