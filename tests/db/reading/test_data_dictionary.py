"""docs/data-dictionary.md is true: it lists every column, and its examples run on both databases as shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.reading import queries
from db.schema.models import Base
from db.schema.views import VIEWS
from db.session import Database
from tests.db.conftest import template_copy

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "data-dictionary.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```sql\n(.*?)```", TEXT, re.DOTALL))
OUTPUTS = dict(re.findall(r"<!-- example: (\w+) -->\n```sql\n.*?```\n\n```text\n(.*?)```", TEXT, re.DOTALL))

QUESTIONS = {
    int(number): sql for number, sql in re.findall(r"<!-- question: (\d+) -->\n```sql\n(.*?)```", TEXT, re.DOTALL)
}


def _first_cells(marker: str) -> list[str]:
    table = TEXT.split(f"<!-- {marker} -->\n", 1)[1].split("\n\n", 1)[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_column_of_a_view_is_documented(view):
    of_results = view.name.replace("v_study_", "v_")
    documented = _first_cells("columns: configuration") + _first_cells(f"columns: {of_results}")
    documented += _first_cells("columns: by study") if view.name != of_results else []
    assert sorted(documented) == sorted(column.name for column in view.c)


def test_every_table_is_documented():
    assert sorted(_first_cells("tables")) == sorted(Base.metadata.tables)


def test_every_sql_block_is_an_example():
    assert TEXT.count("```sql") == len(EXAMPLES) + len(QUESTIONS)
    assert len(EXAMPLES) == len(OUTPUTS)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request, tmp_path_factory, record_all, record_reference, record_next_order, record_measured, record_checked
) -> Iterator[Database]:
    """Two studies, compared with everything that a study may be compared with, and a check, opened for reading."""
    with template_copy(request, tmp_path_factory.mktemp("filled")) as url:
        db = Database(url)
        record_all(db)
        record_reference(db)
        record_next_order(db)
        record_measured(db)
        record_checked(db)
        record_all(db, "second", activation="erf", width=32)
        db.dispose()
        reader = Database(url, read_only=True)
        yield reader
        reader.dispose()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs_and_has_the_columns_shown(name, filled):
    frame = queries.select(filled, EXAMPLES[name])
    assert len(frame) > 0
    assert OUTPUTS[name].splitlines()[0].split() == list(frame.columns)


def test_python_example_runs(db, record_all, monkeypatch):
    monkeypatch.setenv("EFT_DATABASE_URL", db.url.render_as_string(hide_password=False))
    record_all(db)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert int(names["run"]) > 0  # type: ignore[call-overload]
    names["db"].dispose()  # type: ignore[attr-defined]
