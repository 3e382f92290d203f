"""The same store in a folder and in an S3-compatible object store: whole or absent, few requests, plain errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from db.settings import store_address
from eftcore.errors import EnvironmentProblem, InputError
from eftcore.identity import digest_of
from flows.work import waiting
from flows.work.places import FEW, Place, StoreAway, place_of
from flows.work.store import ResultStore, Stored, default_store
from tests.objects import SECRET, STRANGER, ObjectServer

DIGEST = "ab" * 32


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    made = ObjectServer()
    yield made
    made.stop()


@pytest.fixture
def bucket(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a bucket on the server at which the environment points."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem(skip_instance_cache=True).mkdirs("results", exist_ok=True)
    return "results"


@pytest.fixture(params=["folder", "file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('bucket')}/{tmp_path.name}/"
    return f"file://{tmp_path}/arrays" if request.param == "file" else str(tmp_path / "arrays")


@pytest.fixture
def store(address: str, monkeypatch: pytest.MonkeyPatch) -> ResultStore:
    monkeypatch.setenv("EFT_STORE", address)
    return default_store()


def _digests(count: int) -> list[str]:
    return [digest_of({"number": number}) for number in range(count)]


def test_what_is_saved_comes_back(store: ResultStore):
    store.place.require_usable()
    arrays = {"x": np.linspace(0, 1, 7).reshape(7, 1), "status": np.array(["bounded"]), "flag": np.array(True)}
    store.save(DIGEST, Stored(arrays=arrays, meta={"label": "ρ = 0.3", "error": 1e-300}))
    loaded = store.load(DIGEST)
    assert loaded.meta == {"label": "ρ = 0.3", "error": 1e-300}
    assert loaded.arrays.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], values)
    assert store.there([DIGEST, "cd" * 32]) == store.intact(["cd" * 32, DIGEST]) == {DIGEST}


def _overwrite(place: Place, digest: str, content: bytes) -> None:
    with place.writing(f"{digest[:2]}/{digest}.npz") as file:
        file.write(content)


def test_what_is_half_written_or_damaged_is_there_but_not_intact(store: ResultStore):
    store.save(DIGEST, Stored(arrays={"x": np.arange(1000.0)}, meta={}))
    with store.place.reading(f"ab/{DIGEST}.npz") as file:
        whole = file.read()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", whole[: len(whole) // 2], whole[:-30], bytes(flipped)):
        _overwrite(store.place, DIGEST, damaged)
        assert store.is_there(DIGEST)
        assert not store.is_intact(DIGEST)
        with pytest.raises(EnvironmentProblem, match="missing or damaged"):
            store.load(DIGEST)
    _overwrite(store.place, DIGEST, whole)
    assert store.is_intact(DIGEST)


def test_an_interrupted_write_leaves_what_was_there(store: ResultStore, monkeypatch: pytest.MonkeyPatch):
    store.save(DIGEST, Stored(arrays={"x": np.arange(3.0)}, meta={}))
    savez = np.savez

    def crash(file, *_: object, **__: object) -> None:
        savez(file, x=np.arange(100.0))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", crash)
        with pytest.raises(KeyboardInterrupt):
            store.save(DIGEST, Stored(arrays={"x": np.arange(4.0)}, meta={}))
    assert len(store.load(DIGEST).arrays["x"]) == 3
    assert store.place.there([f"ab/{DIGEST}.npz"]) == {f"ab/{DIGEST}.npz"}


def test_many_are_found_by_listing_and_read_together(server: ObjectServer, bucket: str, tmp_path: Path):
    store = ResultStore(place_of(f"s3://{bucket}/{tmp_path.name}"))
    digests = [f"{number % 2:02x}{digest[2:]}" for number, digest in enumerate(_digests(4 * FEW))]
    made = digests[::2]
    for digest in made[:5]:
        store.save(digest, Stored(arrays={}, meta={}))
    server.requests.clear()
    assert store.there(digests) == set(made[:5])
    assert len(server.requests) == 2, "a listing for each of two folders"
    server.requests.clear()
    assert store.there(digests[:FEW]) == {digest for digest in digests[:FEW] if digest in made[:5]}
    assert len(server.requests) == FEW
    server.requests.clear()
    assert store.intact(digests) == set(made[:5])
    assert len(server.requests) == 2 + 5


def test_one_that_is_away_is_waited_for(server: ObjectServer, bucket: str, capfd: pytest.CaptureFixture[str]):
    store = ResultStore(place_of(f"s3://{bucket}/away"))
    with server.away(), pytest.raises(StoreAway, match=r"EFT_STORE = 's3://results/away': cannot be used.*check"):
        store.is_intact(DIGEST)
    with waiting.patient():
        server.away_for(3)  # for a moment the libraries wait by themselves
        store.save(DIGEST, Stored(arrays={}, meta={}))
        server.away_for(3)
        assert store.intact([DIGEST]) == {DIGEST}
    said = capfd.readouterr().err
    assert said.count("eft: waiting up to 300 s: EFT_STORE = 's3://results/away'") == 2
    assert said.count("eft: the store of results answers again") == 2


def test_one_that_cannot_be_used_is_told_at_once(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(
        EnvironmentProblem, match=r"^EFT_STORE = 's3://misspelt/x': there is no such bucket; check"
    ) as no:
        place_of("s3://misspelt/x").require_usable()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", STRANGER)
    with pytest.raises(
        EnvironmentProblem, match=rf"^EFT_STORE = 's3://{bucket}/x': access is refused .*; check"
    ) as refused:
        place_of(f"s3://{bucket}/x").require_usable()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(EnvironmentProblem, match=r"cannot be used \(.*credentials") as none:
        place_of(f"s3://{bucket}/x").require_usable()
    for told in (no, refused, none):
        assert not isinstance(told.value, StoreAway), "waiting for it would not help"
        assert "\n" not in str(told.value)
        assert SECRET not in str(told.value)
        assert STRANGER not in str(told.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gs://bucket/x", "gs:// is not supported; give a folder, file:///folder or s3://bucket/prefix"),
        ("file://folder", "must have three slashes"),
        ("s3://", "its bucket must have"),
        ("s3://Bucket_1/x", "its bucket must have"),
        ("s3://key:hidden@bucket/x", "must have no credentials or options; set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x?secret=hidden", "must have no credentials or options"),
        ("~nobody-known/x", "begins with the ~ of no known user"),
    ],
)
def test_an_address_that_is_none_is_refused(given: str, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EFT_STORE", given)
    with pytest.raises(InputError, match="EFT_STORE = ") as wrong:
        default_store()
    assert said in str(wrong.value)
    assert "hidden" not in str(wrong.value)


def test_without_an_address_results_lie_where_they_always_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EFT_STORE", raising=False)
    monkeypatch.setenv("EFT_HOME", str(tmp_path))
    assert store_address() == str(tmp_path / "arrays")
    assert default_store().path(DIGEST) == tmp_path / "arrays" / "ab" / f"{DIGEST}.npz"
