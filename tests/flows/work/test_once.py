"""A result is computed by who holds a claim to it: others wait while the holder lives, and no longer than its lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from db.session import Database
from db.upkeep import migrate
from db.writing import claims
from flows.work.once import claimed, compute_missing
from flows.work.store import ResultStore, Stored, default_store

ONE, TWO, THREE = ("ab" * 32, "cd" * 32, "ef" * 32)
ELSEWHERE = "another-machine:0-0:1:random"
"""A holder of which nobody here can see whether its process runs."""


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database for all of these tests, each of which begins with an empty store."""
    made = Database(f"sqlite:///{tmp_path_factory.mktemp('once') / 'results.db'}")
    migrate.upgrade(made.url)
    yield made
    made.dispose()


@pytest.fixture
def store(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResultStore:
    monkeypatch.setenv("EFT_DATABASE_URL", str(db.url))
    monkeypatch.setenv("EFT_STORE", str(tmp_path))
    return default_store()


class Work:
    """Computations that store nothing but that they were made; ``made`` counts them."""

    def __init__(self, store: ResultStore) -> None:
        self.store, self.made = store, list[str]()

    def of(self, *digests: str) -> dict[str, Callable[[], None]]:
        return {digest: lambda digest=digest: self(digest) for digest in digests}  # type: ignore[misc]

    def __call__(self, digest: str) -> None:
        self.made.append(digest)
        time.sleep(0.02)
        self.store.save(digest, Stored(arrays={}, meta={}))


def _claimed(db: Database) -> int:
    with db.reading() as session:
        return session.query(claims.Claim).count()


def test_what_is_missing_is_computed_and_failures_are_told_apart(db: Database, store: ResultStore):
    work = Work(store)
    assert compute_missing(store, work.of(ONE)) == {}

    def fail() -> None:
        raise ValueError("no")

    failures = compute_missing(store, {**work.of(ONE, TWO), THREE: fail})
    assert work.made == [ONE, TWO]
    assert [str(failures[digest]) for digest in failures] == ["no"]
    assert _claimed(db) == 0


def test_two_threads_compute_each_result_once_whatever_their_order(db: Database, store: ResultStore):
    work = Work(store)
    digests = [f"{number:02x}" * 32 for number in range(12)]
    orders = (digests, digests[::-1], digests[4:] + digests[:4])
    threads = [threading.Thread(target=compute_missing, args=(store, work.of(*order[:8]))) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(work.made) == sorted({digest for order in orders for digest in order[:8]})
    assert _claimed(db) == 0


def test_many_small_results_are_claimed_in_one_transaction(db: Database, store: ResultStore):
    claims.claim_computing(db, [THREE], holder=ELSEWHERE, origin={})
    work = Work(store)
    with claimed([ONE, THREE, TWO]) as ours:
        assert ours == [ONE, TWO]
        for digest in ours:
            assert compute_missing(store, work.of(digest)) == {}
            assert _claimed(db) == 3, "its own claim would be in the way of the first"
    assert work.made == [ONE, TWO]
    claims.release(db, ELSEWHERE)
    assert _claimed(db) == 0


def test_a_holder_elsewhere_that_is_silent_is_waited_for_until_its_lease_ends(db: Database, store: ResultStore):
    claims.claim_computing(db, [ONE], holder=ELSEWHERE, origin={}, lease_seconds=1.0)
    work = Work(store)
    assert compute_missing(store, work.of(TWO, ONE)) == {}
    assert work.made == [TWO, ONE]


def test_one_that_lives_keeps_its_claim_beyond_the_lease(db: Database, store: ResultStore):
    claims.claim_computing(db, [ONE], holder=ELSEWHERE, origin={}, lease_seconds=1.0)
    work = Work(store)
    with claims.heartbeat(db, ELSEWHERE, every=0.2, lease_seconds=1.0):
        waiting = threading.Thread(target=compute_missing, args=(store, work.of(ONE)))
        waiting.start()
        waiting.join(2.5)
        assert waiting.is_alive()
        store.save(ONE, Stored(arrays={}, meta={}))
    claims.release(db, ELSEWHERE)
    waiting.join(30)
    assert work.made == []


def test_a_damaged_result_is_computed_again_under_its_claim(db: Database, store: ResultStore):
    work = Work(store)
    compute_missing(store, work.of(ONE))
    store.path(ONE).write_bytes(store.path(ONE).read_bytes()[:-20])
    assert compute_missing(store, work.of(ONE)) == {}
    assert work.made == [ONE, ONE]


def test_a_database_that_goes_away_meanwhile_loses_nothing(db: Database, store: ResultStore):
    """The claim cannot be given up then; it expires, and what was computed is stored."""
    work, path = Work(store), Path(str(db.url.database))

    def compute() -> None:
        work(ONE)
        path.rename(path.with_name("away"))

    assert compute_missing(store, {ONE: compute}) == {}
    path.with_name("away").rename(path)
    assert store.is_intact(ONE)
