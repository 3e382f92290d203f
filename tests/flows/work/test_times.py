"""How long things took: the time of all workers, and from the first start to the last end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import eftcore as eft
from eftcore.ensemble import sample_digest
from flows.work import computations
from flows.work.store import ResultStore

SHARDS = ((0, 16), (1, 16))
SPEC = eft.EnsembleSpec(
    model=eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.5, depth=2),
    kernel=eft.InputKernel.explicit([[1.0]]),
    width=4,
)
MERGED = sample_digest(SPEC, SHARDS)


def _rewrite(store: ResultStore, digest: str, **times: Any) -> None:
    """As if another machine, or an older version of the program, had written the result."""
    stored = store.load(digest)
    kept = {name: value for name, value in stored.meta["provenance"].items() if not name.endswith("_seconds")}
    store.save(digest, replace(stored, meta={**stored.meta, "provenance": {**kept, **times}}))


def _spent(store: ResultStore) -> tuple[Any, ...]:
    _, found = computations.load_sample(store, MERGED)
    return found["started_at"], found["worker_seconds"], found["elapsed_seconds"]


def test_shards_side_by_side_take_less_time_than_work(tmp_path: Path):
    store = ResultStore(tmp_path)
    for (shard, samples), second in zip(SHARDS, (3, 0), strict=True):
        computations.simulate(store, SPEC, shard=shard, samples=samples, device="cpu")
        started = f"2026-01-31T10:00:0{second}+00:00"
        took = {"worker_seconds": 5.0, "elapsed_seconds": 5.0}
        _rewrite(store, computations.shard_digest(SPEC.digest, shard, samples), started_at=started, **took)
    computations.merge(store, SPEC, SHARDS)
    assert _spent(store) == ("2026-01-31T10:00:00+00:00", 10.0, 8.0)


def test_results_of_older_versions_keep_the_time_that_they_have(tmp_path: Path):
    store = ResultStore(tmp_path)
    started = "2026-01-31T10:00:00+00:00"
    for shard, samples in SHARDS:
        computations.simulate(store, SPEC, shard=shard, samples=samples, device="cpu")
        _rewrite(store, computations.shard_digest(SPEC.digest, shard, samples), started_at=started, wall_seconds=5.0)
    computations.merge(store, SPEC, SHARDS)
    assert _spent(store) == (started, 10.0, 5.0)
    _rewrite(store, MERGED, started_at=started, wall_seconds=10.0)
    assert _spent(store) == (started, 10.0, None), "which it did not note"
