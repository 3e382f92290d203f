"""Handing tasks to Prefect: to the flow's runner, or to this process where they take no time worth a worker's trip."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import copy_context
from typing import Any, Literal, NamedTuple, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.task_runners import TaskRunner

from eftcore.errors import EftError, EnvironmentProblem

LOST_WORKERS = 5
"""How often a study survives that a worker process is killed."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class Outcome(NamedTuple):
    """How a task ended; ``cause`` says why it failed, for people."""

    end: Literal["cached", "computed", "failed"]
    cause: str = ""


class Dispatcher:
    """Runs tasks of the flow that runs in this context, several at a time when called from several threads.

    Args:
        runner: started.
        workers: tasks that it works on at a time.
    """

    def __init__(self, runner: TaskRunner[Any], workers: int) -> None:
        self._runner = runner
        self._at_a_time = workers + 1  # one more, so that no worker waits while we read what another one made
        self._changing = threading.Lock()
        self._generation = 0
        self._stopped = threading.Event()

    def each(self, do: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        """``do`` of every item, several at a time; an exception or Ctrl-C ends it before the next item."""
        with ThreadPoolExecutor(self._at_a_time, thread_name_prefix="eft-dispatch") as pool:
            doing = [pool.submit(copy_context().run, do, item) for item in items]
            try:
                return [one.result() for one in doing]
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def here(self, task: Task[..., Any], inputs: dict[str, Any]) -> Outcome:
        """Run a task in this thread. Raises KeyboardInterrupt after Ctrl-C."""
        self._raise_if_stopped()
        return _outcome(task(**inputs, return_state=True))

    def run(self, task: Task[..., Any], inputs: dict[str, Any]) -> Outcome:
        """Run a task on the runner; again if its worker was killed.

        Raises KeyboardInterrupt after Ctrl-C, EnvironmentProblem when the cluster's scheduler is lost.
        """
        while True:
            self._raise_if_stopped()
            self._raise_if_scheduler_lost()
            try:
                with self._changing:
                    generation = self._generation
                    future = self._runner.submit(task, parameters=inputs)
                ended = future.wrapped_future.result()
            except BrokenProcessPool:
                if not self._replaced(generation):
                    return Outcome("failed", f"worker processes were killed {LOST_WORKERS} times; is memory short?")
            except Exception as error:  # what a cluster says when it gives a task up
                self._raise_if_scheduler_lost(error)
                return Outcome("failed", _cause(error))
            else:
                return _outcome(ended)

    def _replaced(self, generation: int) -> bool:
        """Give the runner new processes in place of those that ended, unless another thread did; False: no more."""
        with self._changing:
            if generation == self._generation:
                self._generation += 1
                if self._generation <= LOST_WORKERS:
                    self._runner.__exit__(None, None, None)
                    self._runner.__enter__()
            return self._generation <= LOST_WORKERS

    def _raise_if_scheduler_lost(self, error: Exception | None = None) -> None:
        """Without it every task would fail, each with an error that does not say why."""
        client = getattr(self._runner, "client", None)
        if client is not None and client.status != "running":
            address = getattr(self._runner, "address", None) or "this machine"
            raise EnvironmentProblem(
                f"the Dask scheduler at {address} was lost during the run; start it again, and the same command goes "
                "on from there: finished work is kept"
            ) from error

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt


def _outcome(state: State[Any]) -> Outcome:
    if state.is_completed():
        return Outcome("cached" if state.name == "Cached" else "computed")
    error = state.result(raise_on_failure=False)
    if _was_interrupted(error):
        raise KeyboardInterrupt
    return Outcome("failed", _cause(error))


def _cause(error: Any) -> str:
    return str(error) if isinstance(error, EftError) else f"{type(error).__name__}: {error}"


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it; compiled code wraps what reaches it in an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
