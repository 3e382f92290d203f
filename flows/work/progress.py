"""How a running study is shown: a bar with time left on a terminal, one plain line per finished task elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column


class Step(Protocol):
    """A task that runs."""

    def advance(self, fraction: float) -> None:
        """It is this far, 0 to 1."""

    def end(self, outcome: str) -> None:
        """It ended: "cached", "computed" or "failed"."""


class Reporter(Protocol):
    """What a running study tells. Work is in neuron updates, so that the time left means something."""

    def start(self, tasks: int, work: float) -> None:
        """The whole study: how many tasks, how much work."""

    def extend(self, tasks: int, work: float) -> None:
        """There is more to do than was known."""

    def begin(self, label: str, work: float) -> Step:
        """A task begins; several may run at a time."""

    def note(self, text: Callable[[], str]) -> None:
        """Something worth knowing while it runs, made when somebody reads it."""


class Silent:
    """Says nothing; also its own step."""

    def start(self, tasks: int, work: float) -> None: ...

    def extend(self, tasks: int, work: float) -> None: ...

    def begin(self, label: str, work: float) -> Step:
        return self

    def note(self, text: Callable[[], str]) -> None: ...

    def advance(self, fraction: float) -> None: ...

    def end(self, outcome: str) -> None: ...


class Lines(Silent):
    """One line per finished task."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks = self._done = 0
        self._lock = threading.Lock()

    def start(self, tasks: int, work: float) -> None:
        self._tasks = tasks

    def extend(self, tasks: int, work: float) -> None:
        with self._lock:
            self._tasks += tasks

    def begin(self, label: str, work: float) -> Step:
        return _Line(self, label)

    def note(self, text: Callable[[], str]) -> None:
        self._console.print(text(), markup=False, highlight=False)

    def ended(self, label: str, outcome: str) -> None:
        with self._lock:
            self._done += 1
            self.note(lambda: f"[{self._done}/{self._tasks}] {label}: {outcome}")


class _Line(Silent):
    def __init__(self, lines: Lines, label: str) -> None:
        self._lines, self._label = lines, label

    def end(self, outcome: str) -> None:
        self._lines.ended(self._label, outcome)


class Bar:
    """A bar over the whole study and one for each task at work; notes stay above them.

    Cached work leaves the total, so that it does not flatter the time left.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._bar = progress.add_task("starting", total=None)
        self._total = self._finished = 0.0
        self._tasks = self._done = 0
        self._at_work: dict[_BarStep, float] = {}
        self._lock = threading.Lock()

    def start(self, tasks: int, work: float) -> None:
        self.extend(tasks, work)

    def extend(self, tasks: int, work: float) -> None:
        with self._lock:
            self._tasks += tasks
            self._total += work
            self._show()

    def begin(self, label: str, work: float) -> Step:
        return _BarStep(self, label, work)

    def note(self, text: Callable[[], str]) -> None:
        self.progress.console.print(text(), markup=False, highlight=False)

    def at(self, step: _BarStep, done: float) -> None:
        """So much of a step's work is done."""
        with self._lock:
            self._at_work[step] = done
            self._show()

    def ended(self, step: _BarStep, outcome: str) -> None:
        """A step is over."""
        with self._lock:
            self._at_work.pop(step, None)
            self._done += 1
            if outcome == "computed":
                self._finished += step.work
            else:
                self._total -= step.work
            self._show()

    def _show(self) -> None:
        done = self._finished + sum(self._at_work.values())
        text = f"{self._done} of {self._tasks} tasks"
        self.progress.update(self._bar, description=text, completed=done, total=max(self._total, done))


class _BarStep:
    def __init__(self, bar: Bar, label: str, work: float) -> None:
        self._bar, self.work = bar, work
        self._line = bar.progress.add_task(label, total=1.0)

    def advance(self, fraction: float) -> None:
        self._bar.progress.update(self._line, completed=fraction)
        self._bar.at(self, fraction * self.work)

    def end(self, outcome: str) -> None:
        self._bar.progress.remove_task(self._line)
        self._bar.ended(self, outcome)


_silent = Silent()
_current: ContextVar[Reporter] = ContextVar("reporter", default=_silent)
_step: ContextVar[Step] = ContextVar("step", default=_silent)


def current() -> Reporter:
    """The reporter of the study that runs in this context."""
    return _current.get()


def step() -> Step:
    """The task that runs in this context, which finds it here since its inputs are plain values.

    In other processes than the flow's it says nothing.
    """
    return _step.get()


@contextmanager
def stepping(label: str, work: float) -> Iterator[Step]:
    """A task that begins in this context."""
    begun = current().begin(label, work)
    token = _step.set(begun)
    try:
        yield begun
    finally:
        _step.reset(token)


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show the study that runs within the block on ``console``."""
    if not console.is_terminal:
        with _using(Lines(console)):
            yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(),
        TextColumn("left", table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as progress, _using(Bar(progress)):
        yield


@contextmanager
def _using(reporter: Reporter) -> Iterator[None]:
    token = _current.set(reporter)
    try:
        yield
    finally:
        _current.reset(token)
