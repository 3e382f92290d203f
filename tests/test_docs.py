"""The documentation builds without a broken link, and its commands and programs run in the order they are shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from tests.flows import warm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(?:Write this as `(?P<file>[\w.]+)`:\n\n)?```(?P<language>sh|python|toml)\n(?P<code>.*?)```", re.DOTALL
)


def _program(path: Path) -> ModuleType:
    """A program of the documentation, which belongs to no package."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


typeset = _program(DOCS / "typeset.py")


class _Page(HTMLParser):
    """The addresses that a built page refers to, and the names that others may refer to on it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.targets.add(value)
            elif value and name == "id":
                self.names.add(value)


def leads_nowhere(site: Path) -> list[str]:
    """Links and images within a built site whose file or place on a page is not there, as "page: target"."""
    pages = {path.resolve(): _Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    dead = []
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            there = file.is_file() and (not parts.fragment or file not in pages or parts.fragment in pages[file].names)
            if not there:
                dead.append(f"{path.relative_to(site.resolve())}: {target}")
    return dead


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what the documentation is built from."""
    folder = tmp_path / "sources"
    for name in ("docs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name)
    for path in [*ROOT.glob("*.md"), ROOT / "zensical.toml"]:
        shutil.copy(path, folder)
    return folder


def _build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_documentation_builds_and_every_link_leads_somewhere(sources: Path):
    built = _build(sources)
    assert built.returncode == 0, built.stdout + built.stderr
    assert (sources / "site" / "tutorial" / "index.html").is_file()
    assert leads_nowhere(sources / "site") == []
    assert typeset.typeset(sources / "site") > 1000
    pages = "".join(path.read_text(encoding="utf-8") for path in (sources / "site").rglob("*.html"))
    assert 'class="arithmatex"' not in pages
    assert '<span class="number">(10.3)</span>' in pages


@pytest.mark.parametrize("tex", [r"a\quadb", r"\begin{cases}a&b\end{cases}x&y"])
def test_a_formula_that_cannot_be_read_is_refused(tex: str):
    with pytest.raises(ValueError, match="in the formula"):
        typeset.mathml(tex, display=True)


def _add(page: Path, text: str) -> None:
    page.write_text(f"{page.read_text(encoding='utf-8')}\n{text}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        (
            "[a page](nowhere.md), [a place](theory.md#nowhere), [here](#nowhere)",
            ["page does not exist", "anchor does not exist", "3 issues found"],
        ),
        ('--8<-- "benchmarks/NOTHING.md"', ["'benchmarks/NOTHING.md' could not be found"]),
    ],
)
def test_a_broken_link_or_snippet_fails_the_build(text: str, complaints: list[str], sources: Path):
    _add(sources / "docs" / "index.md", text)
    built = _build(sources)
    assert built.returncode != 0
    assert [complaint for complaint in complaints if complaint not in built.stderr] == []


def test_what_the_build_lets_pass_is_found_in_the_site(sources: Path):
    """An image, a link of an included file, an entry of the navigation."""
    _add(sources / "docs" / "index.md", "![a picture](images/nothing.png)")
    _add(sources / "benchmarks" / "RESULTS.md", "[a page](nowhere.md)")
    navigation = sources / "zensical.toml"
    navigation.write_text(navigation.read_text(encoding="utf-8").replace('"tutorial.md"', '"absent.md"'))
    assert _build(sources).returncode == 0
    found = " ".join(leads_nowhere(sources / "site"))
    assert [target for target in ("images/nothing.png", "nowhere", "absent") if target not in found] == []


def test_every_page_is_in_the_navigation_once():
    def files(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [file for part in (entry.values() if isinstance(entry, dict) else entry) for file in files(part)]  # type: ignore[attr-defined]

    settings = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = files(settings["project"]["nav"])
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_every_picture_is_shown_somewhere_and_screenshots_are_small():
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    shown = {
        (page.parent / target).resolve()
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+\.(?:png|svg))\)", page.read_text(encoding="utf-8"))
    }
    pictures = set((DOCS / "images").iterdir())
    assert pictures == shown
    assert {path.name for path in pictures if path.suffix == ".png" and path.stat().st_size > 150_000} == set()


def test_what_the_tutorial_shows_runs(prefect_api: str, tmp_path: Path):
    blocks = list(BLOCK.finditer((DOCS / "tutorial.md").read_text(encoding="utf-8")))
    assert blocks
    environment = {
        **os.environ,
        "EFT_HOME": str(tmp_path / "home"),
        "PATH": f"{warm.commands()}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    program = "\n".join(block["code"] for block in blocks if block["language"] == "python")
    shell = []
    for block in blocks:
        if block["language"] == "toml":
            (tmp_path / block["file"]).write_text(block["code"], encoding="utf-8")
        elif block["language"] == "sh":
            shell.append(block["code"])
    for command in (["bash", "-ec", "\n".join(shell)], [sys.executable, "-W", "error", "-c", program]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
