"""The documentation builds without a broken link, and its commands and programs run in the order they are shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("tutorial.md", "extend.md")
BLOCK = re.compile(
    r"(?:Write this as `(?P<file>[\w.]+)`:\n\n)?```(?P<language>sh|python|toml)\n(?P<code>.*?)```", re.DOTALL
)


def test_the_documentation_builds_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "site" / "tutorial" / "index.html").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(page: str, tmp_path: Path):
    blocks = list(BLOCK.finditer((ROOT / "docs" / page).read_text(encoding="utf-8")))
    assert blocks
    environment = {
        **os.environ,
        "EFT_HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
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
