"""The store of results: one ``.npz`` file per digest, complete or absent, with checksums.

The arrays are kept here, so that no array passes through Prefect; a result in the store is not computed again. What is
damaged counts as absent and is computed again. Files hold arrays of numbers and text, and JSON, never Python objects,
so that reading one cannot run code. Where they lie is a place (flows.work.places): a folder or an object store.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from db.settings import store_address
from eftcore.errors import EnvironmentProblem
from flows.work.places import Folder, Place, place_of
from flows.work.waiting import waits_for_store

_META = "meta.json"
_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, SyntaxError, MemoryError),
)
"""Exceptions of reading a file that is truncated, of another format, encrypted, compressed by an unknown method, or
that claims to be larger than the memory."""


@dataclass(frozen=True)
class Stored:
    """Arrays by name, and their description (JSON-able)."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


class ResultStore:
    """Results by digest in one place. Within ``patient`` every method waits for a place that does not answer."""

    def __init__(self, place: Place | Path) -> None:
        self.place = Folder(place) if isinstance(place, Path) else place

    def path(self, digest: str) -> Path:
        """Path of the file for the result of this digest, whether it exists or not, where the place is a folder."""
        path = self.place.within(_name(digest))
        assert isinstance(path, Path)
        return path

    def is_there(self, digest: str) -> bool:
        """Whether there is a file for the result, intact or not.

        Raises EnvironmentProblem where the file cannot be read: the result of another user is not computed again.
        """
        return digest in self.there([digest])

    @waits_for_store
    def there(self, digests: Iterable[str]) -> set[str]:
        """Those of the digests for which there is a file, intact or not. Many are found by listing. Raises as load."""
        return {_digest(name) for name in self.place.there(map(_name, digests))}

    def is_intact(self, digest: str) -> bool:
        """Whether the file exists and every checksum in it is right. Raises as ``load``."""
        return digest in self.intact([digest])

    @waits_for_store
    def intact(self, digests: Iterable[str]) -> set[str]:
        """Those of the digests whose file exists with every checksum right; files are read many at a time."""
        asked = list(dict.fromkeys(digests))
        there = [_name(digest) for digest in asked] if len(asked) == 1 else list(self.place.there(map(_name, asked)))
        return {_digest(name) for name, file in self.place.reading_each(there) if _is_whole(file)}

    @waits_for_store
    def save(self, digest: str, stored: Stored) -> None:
        """Write a result atomically. Raises EnvironmentProblem if the place cannot be written or is full."""
        with self.place.writing(_name(digest)) as file:
            meta = np.frombuffer(json.dumps(stored.meta).encode(), dtype=np.uint8)
            np.savez(file, allow_pickle=False, **{_META: meta}, **stored.arrays)

    @waits_for_store
    def load(self, digest: str) -> Stored:
        """The stored result. Raises EnvironmentProblem when it is missing or damaged, or cannot be read."""
        try:
            file = self.place.reading(_name(digest))
        except FileNotFoundError as error:
            raise self._damaged(digest, error) from error
        try:
            with file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            meta = json.loads(arrays.pop(_META).tobytes())
            if not isinstance(meta, dict) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("it holds other things than arrays and their description")
            return Stored(arrays=arrays, meta=meta)
        except _DAMAGE as error:
            raise self._damaged(digest, error) from error

    def where(self, digest: str) -> str | Path:
        """The address of a result, for messages."""
        return self.place.within(_name(digest))

    def _damaged(self, digest: str, error: BaseException) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"is missing or damaged ({error})",
            place=self.where(digest),
            remedy="run the study again to compute it again",
        )


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest}.npz"


def _digest(name: str) -> str:
    return name.partition("/")[2].removesuffix(".npz")


def _is_whole(file: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except _DAMAGE:
        return False


def default_store() -> ResultStore:
    """The store at ``store_address()``."""
    return ResultStore(place_of(store_address()))
