"""Errors as data: their parts, how places are put around them, and that the whole source gives parts and no texts."""

from __future__ import annotations

import ast
import copyreg
import pickle
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest
from pydantic import BaseModel, ValidationError

import db.errors
import eftcore.errors
import flows.orchestration.watch
from eftcore.errors import EftError, EnvironmentProblem, InputError, input_error, within

ROOT = Path(__file__).parents[1]
OURS = {
    name
    for module in (eftcore.errors, db.errors, flows.orchestration.watch)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, EftError)
}


def test_parts_that_are_left_out_leave_no_trace() -> None:
    assert str(InputError("is odd")) == "is odd"
    assert str(InputError("is odd", value="x")) == "'x': is odd"
    assert str(InputError("is odd", place="seed", remedy="take 2")) == "seed: is odd; take 2"
    assert str(InputError("is missing", place="seed", value=None)) == "seed = None: is missing"


def test_a_value_is_shown_on_one_line_and_not_whole() -> None:
    for value in ("x" * 10**6, "a\nb" * 1000, [[1.0] * 1000] * 1000, 10**1000, {"x": "y" * 1000}):
        shown = str(InputError("is long", value=value))
        assert len(shown) < 250
        assert "\n" not in shown


def test_an_error_keeps_its_parts_on_the_way_to_another_process() -> None:
    error = EnvironmentProblem("is full", place=PurePath("/disk"), value=3, remedy="free some space")
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is EnvironmentProblem
    assert vars(there) == vars(error)


def test_an_outer_place_leaves_the_inner_error_as_it_was() -> None:
    """An error that several threads are told, as that of a future, gets the outer place of each once."""
    error = InputError("is odd", place="seed", value=1)
    for _ in range(2):
        with pytest.raises(InputError, match=r"^my\.toml: seed = 1: is odd$"), within(PurePath("my.toml")):
            raise error
    assert error.place == ("seed",)


class _Inner(BaseModel):
    order: int | bool
    depths: tuple[float, ...] | int = 1


class _Outer(BaseModel, extra="forbid"):
    inner: _Inner


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({}, ["inner: required field is missing; add it"]),
        ({"inner": {}}, ["inner.order: required field is missing; add it"]),
        ({"inner": 3}, ["inner = 3: must be a valid dictionary"]),
        (
            {"inner": {"order": "x"}},
            [
                "inner.order = 'x': must be a valid integer, unable to parse string as an integer, or a valid boolean,"
                " unable to interpret input"
            ],
        ),
        (
            {"inner": {"order": 1, "depths": [1.0, "x"]}, "x": 1},
            [
                "inner.depths[1] = 'x': must be a valid number, unable to parse string as a number",
                "x: unknown field; remove it or check its spelling",
            ],
        ),
    ],
)
def test_what_pydantic_finds_is_told_in_the_place_where_it_was_written(given: object, lines: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate(given)
    assert str(input_error(caught.value, given)).splitlines() == lines


def _complaints(source: str) -> Iterator[str]:
    """What a source file does against the rules of CONTRIBUTING.md, with the line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[reason, *_]) if name in OURS:
                if re.search(r"; |: must|^[\w.]+( = |: )|^\S+: ", _text(reason)):
                    yield f"{node.lineno}: the reason holds a place or a remedy"
            case ast.ExceptHandler(name=str(caught), type=ast.expr() as kinds) if OURS & _names(kinds):
                for call in ast.walk(node):
                    if isinstance(call, ast.Call) and OURS & _names(call.func) and caught in _names(call):
                        yield f"{call.lineno}: an error within the text of another one"
            case ast.Raise(exc=ast.Call(func=ast.Name(id="ValueError"))):
                yield f"{node.lineno}: ValueError"


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _text(reason: ast.expr) -> str:
    """A text as it is written, with x in place of what is put in."""
    parts = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)


CAUGHT_AT_ONCE = {"eftcore/inputs/files.py": "format version", "flows/work/store.py": "it holds other things"}
"""Files that raise a ValueError with this text, as libraries do whose errors they catch in the same place."""


def test_every_error_is_made_of_its_parts() -> None:
    found = []
    for package in ("eftcore", "db", "flows", "ui"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name, lines = str(path.relative_to(ROOT)), path.read_text().splitlines()
            for complaint in _complaints("\n".join(lines)):
                here = lines[int(complaint.partition(":")[0]) - 1]
                if not ("ValueError" in complaint and CAUGHT_AT_ONCE.get(name, "\n") in here):
                    found.append(f"{name}:{complaint}")
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "raise InputError('must be odd; take 3')",
        "raise InputError('seed: must be odd')",
        "raise InputError(f'seed = {seed!r}: is even')",
        "raise InputError(f'{path}: is empty')",
        "raise ValueError('is empty')",
        "try:\n    do()\nexcept InputError as error:\n    raise InputError(f'in {path}, {error}') from None",
    ],
)
def test_a_text_with_other_parts_would_be_found(source: str) -> None:
    assert len(list(_complaints(source))) == 1


def test_a_place_is_put_around_whatever_pickles_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask registers a way of its own to pickle errors, which the copy module would use as well."""
    monkeypatch.setitem(copyreg.dispatch_table, InputError, lambda error: (InputError, error.args))
    error = InputError("must be positive", place="epsilon", value=-1.0, remedy="give 0.1")
    assert str(error.within("model")) == "model.epsilon = -1.0: must be positive; give 0.1"
