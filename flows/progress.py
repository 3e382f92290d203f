"""How a running study is shown: a bar with time left on a terminal, one plain line per finished task elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column


class Reporter(Protocol):
    """What a running study tells. Work is in neuron updates, so that the time left means something."""

    def start(self, tasks: int, work: float) -> None:
        """The whole study: how many tasks, how much work."""

    def extend(self, tasks: int, work: float) -> None:
        """There is more to do than was known."""

    def begin(self, label: str, work: float) -> None:
        """A task begins."""

    def advance(self, fraction: float) -> None:
        """The task at hand is this far, 0 to 1."""

    def end(self, outcome: str) -> None:
        """The task ended: "cached", "computed" or "failed"."""


class Silent:
    """Says nothing."""

    def start(self, tasks: int, work: float) -> None: ...

    def extend(self, tasks: int, work: float) -> None: ...

    def begin(self, label: str, work: float) -> None: ...

    def advance(self, fraction: float) -> None: ...

    def end(self, outcome: str) -> None: ...


class Lines(Silent):
    """One line per finished task."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks = self._done = 0
        self._label = ""

    def start(self, tasks: int, work: float) -> None:
        self._tasks = tasks

    def extend(self, tasks: int, work: float) -> None:
        self._tasks += tasks

    def begin(self, label: str, work: float) -> None:
        self._label = label

    def end(self, outcome: str) -> None:
        self._done += 1
        self._console.print(f"[{self._done}/{self._tasks}] {self._label}: {outcome}", markup=False, highlight=False)


class Bar:
    """One bar over the whole study. Cached work leaves the total, so that it does not flatter the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = progress.add_task("starting", total=None)
        self._total = self._finished = self._work = 0.0

    def start(self, tasks: int, work: float) -> None:
        self._total = work
        self._progress.update(self._bar, total=work)

    def extend(self, tasks: int, work: float) -> None:
        self._total += work
        self._progress.update(self._bar, total=self._total)

    def begin(self, label: str, work: float) -> None:
        self._work = work
        self._progress.update(self._bar, description=label)

    def advance(self, fraction: float) -> None:
        self._progress.update(self._bar, completed=self._finished + fraction * self._work)

    def end(self, outcome: str) -> None:
        if outcome == "computed":
            self._finished += self._work
        else:
            self._total -= self._work
        self._progress.update(self._bar, completed=self._finished, total=max(self._total, self._finished))


_silent = Silent()
_current: ContextVar[Reporter] = ContextVar("reporter", default=_silent)


def current() -> Reporter:
    """The reporter of the study that runs in this context; tasks find it here, since their inputs are plain values."""
    return _current.get()


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
