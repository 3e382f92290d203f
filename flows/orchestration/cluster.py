"""A Dask cluster of one's own: before a study starts, its workers show that they have the same store and database."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from db.addresses import shown
from db.session import Database
from db.settings import default_url, store_address
from db.writing import claims
from eftcore.errors import EftError, EnvironmentProblem
from flows.work.places import place_of

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
"""Seconds within which a Dask scheduler must answer, also after the connection was lost."""


class Answer(NamedTuple):
    """What a worker found: the name of what it wrote, its machine, and its store and database without secrets."""

    written: str
    machine: str
    store: str
    database: str
    problem: str


def tasks_at_a_time(address: str) -> int:
    """Number of tasks that a running cluster executes at a time.

    Raises EnvironmentProblem where no scheduler answers, it has no workers, or a worker has another store or database.
    """
    from distributed import Client

    try:
        with Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client:
            threads: int = sum(client.nthreads().values())
            _require_shared(client)
    except (OSError, ValueError) as error:
        if isinstance(error, EftError):
            raise
        raise EnvironmentProblem(
            f"no Dask scheduler answers there ({error})",
            place="dask_address",
            value=address,
            remedy="check the address and start one with `dask scheduler`",
        ) from None
    if not threads:
        raise EnvironmentProblem(
            "the scheduler has no workers",
            place="dask_address",
            value=address,
            remedy=f"start some with `dask worker {address}`",
        )
    return threads


def _require_shared(client: Client) -> None:
    """Raise EnvironmentProblem unless every worker reads and writes our store and our database.

    Equal addresses may mean different things on two machines. So we leave a mark in both, each worker looks for it and
    leaves its own, and we look for those.
    """
    place, db = place_of(store_address()), Database(default_url())
    token = secrets.token_hex(8)  # it also stands for the holder of all marks in the database
    marks = [_mark(token, token)]
    try:
        with place.writing(marks[0]):
            pass
        claims.claim(db, token, task="looking for workers", holder=token)
        answers: dict[str, Answer] = client.run(answer, token)
        marks += [_mark(token, found.written) for found in answers.values() if found.written]
        there = place.there(marks)
        for worker, found in answers.items():
            _judge(
                worker, found, stored=_mark(token, found.written) in there, claimed=claims.is_claimed(db, found.written)
            )
    finally:
        for mark in place.there(marks):
            place.remove(mark)
        claims.release(db, token)
        db.dispose()


def _judge(worker: str, found: Answer, *, stored: bool, claimed: bool) -> None:
    address, url = place_of(store_address()), default_url()
    why = f" ({found.problem})" if found.problem else ""
    if not stored:
        raise EnvironmentProblem(
            f"keeps results in {found.store}, which is not {address} of this command, or cannot be written there{why}",
            place="Dask worker",
            value=worker,
            remedy="start the workers with the same EFT_STORE, an s3:// address or a folder that all machines share"
            " (without it, with the same EFT_HOME)",
        )
    on_one_machine = sa.make_url(url).get_backend_name() != "sqlite" or found.machine == claims.machine()
    if not claimed or not on_one_machine:
        reason = (
            f"uses the database {found.database}, which is not {shown(url)} of this command, or cannot write it{why}"
        )
        raise EnvironmentProblem(
            reason if on_one_machine else "is on another machine, where an SQLite database cannot be used",
            place="Dask worker",
            value=worker,
            remedy="start the workers with the EFT_DATABASE_URL of a PostgreSQL database that all machines reach",
        )


def answer(token: str) -> Answer:
    """Called on a worker: look for a mark in its store and database, and leave one there."""
    written, problem = secrets.token_hex(8), ""
    store, database = store_address(), default_url()
    try:
        place = place_of(store)
        store = str(place)
        if place.there([_mark(token, token)]):
            with place.writing(_mark(token, written)):
                pass
        db = Database(database)
        try:
            if claims.is_claimed(db, token):
                claims.claim(db, written, task="a worker's mark", holder=token)
        finally:
            db.dispose()
    except EftError as error:
        problem = error.line
    return Answer(written, claims.machine(), store, shown(database), problem)


def _mark(token: str, name: str) -> str:
    return f"check-{token}/{name}"
