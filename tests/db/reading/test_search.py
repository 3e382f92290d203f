"""Searches: what they find is what pandas finds, and what cannot be read says where."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from db.reading import queries
from db.reading.restriction import RestrictedDatabase, Restriction
from db.reading.search import LONGEST, NAMES, OF_STUDIES, Comparison, Condition, Not, Together, names_in, parse, where
from db.reading.window_queries import window_counts, window_ends
from db.schema.models import Study
from db.schema.views import v_windows
from db.writing import care
from db.writing.repository import record_simulation
from eftcore.errors import InputError

EXPLORE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "explore.md").read_text(encoding="utf-8")
NUMBERS = {"n": (16.0, 64.0, 256.0), "T": (0.5, 2.0, 8.0), "C_W": (1.0, 2.0)}
WORDS = {"activation": ("tanh", "relu"), "closure": ("g_only", "sigma"), "status": ("bounded", "beyond")}
FLAG = "continuous"


def _rows() -> pd.DataFrame:
    """Rows of v_windows: every value, absent ones, and T as a product of rounded factors."""
    random = np.random.default_rng(1)
    columns: dict[str, list[Any]] = {}
    for name, values in {**NUMBERS, **WORDS, FLAG: (True, False)}.items():
        columns[name] = [values[index] if index < len(values) else None for index in random.integers(0, 4, 300)]
    columns["T"] = [None if total is None else 0.1**2 * (total * 100.0) for total in columns["T"]]
    return pd.DataFrame(columns, dtype="object")


ROWS = _rows()


@pytest.fixture(scope="module")
def table() -> sa.Connection:
    engine = sa.create_engine("sqlite://")
    stored = sa.Table("v", sa.MetaData(), *(sa.Column(c.name, c.type) for c in v_windows.c if c.name in NAMES.values()))
    connection = engine.connect()
    stored.create(connection)
    connection.execute(stored.insert(), ROWS.rename(columns=NAMES).to_dict("records"))
    return connection


def _comparisons() -> st.SearchStrategy[Comparison]:
    def of(names: dict[str, tuple[Any, ...]], operators: tuple[str, ...]) -> list[st.SearchStrategy[Comparison]]:
        found = []
        for name, values in names.items():
            value = st.sampled_from(values)
            one = st.builds(Comparison, st.just(name), st.sampled_from(operators), value.map(lambda item: (item,)))
            many = st.lists(value, min_size=1, max_size=3).map(tuple)
            found += [one, st.builds(Comparison, st.just(name), st.just("in"), many)]
        return found

    ordered = ("=", "!=", "<", "<=", ">", ">=")
    return st.one_of(*of(NUMBERS, ordered), *of(WORDS, ("=", "!=")), *of({FLAG: (True, False)}, ("=", "!=")))


def _flat(word: str, parts: list[Condition]) -> Condition:
    """As a text without parentheses around equal words is read."""
    flat: list[Condition] = []
    for part in parts:
        flat += part.parts if isinstance(part, Together) and part.word == word else [part]
    return Together(word, tuple(flat))


CONDITIONS = st.recursive(
    _comparisons(),
    lambda inner: (
        inner.map(Not) | st.builds(_flat, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3))
    ),
    max_leaves=8,
)


def _text(condition: Condition) -> str:
    if isinstance(condition, Comparison):
        values = [str(value).lower() if isinstance(value, bool) else str(value) for value in condition.values]
        if condition.operator == "in":
            return f"{condition.name} IN ({', '.join(values)})"
        return f"{condition.name}{condition.operator} {values[0]}"
    if isinstance(condition, Not):
        return f"not ({_text(condition.part)})"
    # the word that binds less needs parentheses around it
    return f" {condition.word} ".join(
        f"({_text(part)})" if isinstance(part, Together) and condition.word == "and" else _text(part)
        for part in condition.parts
    )


PANDAS: dict[str, Callable[[pd.Series, Any], pd.Series]] = {
    "<": lambda column, value: column < value * (1 - 1e-12),
    "<=": lambda column, value: column <= value * (1 + 1e-12),
    ">": lambda column, value: column > value * (1 + 1e-12),
    ">=": lambda column, value: column >= value * (1 - 1e-12),
}


def _by_pandas(condition: Condition) -> pd.Series:
    if isinstance(condition, Not):
        return ~_by_pandas(condition.part)
    if isinstance(condition, Together):
        parts = [_by_pandas(part) for part in condition.parts]
        return np.logical_and.reduce(parts) if condition.word == "and" else np.logical_or.reduce(parts)
    column = ROWS[condition.name]
    if condition.name in NUMBERS:
        column = column.astype(float)
        if condition.operator in PANDAS:
            return PANDAS[condition.operator](column, condition.values[0])
        equal = pd.Series([any(math.isclose(x, value) for value in condition.values) for x in column])
    else:
        equal = column.isin(condition.values)
    return ~equal if condition.operator == "!=" else equal


@settings(deadline=None, max_examples=150)
@given(condition=CONDITIONS)
def test_a_search_finds_what_pandas_finds(table, condition):
    assert parse(_text(condition)) == condition
    columns = {c.name: sa.column(c.name, c.type) for c in v_windows.c}
    clause = where(condition, columns, lambda *_: sa.false())
    query = sa.select(sa.text("rowid")).select_from(sa.text("v")).where(clause).order_by(sa.text("rowid"))
    assert [row - 1 for row in table.scalars(query)] == np.flatnonzero(_by_pandas(condition)).tolist()


def test_the_documentation_lists_every_name_and_its_searches_can_be_read():
    (examples,) = re.findall(r"```text\n(.*?)```", EXPLORE, re.DOTALL)
    assert {name for line in examples.splitlines() for name in names_in(parse(line))} <= set(NAMES)
    listed = EXPLORE.split("| names |")[1].split("\n\n")[0]
    assert [name for row in listed.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])] == list(
        NAMES
    )


def test_every_name_is_a_column():
    assert {NAMES[name] for name in NAMES if name not in OF_STUDIES} <= set(v_windows.c.keys())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at character 1 there must be a name, not, or ("),
        ("n", "at character 2, after 'n', there must be = != < <= > >= or in"),
        ("n >= ", "there must be a value"),
        ("n >= 64 and", "after 'n >= 64 and', there must be a name, not, or ("),
        ("n >= 64 relu", "at character 9, after 'n >= 64', there must be and, or, or the end"),
        ("(n = 1", "at character 7, after '(n = 1', there must be ')'"),
        ("n = 1 and m = 2", "at character 11, after 'n = 1 and', 'm' is no name; there are activation, C_W,"),
        ("n = 64x", "after 'n =', there must be a value"),
        ("n = many", "at character 1 n takes a number"),
        ("activation < relu", "activation is a word, which has no order"),
        ("continuous = 3", "continuous takes = true or = false"),
        ("activation = 'relu", "after 'activation =', there must be a"),
        ("(" * 900, "too many parentheses"),
        ("n = 1 or " * 120, f"of at most {LONGEST}"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_could_stand_there(text, said):
    with pytest.raises(InputError) as refused:
        parse(text)
    assert said in refused.value.line


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("n==64 AND tolerance<=5 %", "width = 64 and tau <= 0.05"),
        ("activation = leaky_relu(slope=.20)", "σ = 'leaky_relu(slope=0.2)'"),
        ("not n = 1 and N <> 2 or T > 3", "((not (n = 1)) and inputs != 2) or T>3.0"),
        ('kernel = "two  words"', "kernel in ('two  words')"),
    ],
)
def test_spellings_of_one_search(text, same):
    found, other = parse(text), parse(same)
    if isinstance(other, Comparison) and other.operator == "in":
        found, other = (Comparison(c.name, "in", c.values) for c in (found, other))
    assert found == other


@pytest.fixture
def two_studies(db, record_all):
    """The first at width 16, the second at 32 with the same predictions; a title and tags."""
    first = record_all(db, "first").study_id
    second = record_all(db, "second", width=32).study_id
    care.annotate(db, second, title="Wide ones", tags=["paper", "wide"])
    return db, first, second


def _seen(db, search=None, studies=()):
    with db.reading() as session:
        digests = session.scalars(sa.select(Study.digest).where(Study.name.in_(studies))).all()
    restriction = Restriction(studies=tuple(digests), search=None if search is None else parse(search))
    return RestrictedDatabase(db, restriction)


@pytest.mark.parametrize(
    "given",
    [{"studies": ["second"]}, {"search": "n > 16"}, {"search": "study = 'wide ones'"}, {"search": "tag = PAPER"}],
)
def test_every_query_sees_the_part_alone(two_studies, given):
    whole, *_ = two_studies
    part = _seen(whole, **given)
    wanted = queries.windows(whole, study="second")
    assert 0 < len(wanted) < len(queries.windows(whole))
    assert queries.windows(part).equals(wanted)
    assert queries.windows(part, limit=2, offset=1).equals(wanted.iloc[1:3].reset_index(drop=True))
    assert window_counts(part, ["width"], {})["windows"].tolist() == [len(wanted)]
    assert len(window_ends(part, ["width"], {})) == len(wanted)
    simulation = int(wanted.simulation_run_id.iloc[0])
    assert queries.runs(part, kind="simulation").run_id.tolist() == [simulation]
    assert set(queries.runs(part, kind="prediction").run_id) == set(wanted.prediction_run_id)
    for ask in (queries.errors, queries.quantiles, queries.precision, queries.best_closures):
        assert ask(part).equals(ask(whole, study="second"))
        assert len(ask(part)) < len(ask(whole))
    of_both = [int(run) for run in queries.runs(whole, kind="simulation").run_id]
    assert set(queries.trajectories(part, simulation_run_id=of_both).simulation_run_id) == {simulation}
    assert set(queries.width_windows(part).prediction_run_id) <= set(wanted.prediction_run_id)


def test_studies_add_up_and_a_search_narrows_them(two_studies):
    whole, *_ = two_studies
    both = _seen(whole, studies=["first", "second"])
    assert queries.windows(both).equals(queries.windows(whole))
    assert set(queries.windows(_seen(whole, "closure = g_only", ["first"])).closure) == {"g_only"}
    assert len(queries.windows(_seen(whole, "n = 32", ["first"]))) == 0
    assert len(queries.windows(_seen(whole, "tag != paper and study != nothing"))) == len(
        queries.windows(whole, study="first")
    )


def test_a_simulation_that_nothing_was_compared_with_is_found_by_what_it_is(db, make_sample, provenance):
    run = record_simulation(db, make_sample(), provenance=provenance)
    assert queries.runs(_seen(db, "n = 16 or n = 8"), kind="simulation").run_id.tolist() == [run]
    assert queries.runs(_seen(db, "n = 17")).empty
    assert queries.runs(_seen(db, "closure = g_only")).empty


def test_values_of_a_search_are_bound(db):
    text = 'activation = "x\' OR 1=1 --"'
    assert queries.windows(_seen(db, text)).empty
    (condition,) = (parse(text),)
    assert "OR 1=1" not in str(where(condition, v_windows.c, lambda *_: sa.false()))
