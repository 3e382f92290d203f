"""Searches as a user types them, such as ``activation = relu and n >= 64``: their grammar, and their SQL.

A search is made of comparisons ``NAME OPERATOR VALUE`` with ``and``, ``or``, ``not`` and parentheses. Operators are
``= != < <= > >=`` and ``in (VALUE, VALUE)``. A value is a number, a word, or a text in quotes. A comparison with a
number that is absent is false, and ``!=`` and ``not`` are true wherever ``=`` and what they negate are not. Numbers
count as equal where they agree to nine digits, since T = epsilon^2 L is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import pyparsing as pp
import sqlalchemy as sa

from db.schema.views import v_windows
from eftcore.activations import canonical_name
from eftcore.errors import EftError, InputError

LONGEST = 1000
"""Most characters of a search."""

EQUAL_WITHIN = 1e-9
"""Relative difference up to which two numbers count as equal."""

NAMES: dict[str, str] = {
    "activation": "activation",
    "C_W": "weight_variance",
    "C_b": "bias_variance",
    "epsilon": "epsilon",
    "L": "depth",
    "T": "total_time",
    "block": "block",
    "normalisation": "normalisation",
    "ratio": "hidden_ratio",
    "C_1": "hidden_weight_variance",
    "C_b1": "hidden_bias_variance",
    "N": "n_inputs",
    "kernel": "kernel_label",
    "variance": "kernel_variance",
    "correlation": "kernel_correlation",
    "n": "width",
    "M": "samples",
    "seed": "seed",
    "estimator": "estimator",
    "sampler": "sampler",
    "dtype": "dtype",
    "closure": "closure",
    "order": "closure_order",
    "step": "step",
    "continuous": "continuous",
    "quantity": "quantity",
    "tolerance": "tolerance",
    "status": "status",
    "certified": "certified_until",
    "refuted": "refuted_from",
    "reference": "reference_kind",
    "study": "study",
    "tag": "tag",
}
"""The names in a search, each with its column of v_windows; studies and their tags have none."""

ALSO = {
    "σ": "activation",
    "eps": "epsilon",
    "ε": "epsilon",
    "layers": "L",
    "width": "n",
    "inputs": "N",
    "samples": "M",
    "networks": "M",
    "normalization": "normalisation",
    "theory": "closure",
    "tau": "tolerance",
    "τ": "tolerance",
}
"""Other spellings of names."""

OF_STUDIES = ("study", "tag")
"""Names that are about the studies to which a result belongs."""

_OPERATORS = {"==": "=", "<>": "!=", "≠": "!=", "≤": "<=", "≥": ">="}
_ORDERED = ("<", "<=", ">", ">=")

Value: TypeAlias = float | str | bool


@dataclass(frozen=True)
class Comparison:
    """``name operator value``; with the operator "in" there may be several values."""

    name: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Not:
    """What ``part`` does not hold for."""

    part: Condition


@dataclass(frozen=True)
class Together:
    """All of the parts ("and"), or any of them ("or")."""

    word: str
    parts: tuple[Condition, ...]


Condition: TypeAlias = Comparison | Not | Together

OfStudies: TypeAlias = Callable[
    [str, Callable[[sa.ColumnElement[Any]], sa.ColumnElement[bool]]], sa.ColumnElement[bool]
]


def parse(text: str) -> Condition:
    """The condition that a text states.

    >>> parse("activation = relu and not n >= 64").parts[0]
    Comparison(name='activation', operator='=', values=('relu',))

    Raises InputError, which says at which character it could not be read, and what could stand there.
    """
    if len(text) > LONGEST:
        raise InputError(f"has {len(text)} characters, of at most {LONGEST}", place="search")
    try:
        (found,) = _grammar().parse_string(text, parse_all=True)
    except pp.ParseBaseException as problem:
        raise _unreadable(text, problem.loc, problem.msg) from None
    except RecursionError:
        raise InputError("has too many parentheses in each other", place="search") from None
    parsed: Condition = found
    return parsed


def names_in(condition: Condition) -> set[str]:
    """The names that a condition uses."""
    return {comparison.name for comparison in _comparisons(condition)}


def where(condition: Condition, columns: Any, of_studies: OfStudies) -> sa.ColumnElement[bool]:
    """The condition in SQL, with bound parameters.

    Args:
        columns: the columns of a view, by name; those of NAMES that occur in the condition must be there.
        of_studies: what holds for rows of such studies, from "study" or "tag" and what must hold for the name or title
            of the study, or for one of its tags.
    """
    if isinstance(condition, Not):
        return sa.not_(where(condition.part, columns, of_studies))
    if isinstance(condition, Together):
        parts = [where(part, columns, of_studies) for part in condition.parts]
        return sa.and_(*parts) if condition.word == "and" else sa.or_(*parts)
    name, operator, values = condition.name, condition.operator, condition.values
    if operator == "!=":
        return sa.not_(where(Comparison(name, "=", values), columns, of_studies))
    if name in OF_STUDIES:
        return of_studies(name, lambda column: _compared(column, operator, values))
    return _compared(columns[NAMES[name]], operator, values)


def _compared(column: sa.ColumnElement[Any], operator: str, values: tuple[Value, ...]) -> sa.ColumnElement[bool]:
    """A comparison that is true or false, never NULL."""
    if operator in _ORDERED:
        (value,) = values
        assert isinstance(value, float)
        # what counts as equal to the value is in with <= and >=, and out with < and >
        slack = EQUAL_WITHIN * abs(value)
        bound = value + slack if operator in ("<=", ">") else value - slack
        ordered = {"<": column < bound, "<=": column <= bound, ">": column > bound, ">=": column >= bound}[operator]
        return sa.and_(column.is_not(None), ordered)
    return sa.and_(column.is_not(None), sa.or_(*(_equal(column, value) for value in values)))


def _equal(column: sa.ColumnElement[Any], value: Value) -> sa.ColumnElement[bool]:
    if isinstance(value, bool):
        return column.is_(value)
    if isinstance(value, str):
        return sa.func.lower(column) == value.lower()
    slack = EQUAL_WITHIN * abs(value)
    return column.between(value - slack, value + slack)


def _comparisons(condition: Condition) -> Iterator[Comparison]:
    if isinstance(condition, Comparison):
        yield condition
    else:
        for part in condition.parts if isinstance(condition, Together) else (condition.part,):
            yield from _comparisons(part)


@cache
def _grammar() -> pp.ParserElement:
    keyword = pp.one_of(["and", "or", "not", "in"], caseless=True, as_keyword=True)
    number = pp.Regex(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(\s*%)?(?![\w.])").set_name("a value")
    number.set_parse_action(lambda found: float(found[0].rstrip("% ")) / (100.0 if found[0].endswith("%") else 1.0))
    word = ~keyword + pp.Regex(r"[^\W\d]\w*(\([^()]*\))?").set_name("a value")
    quoted = (pp.QuotedString(mark).set_name("a closing quote") for mark in "\"'")
    value = pp.MatchFirst([number, word, *quoted]).set_name("a value")
    name = (~keyword + pp.Regex(r"[^\W\d]\w*")).set_name("a name")
    name.set_parse_action(_known_name)
    several = pp.Suppress("(") - pp.DelimitedList(value) - pp.Suppress(")")
    ordered = pp.one_of(["=", "==", "!=", "<>", "≠", "<", "<=", "≤", ">", ">=", "≥"]).set_name("= != < <= > >= or in")
    listed = pp.CaselessKeyword("in")
    comparison = name - ((listed - several) | (ordered - value)).set_name("= != < <= > >= or in")
    comparison.set_parse_action(_comparison)
    either = pp.Forward()
    negation = pp.Forward()
    inner = pp.Suppress("(") - either - pp.Suppress(")")
    denied = pp.Suppress(pp.CaselessKeyword("not")) - negation
    denied.set_parse_action(lambda found: Not(found[0]))
    negation <<= (denied | inner | comparison).set_name("a name, not, or (")
    both = negation + (pp.Suppress(pp.CaselessKeyword("and")) - negation)[...]
    both.set_parse_action(lambda found: _together("and", list(found)))
    either <<= both + (pp.Suppress(pp.CaselessKeyword("or")) - both)[...]
    either.add_parse_action(lambda found: _together("or", list(found)))
    return either


def _together(word: str, parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else Together(word, tuple(parts))


def _known_name(text: str, position: int, found: pp.ParseResults) -> str:
    name = ALSO.get(str(found[0]), str(found[0]))
    if name not in NAMES:
        raise pp.ParseFatalException(text, position, f"{found[0]!r} is no name; there are {', '.join(NAMES)}")
    return name


def _comparison(text: str, position: int, found: pp.ParseResults) -> Comparison:
    """Raises ParseFatalException where name, operator and values do not go together."""

    def refuse(reason: str) -> pp.ParseFatalException:
        return pp.ParseFatalException(text, position, f"{name} {reason}")

    name, operator, *given = found
    operator = _OPERATORS.get(operator, operator)
    kind = sa.Text() if name in OF_STUDIES else v_windows.c[NAMES[name]].type
    if isinstance(kind, sa.Boolean):
        flags = {"true": True, "false": False}
        if operator not in ("=", "!=", "in") or not all(str(value).lower() in flags for value in given):
            raise refuse("takes = true or = false")
        return Comparison(name, operator, tuple(flags[value.lower()] for value in given))
    if isinstance(kind, sa.Text):
        if operator in _ORDERED:
            raise refuse("is a word, which has no order: use =, != or in")
        words = [value if isinstance(value, str) else f"{value:.12g}" for value in given]
        return Comparison(name, operator, tuple(_spelled(name, value) for value in words))
    if not all(isinstance(value, float) for value in given):
        raise refuse("takes a number")
    return Comparison(name, operator, tuple(given))


def _spelled(name: str, word: str) -> str:
    """A word as it is stored."""
    if name != "activation":
        return word
    try:
        return canonical_name(word)
    except EftError:  # it may have been registered by another program
        return word


def _unreadable(text: str, position: int, reason: str) -> InputError:
    """What is wrong where, with the text up to there."""
    said = reason.replace("Expected ", "there must be ").replace("end of text", "and, or, or the end")
    position += len(text[position:]) - len(text[position:].lstrip())
    before = text[:position].rstrip()
    after = f", after {before[-30:]!r}," if before else ""
    return InputError(f"at character {position + 1}{after} {said}", place="search", value=text)
