"""docs/theory.md and the docstrings name the same equations."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
THEORY = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
MODULES = sorted((ROOT / "eftcore").rglob("*.py"))
NUMBERED = re.findall(r"\\tag\{(\d+\.\d+)\}", THEORY)

_LIST = re.compile(r"\beq\. (\d+\.\d+(?:(?:-|, | and )\d+\.\d+)*)")


def cited(text: str) -> set[str]:
    """Numbers after "eq.": one, several with commas or "and", or a range within a section."""
    found = set()
    for group in _LIST.findall(" ".join(text.split())):
        for part in re.split(r", | and ", group):
            first, _, last = part.partition("-")
            section, start = first.split(".")
            end = last.split(".")[1] if last else start
            assert not last or last.split(".")[0] == section, f"{part}: a range spans sections"
            found |= {f"{section}.{k}" for k in range(int(start), int(end) + 1)}
    return found


CITED = {path: cited(path.read_text(encoding="utf-8")) for path in MODULES}


def test_citations_are_read_as_they_are_written() -> None:
    assert cited("(eq. 2.2-2.4) and (eq. 3.1, 4.5 and 10.12).") == {"2.2", "2.3", "2.4", "3.1", "4.5", "10.12"}
    assert cited("(eq.\n    1.1)") == {"1.1"}
    assert cited("chapter 3.1, freq. 2.1") == set()


def test_equations_are_numbered_in_order() -> None:
    sections = {number.split(".")[0] for number in NUMBERED}
    expected = [
        f"{section}.{k + 1}"
        for section in sorted(sections, key=int)
        for k in range(sum(number.startswith(f"{section}.") for number in NUMBERED))
    ]
    assert expected == NUMBERED
    for number in NUMBERED:
        assert re.search(rf"^## {number.split('.')[0]}\. ", THEORY, re.MULTILINE)


def test_the_text_refers_to_equations_that_are_there() -> None:
    text = re.sub(r"\\tag\{[\d.]+\}", "", THEORY)
    assert set(re.findall(r"\((\d\.\d+)\)", text)) <= set(NUMBERED)


@pytest.mark.parametrize("path", [path for path in MODULES if CITED[path]], ids=lambda path: path.stem)
def test_every_equation_cited_is_in_the_theory(path: Path) -> None:
    assert CITED[path] - set(NUMBERED) == set()
    assert "docs/theory.md" in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


def test_every_equation_of_the_theory_is_cited() -> None:
    assert set(NUMBERED) - set().union(*CITED.values()) == set()
