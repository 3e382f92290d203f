"""The content-addressed store: complete or absent, and damage is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eftcore.errors import EnvironmentProblem
from flows.work.store import ResultStore, Stored

DIGEST = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "arrays")


def test_what_is_saved_comes_back(store: ResultStore):
    arrays = {
        "x": np.linspace(0, 1, 7).reshape(7, 1),
        "status": np.array(["bounded", "beyond"]),
        "flag": np.array(True),
    }
    store.save(DIGEST, Stored(arrays=arrays, meta={"label": "ρ = 0.3", "error": 1e-300}))
    assert store.is_intact(DIGEST)
    loaded = store.load(DIGEST)
    assert loaded.meta == {"label": "ρ = 0.3", "error": 1e-300}
    assert loaded.arrays.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], values)


def test_absent_and_damaged_results_are_not_intact(store: ResultStore):
    assert not store.is_intact(DIGEST)
    store.save(DIGEST, Stored(arrays={"x": np.arange(1000.0)}, meta={}))
    whole = store.path(DIGEST).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", whole[:-30], bytes(flipped)):
        store.path(DIGEST).write_bytes(damaged)
        assert not store.is_intact(DIGEST)
        with pytest.raises(EnvironmentProblem, match="missing or damaged"):
            store.load(DIGEST)


def test_a_crash_while_writing_leaves_the_old_result_and_no_rest(store: ResultStore, monkeypatch: pytest.MonkeyPatch):
    store.save(DIGEST, Stored(arrays={"x": np.arange(3.0)}, meta={}))

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(KeyboardInterrupt):
        store.save(DIGEST, Stored(arrays={"x": np.arange(4.0)}, meta={}))
    assert len(store.load(DIGEST).arrays["x"]) == 3
    assert [path.name for path in store.path(DIGEST).parent.iterdir()] == [f"{DIGEST}.npz"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"file.*cannot be written.*EFT_HOME"):
        ResultStore(tmp_path / "file").save(DIGEST, Stored(arrays={}, meta={}))
