"""Studies as plain functions of this process, without Prefect, its server or commands: for what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import pytest

from flows.cli import main
from flows.orchestration.dispatch import Outcome
from flows.orchestration.groups import End, SomeFailed, cause
from flows.study.requests import StudyRequest

Item = TypeVar("Item")
Made = TypeVar("Made")


class InThisThread:
    """In place of a Dispatcher: runs tasks one after another, without Prefect, so none is retried."""

    def each(self, do: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        return [do(item) for item in items]

    def run(self, task: Any, inputs: dict[str, Any]) -> Outcome:
        try:
            state = task.fn(**inputs)  # of a result that is stored already: Prefect's state of a cached task
        except Exception as error:
            return Outcome("failed", cause(error))
        return Outcome("computed" if state is None else "cached")

    here = run

    def together(self, task: Any, inputs: dict[str, Any], *, here: bool) -> Sequence[End]:
        try:
            task.fn(**inputs)
        except SomeFailed as some:
            return some.ends
        return [End("computed")] * len(inputs["pieces"])


@contextmanager
def without_prefect() -> Iterator[None]:
    """In the block, the flows of flows.run are plain functions, whose tasks run in this thread, and publish nothing.

    A run of the tiny study takes half a second of processor time, by Prefect a second and a half.
    """
    from flows import run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "dispatching", lambda _: nullcontext(InThisThread()))
        patch.setattr(run.artifacts, "publish_study", lambda *_: None)
        for flow in ("run_study", "run_configuration", "top_up"):
            patch.setattr(run, flow, getattr(run, flow).fn)
        yield


def recorded(home: Path, studies: Iterable[str], *commands: tuple[str, ...]) -> None:
    """Make a folder of results, run these studies into its database, and then carry out commands of `eft`."""
    with pytest.MonkeyPatch.context() as patch, without_prefect():
        patch.setenv("EFT_HOME", str(home))
        patch.setenv("EFT_DATABASE_URL", "")
        eft("db", "upgrade")
        from flows import run

        for study in studies:
            assert run.run_study(StudyRequest(study=study)).failures == []
        for command in commands:
            eft(*command)


def eft(*arguments: str) -> None:
    """A command in this process, which has to succeed."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert not ended.value.code
