"""A study in a process that kills itself on the way; the tests start it with everything imported."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from flows.study.requests import Resources, StudyRequest
from flows.work.store import ResultStore


def carry_out(study: str, environment: dict[str, str], after: int, delay: float, said: Path) -> None:
    """Run a study as ``eft run`` does, and be killed ``delay`` seconds after that step, wherever it is then.

    Steps are statements to the database and results that are stored. Writes to ``said`` which step it was; how many
    there were, when the study ended before.
    """
    os.environ.update(environment)
    from flows import launch

    steps = itertools.count(1)

    def step(what: str) -> None:
        if next(steps) == after:
            said.write_text(what)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def statement(_connection: Any, _cursor: Any, text: str, *_rest: Any) -> None:
        step(" ".join(text.split()[:3]))

    def save(store: ResultStore, *given: Any) -> None:
        step("storing a result")
        stored(store, *given)

    sa.event.listen(sa.Engine, "before_cursor_execute", statement)
    stored, ResultStore.save = ResultStore.save, save  # type: ignore[method-assign]
    outcome = launch.run_study(StudyRequest(study=study), Resources())
    assert outcome.failures == []
    said.write_text(str(next(steps)))
    os._exit(0)  # before a kill that is still to come
