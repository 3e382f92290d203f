"""Running tasks by Prefect: on the flow's task runner, or in this process where a task is too short for a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import copy_context
from typing import Any, Literal, NamedTuple, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.task_runners import TaskRunner

from eftcore.errors import EnvironmentProblem
from flows.orchestration.groups import End, SomeFailed, cause, was_interrupted

LOST_WORKERS = 5
"""How many times a study goes on after a worker process ended."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class Outcome(NamedTuple):
    """How a task ended: "cached", "computed" or "failed"; ``cause`` is the reason of a failure."""

    end: Literal["cached", "computed", "failed"]
    cause: str = ""


class Dispatcher:
    """Runs tasks of the present flow run; called from several threads it runs several tasks at a time.

    Args:
        runner: the task runner, already started.
        workers: number of tasks that the runner executes at a time.
    """

    def __init__(self, runner: TaskRunner[Any], workers: int) -> None:
        self.runner = runner
        self.workers = workers
        self._changing = threading.Lock()
        self._generation = 0
        self._stopped = threading.Event()

    def each(self, do: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        """Call ``do`` for every item, several at a time; after an exception or Ctrl-C no further item begins."""
        # one more than workers, so that none is idle while this process handles a finished task
        with ThreadPoolExecutor(self.workers + 1, thread_name_prefix="eft-dispatch") as pool:
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
        """Run a task on the task runner, and again if its worker process ended.

        Raises KeyboardInterrupt after Ctrl-C, EnvironmentProblem when the cluster's scheduler is lost.
        """
        while True:
            self._raise_if_stopped()
            self._raise_if_scheduler_lost()
            try:
                with self._changing:
                    generation = self._generation
                    future = self.runner.submit(task, parameters=inputs)
                ended = future.wrapped_future.result()
            except BrokenProcessPool:
                if not self._replaced(generation):
                    return Outcome("failed", f"worker processes ended {LOST_WORKERS} times; is memory short?")
            except Exception as error:  # a cluster that gives up a task may raise anything
                self._raise_if_scheduler_lost(error)
                return Outcome("failed", cause(error))
            else:
                return _outcome(ended)

    def together(self, task: Task[..., Any], inputs: dict[str, Any], *, here: bool) -> Sequence[End] | None:
        """Run a task of several pieces, in this thread or on the task runner; returns how each of them ended.

        None where this is not known, since the task did not come to its end: its worker process ended, say.
        """
        self._raise_if_stopped()
        if here:
            return _ends(task(**inputs, return_state=True), len(inputs["pieces"]))
        self._raise_if_scheduler_lost()
        try:
            with self._changing:
                generation = self._generation
                future = self.runner.submit(task, parameters=inputs)
            return _ends(future.wrapped_future.result(), len(inputs["pieces"]))
        except BrokenProcessPool:
            self._replaced(generation)
        except Exception as error:  # a cluster that gives up a task may raise anything
            self._raise_if_scheduler_lost(error)
        return None

    def _replaced(self, generation: int) -> bool:
        """Restart the runner's worker processes, unless another thread has done so; False after LOST_WORKERS times."""
        with self._changing:
            if generation == self._generation:
                self._generation += 1
                if self._generation <= LOST_WORKERS:
                    self.runner.__exit__(None, None, None)
                    self.runner.__enter__()
            return self._generation <= LOST_WORKERS

    def _raise_if_scheduler_lost(self, error: Exception | None = None) -> None:
        """Raises EnvironmentProblem if the Dask scheduler is lost; else every task would fail with an unclear error."""
        client = getattr(self.runner, "client", None)
        if client is not None and client.status != "running":
            address = getattr(self.runner, "address", None) or "this machine"
            raise EnvironmentProblem(
                "was lost during the run",
                place="Dask scheduler",
                value=address,
                remedy="start it again, and the same command goes on from there: finished work is kept",
            ) from error

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt


def _outcome(state: State[Any]) -> Outcome:
    if state.is_completed():
        return Outcome("cached" if state.name == "Cached" else "computed")
    error = state.result(raise_on_failure=False)
    if was_interrupted(error):
        raise KeyboardInterrupt
    return Outcome("failed", cause(error))


def _ends(state: State[Any], pieces: int) -> Sequence[End] | None:
    if state.is_completed():
        return [End("computed")] * pieces
    error = state.result(raise_on_failure=False)
    if isinstance(error, SomeFailed):
        return error.ends
    if was_interrupted(error):
        raise KeyboardInterrupt
    return None
