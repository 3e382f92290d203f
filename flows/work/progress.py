"""Progress of a running study: a bar with the time left on a terminal, otherwise a plain line per finished task."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column


class Step(Protocol):
    """The progress of one running task."""

    def advance(self, fraction: float) -> None:
        """Report the finished fraction of the task, 0 to 1."""

    def end(self, outcomes: Mapping[str, int]) -> None:
        """Report the end of the task: how many of its pieces were "cached", "computed" or "failed"."""


class Reporter(Protocol):
    """Receives the progress of a running study. Work is measured in neuron updates, to estimate the time left."""

    def start(self, tasks: int, work: float) -> None:
        """Report the number of tasks and the work of the whole study."""

    def extend(self, tasks: int, work: float) -> None:
        """Report further tasks and work that were not known at the start."""

    def begin(self, label: str, work: float, pieces: int) -> Step:
        """Report the beginning of a task with so many pieces; several tasks may run at a time."""

    def note(self, text: Callable[[], str]) -> None:
        """Show a message; ``text`` is called only if messages are shown."""


class Silent:
    """A reporter that shows nothing; it is also the step of each of its tasks."""

    def start(self, tasks: int, work: float) -> None: ...

    def extend(self, tasks: int, work: float) -> None: ...

    def begin(self, label: str, work: float, pieces: int) -> Step:
        return self

    def note(self, text: Callable[[], str]) -> None: ...

    def advance(self, fraction: float) -> None: ...

    def end(self, outcomes: Mapping[str, int]) -> None: ...


class Lines(Silent):
    """A reporter that prints one line for each finished task, with the number of pieces of work finished so far."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks = self._done = 0
        self._lock = threading.Lock()

    def start(self, tasks: int, work: float) -> None:
        self._tasks = tasks

    def extend(self, tasks: int, work: float) -> None:
        with self._lock:
            self._tasks += tasks

    def begin(self, label: str, work: float, pieces: int) -> Step:
        return _Line(self, label)

    def note(self, text: Callable[[], str]) -> None:
        self._console.print(text(), markup=False, highlight=False)

    def ended(self, label: str, outcomes: Mapping[str, int]) -> None:
        pieces = sum(outcomes.values())
        said = [outcome if pieces == 1 else f"{count} {outcome}" for outcome, count in sorted(outcomes.items())]
        with self._lock:
            self._done += pieces
            self.note(lambda: f"[{self._done}/{self._tasks}] {label}: {', '.join(said)}")


class _Line(Silent):
    def __init__(self, lines: Lines, label: str) -> None:
        self._lines, self._label = lines, label

    def end(self, outcomes: Mapping[str, int]) -> None:
        if outcomes:
            self._lines.ended(self._label, outcomes)


class Bar:
    """A reporter with a progress bar for the whole study and one for each running task; messages stay above the bars.

    The work of cached and failed tasks is subtracted from the total, so that it does not distort the time left.
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

    def begin(self, label: str, work: float, pieces: int) -> Step:
        return _BarStep(self, label, work, pieces)

    def note(self, text: Callable[[], str]) -> None:
        self.progress.console.print(text(), markup=False, highlight=False)

    def at(self, step: _BarStep, done: float) -> None:
        """Set the finished work of a running task, in neuron updates."""
        with self._lock:
            self._at_work[step] = done
            self._show()

    def ended(self, step: _BarStep, outcomes: Mapping[str, int]) -> None:
        """Take note of the end of a task. Pieces without an outcome are done later, in tasks of their own."""
        with self._lock:
            self._at_work.pop(step, None)
            for outcome, count in outcomes.items():
                self._done += count
                if outcome == "computed":
                    self._finished += step.work * count / step.pieces
                else:
                    self._total -= step.work * count / step.pieces
            self._show()

    def _show(self) -> None:
        done = self._finished + sum(self._at_work.values())
        text = f"{self._done} of {self._tasks} tasks"
        self.progress.update(self._bar, description=text, completed=done, total=max(self._total, done))


class _BarStep:
    def __init__(self, bar: Bar, label: str, work: float, pieces: int) -> None:
        self._bar, self.work, self.pieces = bar, work, pieces
        self._line = bar.progress.add_task(label, total=1.0)

    def advance(self, fraction: float) -> None:
        self._bar.progress.update(self._line, completed=fraction)
        self._bar.at(self, fraction * self.work)

    def end(self, outcomes: Mapping[str, int]) -> None:
        self._bar.progress.remove_task(self._line)
        self._bar.ended(self, outcomes)


_silent = Silent()
_current: ContextVar[Reporter] = ContextVar("reporter", default=_silent)
_step: ContextVar[Step] = ContextVar("step", default=_silent)


def current() -> Reporter:
    """The reporter of the study that runs in this context."""
    return _current.get()


def step() -> Step:
    """The progress of the task that runs in this context. It is no input of tasks, since these are plain values.

    In worker processes it shows nothing.
    """
    return _step.get()


@contextmanager
def stepping(label: str, work: float, pieces: int = 1) -> Iterator[Step]:
    """Report the beginning of a task and make it the one that runs in this context."""
    begun = current().begin(label, work, pieces)
    token = _step.set(begun)
    try:
        yield begun
    finally:
        _step.reset(token)


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show the progress of the study that runs within the block on ``console``."""
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
