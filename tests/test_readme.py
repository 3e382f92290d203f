"""The README's example runs as it stands; what it and CONTRIBUTING name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from db.reading import queries
from db.session import Database
from db.upkeep import migrate
from db.upkeep.archive import FORMAT
from eftcore.specs import ALGORITHM_VERSION
from eftcore.verdicts.windows import VERDICT_VERSION
from flows.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_python_example_prints_windows(capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 8
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert {"K0", "V4", "K1"} <= set(printed.split())


def test_the_answer_for_one_network_is_what_it_shows(capsys: pytest.CaptureFixture[str]):
    ((command, shown),) = re.findall(r"eft (design .*?)\n```\n\n```text\n(.*?)```", README, flags=re.DOTALL)
    with pytest.raises(SystemExit):
        main(command.split())
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in shown.splitlines() if line not in printed] == []
    assert len(shown.splitlines()) > 4


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
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", CONTRIBUTING, flags=re.MULTILINE)) <= targets


def test_contributing_names_files_that_are_there_and_what_they_define():
    named = re.findall(r"(?<![\w./])((?:eftcore|db|flows|ui|alembic|tests|docs)/[\w./-]*)", CONTRIBUTING)
    assert len(set(named)) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []
    defined = re.findall(r"`([A-Z][A-Z_]+|_CLASSES)` (?:in|of)\s+`([\w/]+\.py)`", CONTRIBUTING)
    assert len(defined) >= 8
    for name, path in defined:
        assert re.search(rf"^{name}\b", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE), (name, path)


def test_the_changelog_gives_the_reason_of_each_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for title, newest in (
        ("### Predictions", ALGORITHM_VERSION["prediction"]),
        ("### Simulations", ALGORITHM_VERSION["simulation"]),
        ("### Measurements", ALGORITHM_VERSION["measurement"]),
        ("### Checks", ALGORITHM_VERSION["check"]),
        ("## Verdicts", VERDICT_VERSION),
        ("## Archives", FORMAT),
    ):
        section = re.split(r"^##", text.split(f"{title}\n")[1], flags=re.MULTILINE)[0]
        given = [int(number) for number in re.findall(r"^\* \*\*(\d+)\*\*", section, flags=re.MULTILINE)]
        assert given == list(range(newest, 0, -1)), title
    revisions = {path.stem for path in (ROOT / "alembic" / "versions").glob("*.py")}
    assert set(re.findall(r"\*\*(\d{4}_\w+)\*\*", text)) == revisions
