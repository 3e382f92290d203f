"""Many small pieces of work in one Prefect task: each piece is stored, retried, and fails by itself.

What Prefect notes of a task, and asks the server for, costs as much as a small piece of work. So small pieces share a
task. A piece that fails leaves its neighbours alone. What failed for a reason that may pass is left to a task of its
own, which is retried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Literal, NamedTuple

from prefect import task
from prefect.task_engine import TaskRunTimeoutError
from prefect.utilities.timeout import timeout

from eftcore.errors import EftError
from eftcore.specs import PredictionSpec
from flows.orchestration import tasks
from flows.work import computations, costs, recording
from flows.work.once import claimed
from flows.work.store import default_store
from flows.work.waiting import may_pass, patient_worker
from flows.work.walk import Kind

IN_ONE_TRANSACTION = 16
"""Most configurations that are recorded in one transaction of the database, which others wait for."""


class End(NamedTuple):
    """How a piece ended; ``cause`` is the reason of a failure. "again" asks for a task of its own."""

    end: Literal["computed", "failed", "again"]
    cause: str = ""


class SomeFailed(Exception):
    """Not every piece of a task succeeded; ``ends`` says how each of them ended."""

    def __init__(self, ends: Sequence[End]) -> None:
        super().__init__(ends)
        self.ends = ends

    def __str__(self) -> str:
        return f"{sum(end.end != 'computed' for end in self.ends)} of {len(self.ends)} did not succeed"


@task(**tasks.UNSTORED)
def together(kind: Kind, pieces: list[dict[str, Any]], shared: dict[str, Any], seconds: float | None) -> None:
    """Carry out pieces of one kind of work. Raises SomeFailed unless all succeeded.

    Args:
        pieces: what distinguishes each piece, as arguments of the task of this kind.
        shared: further arguments, the same for all.
        seconds: after which a single piece counts as failed.
    """
    ends = _together(kind, pieces, shared, seconds)
    if any(end.end != "computed" for end in ends):
        raise SomeFailed(ends)


def cause(error: BaseException) -> str:
    """The reason of a failure, as it is told and recorded."""
    return str(error) if isinstance(error, EftError) else f"{type(error).__name__}: {error}"


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused the error; compiled code wraps a KeyboardInterrupt in an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _tried() -> Iterator[None]:
    """What fails within the block is left to be done one by one; an interrupt is no failure."""
    try:
        yield
    except Exception as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error


def _together(
    kind: Kind, pieces: Sequence[dict[str, Any]], shared: Mapping[str, Any], seconds: float | None
) -> list[End]:
    carry_out = tasks.TASKS[kind].fn

    def end(piece: dict[str, Any]) -> End:
        return _end(lambda: carry_out(**piece, **shared), seconds)

    with patient_worker():
        if kind == "record":
            batches = costs.batched(pieces, lambda _: 0.0, most=IN_ONE_TRANSACTION)
            return [each for some in batches for each in _record(some, shared)]
        if kind == "widths":
            return [end(piece) for piece in pieces]
        with claimed([piece["digest"] for piece in pieces]) as ours:
            here = [piece for piece in pieces if piece["digest"] in ours]
            if kind == "predict":
                _predict_alike(here, seconds)
            ends = {piece["digest"]: end(piece) for piece in here}
        # what others compute is waited for without a claim, so that no two processes wait for each other
        return [ends.get(piece["digest"]) or end(piece) for piece in pieces]


def _end(carry_out: Callable[[], None], seconds: float | None) -> End:
    try:
        with timeout(seconds=seconds, timeout_exc_type=TaskRunTimeoutError):
            carry_out()
    except TaskRunTimeoutError as error:
        return End("failed", cause(error))
    except Exception as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        return End("again" if may_pass(error) else "failed", cause(error))
    return End("computed")


def _predict_alike(pieces: Sequence[dict[str, Any]], seconds: float | None) -> None:
    """Compute those of the claimed predictions together that can be; what fails is then computed one by one."""
    specs = sorted((PredictionSpec(**piece["spec"]) for piece in pieces), key=computations.alike)
    store = default_store()
    for _, some in groupby(specs, computations.alike):
        by_digest = {spec.digest: spec for spec in some}
        if len(by_digest) == 1:
            continue
        with (
            _tried(),
            tasks.linked(),
            timeout(seconds=seconds, timeout_exc_type=TaskRunTimeoutError),
        ):
            there = store.intact(by_digest)
            computations.predict_alike(store, [spec for digest, spec in by_digest.items() if digest not in there])


def _record(pieces: Sequence[dict[str, Any]], shared: Mapping[str, Any]) -> list[End]:
    """Record in one transaction; where this fails, one by one."""
    records = [{name: value for name, value in piece.items() if name != "digest"} for piece in pieces]
    with _tried():
        recording.record(default_store(), records=records, **shared)
        return [End("computed")] * len(pieces)
    return [_end(lambda piece=piece: tasks.record.fn(**piece, **shared), None) for piece in pieces]
