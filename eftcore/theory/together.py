"""Many computations carried on together, so that what several of them need at a time is computed at once.

A computation is a coroutine. Where it needs something that costs time, such as Gaussian integrals, it awaits a
``Request`` for it; what it then does with the answer, such as raising an order or refining integrals, it decides for
itself. ``alone`` answers the requests of one computation, one by one. ``together`` gathers those of many, and answers
requests of the same kind in one vectorised computation. There is no other difference between the two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from eftcore.batches import batched

T = TypeVar("T")

Computation = Coroutine["Request[Any]", Any, T]
"""A coroutine that awaits nothing but requests."""


class Request(ABC, Generic[T]):
    """Something that a computation needs. Awaiting it gives the answer.

    >>> class Square(Request[int]):
    ...     def __init__(self, number: int) -> None:
    ...         self.number = number
    ...     def answer(self) -> int:
    ...         return self.number**2
    >>> async def fourth_power(number: int) -> int:
    ...     return await Square(await Square(number))
    >>> alone(fourth_power(2)), [outcome.value for outcome in together([fourth_power(1), fourth_power(3)])]
    (16, [1, 81])
    """

    def __await__(self) -> Generator[Request[T], T, T]:
        return (yield self)

    @abstractmethod
    def answer(self) -> T:
        """The answer to this request alone."""

    @property
    def kind(self) -> Hashable | None:
        """Requests of the same class and kind can be answered together; None for one that cannot."""
        return None

    @property
    def size(self) -> int:
        """About how many numbers are held to answer it."""
        return 1

    @classmethod
    def answers(cls, requests: Sequence[Self]) -> list[T]:
        """The answers to requests of one kind; up to rounding each is that of ``answer``."""
        return [request.answer() for request in requests]


MOST_NUMBERS = 2_000_000
"""Numbers that are held at a time to answer requests together: 16 MB, more would be no faster."""


@dataclass
class Outcome(Generic[T]):
    """What a computation came to: its value, or the exception that it raised."""

    value: T | None = None
    error: Exception | None = None

    @property
    def found(self) -> T:
        """The value. Raises the exception of a computation that failed."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def alone(computation: Computation[T]) -> T:
    """The value of one computation. Raises what it raises."""
    outcome = Outcome[Any]()
    while True:
        try:
            request = computation.send(outcome.value) if outcome.error is None else computation.throw(outcome.error)
        except StopIteration as end:
            found: T = end.value
            return found
        outcome = _answered(request)


def alone_each(computations: AsyncGenerator[T, None]) -> Iterator[T]:
    """The values of a computation that yields several, each computed when it is asked for."""
    while True:
        try:
            value = alone(_next(computations))
        except StopAsyncIteration:
            return
        yield value


async def _next(computations: AsyncGenerator[T, None]) -> T:
    return await anext(computations)


def together(computations: Sequence[Computation[T]]) -> list[Outcome[T]]:
    """The outcomes of many computations, in their order. One that fails does not disturb the others."""
    outcomes = [Outcome[T]() for _ in computations]
    waiting: dict[int, Request[Any]] = {}

    def go_on(number: int, given: Outcome[Any]) -> None:
        computation = computations[number]
        try:
            waiting[number] = computation.send(given.value) if given.error is None else computation.throw(given.error)
        except StopIteration as end:
            outcomes[number].value = end.value
        except Exception as error:  # whoever wants the value gets it
            outcomes[number].error = error

    for number in range(len(computations)):
        go_on(number, Outcome())
    while waiting:
        kinds: dict[Hashable, list[int]] = {}
        for number, request in waiting.items():
            kind = request.kind
            kinds.setdefault(number if kind is None else (type(request), kind), []).append(number)
        for numbers in kinds.values():
            for part in batched(numbers, lambda number: waiting[number].size, MOST_NUMBERS):
                given = _all_answered([waiting.pop(number) for number in part])
                for number, outcome in zip(part, given, strict=True):
                    go_on(number, outcome)
    return outcomes


def _answered(request: Request[Any]) -> Outcome[Any]:
    try:
        return Outcome(request.answer())
    except Exception as error:  # it is raised in the computation that asked
        return Outcome(error=error)


def _all_answered(requests: list[Request[Any]]) -> list[Outcome[Any]]:
    """Together if possible; one by one where that fails, to find out which of them it is."""
    if len(requests) > 1:
        try:
            return [Outcome(answer) for answer in type(requests[0]).answers(requests)]
        except Exception:
            pass
    return [_answered(request) for request in requests]
