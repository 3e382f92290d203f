"""The exceptions that callers are meant to catch: where, what stands there, what is wrong with it, and the remedy.

Whoever raises one gives these as data; whoever knows more of the place puts it around with ``within``. The text is made
in one function, ``EftError.line``, for the terminal, for Prefect and for the explorer.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pydantic import ValidationError

Part = str | int | PurePath
"""A step of a place: the name of a field, option or variable; a position, counted from 0; a file."""

LONGEST_VALUE = 200
"""Most characters of a value in a message."""


class EftError(Exception):
    """Base of every error this project raises on purpose.

    Attributes:
        place: where it is wrong, from the outside in; empty where no single field is.
        value: what stands there; Ellipsis where nothing does, or where it tells nothing.
        reason: what is wrong.
        remedy: what to do, unless the reason tells it: "must be positive".
        others: what is wrong in other places, found at the same time.

    >>> error = InputError("must lie between -1 and 1", place="correlation", value=2.0, remedy="take 0.3")
    >>> print(error.within("kernel", 1))
    kernel[1].correlation = 2.0: must lie between -1 and 1; take 0.3
    """

    def __init__(self, reason: str, *, place: Part | tuple[Part, ...] = (), value: Any = ..., remedy: str = "") -> None:
        super().__init__(reason)
        self.place = place if isinstance(place, tuple) else (place,)
        self.value, self.reason, self.remedy = value, reason, remedy
        self.others: tuple[Self, ...] = ()

    @property
    def each(self) -> tuple[Self, ...]:
        """This error and the others."""
        return (self, *self.others)

    @property
    def line(self) -> str:
        """One line, without the others: place = value: reason; remedy."""
        shown = [] if self.value is ... else [_shown(self.value)]
        head = " = ".join([*filter(None, [place_text(self.place)]), *shown])
        return ": ".join(filter(None, [head, "; ".join(filter(None, [self.reason, self.remedy]))]))

    def __str__(self) -> str:
        return "\n".join(error.line for error in self.each)

    def within(self, *outer: Part) -> Self:
        """A copy of this error and the others, with their places inside an outer one."""
        moved = type(self).__new__(type(self), *self.args)  # copy.copy uses what Dask registers for pickling errors
        moved.__dict__.update(self.__dict__)
        moved.place = (*outer, *self.place)
        moved.others = tuple(error.within(*outer) for error in self.others)
        return moved


class InputError(EftError, ValueError):
    """An input of the user is wrong."""


class EnvironmentProblem(EftError, RuntimeError):
    """The computer or a service does not allow the work: the database, the disk or the device."""


class OutOfMemory(EnvironmentProblem):
    """The device has too little memory left, perhaps because another program uses it too."""


class NumericsWarning(UserWarning):
    """A requested numerical tolerance was not met; the result carries its error estimate."""


class TruncationWarning(NumericsWarning):
    """The Wick orders that a prediction leaves out may matter."""


class StepWarning(TruncationWarning):
    """The powers of epsilon that forward Euler leaves out may matter."""


class LawWarning(UserWarning):
    """The law of a kernel is asked for where its coverage was not measured."""


@contextmanager
def within(*outer: Part) -> Iterator[None]:
    """Errors of the block get an outer place.

    >>> with within("kernel", 1):
    ...     raise InputError("is not symmetric", place="matrix", remedy="give (K + K^T) / 2")
    Traceback (most recent call last):
    ...
    eftcore.errors.InputError: kernel[1].matrix: is not symmetric; give (K + K^T) / 2
    """
    try:
        yield
    except EftError as error:
        raise error.within(*outer).with_traceback(error.__traceback__) from error.__cause__


def place_text(place: Iterable[Part]) -> str:
    """A place as text.

    >>> place_text([PurePath("my.toml"), "kernel", 1, "path", PurePath("data.csv"), "row 2"])
    'my.toml: kernel[1].path: data.csv: row 2'
    """
    text, before = "", None
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif before is None:
            text += str(part)
        else:
            text += f": {part}" if isinstance(part, PurePath) or isinstance(before, PurePath) else f".{part}"
        before = part
    return text


_values = reprlib.Repr()
_values.maxstring = _values.maxother = _values.maxlong = LONGEST_VALUE


def _shown(value: Any) -> str:
    """A value on one line, and not too long.

    >>> _shown({"matrix": [[0.0] * 1000] * 1000})
    "{'matrix': [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ...], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ...], ...
    """
    text = " ".join(_values.repr(value).split())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def as_written(place: Iterable[Part], given: Any) -> tuple[Part, ...]:
    """A place in validated data as a place in what the user gave, where pydantic's steps need not exist.

    Such are the position of a single value that stands for a list of one, and the alternatives of a type.

    >>> as_written(("model", 0, "epsilon", 1), {"model": {"epsilon": [0.1, "x"]}})
    ('model', 'epsilon', 1)
    >>> as_written(("order", "literal['auto']"), {"order": "x"})
    ('order',)
    """
    there: list[Part] = []
    for part in place:
        listed = isinstance(given, list | tuple) and isinstance(part, int) and part < len(given)
        if listed or (isinstance(given, dict) and part in given):
            given = given[part]
            there.append(part)
    return tuple(there)


def input_error(error: ValidationError, given: Any) -> InputError:
    """Pydantic's error as one of ours: every wrong field in its place in ``given``, which was validated."""
    found: dict[tuple[Part, ...], InputError] = {}
    for item in error.errors(include_url=False):
        place, cause = as_written(item["loc"], given), item.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            told = [each.within(*place) for each in cause.each]
            if place and not cause.place and cause.value is ...:
                told[0].value = item["input"]
        elif item["type"] == "missing":
            told = [InputError("required field is missing", place=(*place, item["loc"][-1]), remedy="add it")]
        elif item["type"] == "extra_forbidden":
            told = [InputError("unknown field", place=place, remedy="remove it or check its spelling")]
        else:
            wanted = item["msg"].removesuffix(f" or instance of {item.get('ctx', {}).get('class_name')}")
            told = [InputError(_in_our_words(wanted), place=place, value=item["input"])]
        for each in told:
            alternative = found.setdefault(each.place, each)
            if alternative is not each:
                also = f", or {each.reason.removeprefix('must be ')}"
                if alternative.remedy:
                    alternative.remedy += also
                else:
                    alternative.reason += also
    # a list also counts as too short where its wrong entries were dropped
    inside = {place[:length] for place in found for length in range(len(place))} - {()}
    return together(*(each for place, each in found.items() if place not in inside))


def together(first: InputError, *others: InputError) -> InputError:
    """One error for several, found at the same time."""
    first.others = others
    return first


def _in_our_words(message: str) -> str:
    """A message of pydantic, which begins as "Input should be" or "String should have".

    >>> _in_our_words("Input should be greater than 0")
    'must be greater than 0'
    """
    subject, should, rest = message.partition(" should ")
    return f"must {rest}" if should and subject.isalpha() else message
