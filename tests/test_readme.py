"""The README's example runs as it stands, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from db.reading import queries
from db.session import Database
from db.upkeep import migrate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_prints_windows(capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 8
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert {"K0", "V4", "K1"} <= set(printed.split())


def test_the_sql_example_has_the_columns_shown(tmp_path: Path):
    ((query, output),) = re.findall(r'eft sql "(.*?)"\n```\n\n```text\n(.*?)```', README, flags=re.DOTALL)
    url = f"sqlite:///{tmp_path / 'results.db'}"
    migrate.upgrade(url)
    db = Database(url, read_only=True)
    assert output.splitlines()[0].split() == list(queries.select(db, query).columns)
    db.dispose()


def test_every_relative_link_leads_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_commands_it_names_are_targets_of_make():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets
