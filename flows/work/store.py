"""The store of results on disk: one ``.npz`` file per digest, complete or absent, with checksums.

The arrays are kept here, so that no array passes through Prefect; a result in the store is not computed again. A file
is written under another name and renamed, so that a crash leaves no incomplete file; a damaged file counts as absent
and is computed again. Files hold arrays of numbers and text, and JSON, never Python objects, so that reading one cannot
run code.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from db.settings import data_home
from eftcore.errors import EnvironmentProblem

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
    """Results by digest below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Path of the file for the result of this digest, whether it exists or not."""
        return self.folder / digest[:2] / f"{digest}.npz"

    def is_there(self, digest: str) -> bool:
        """Whether there is a file for the result, intact or not.

        Raises EnvironmentProblem where the file cannot be read: the result of another user is not computed again.
        """
        try:
            self.path(digest).open("rb").close()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot be read ({error.strerror})",
                place=self.path(digest),
                remedy="have its owner let you read it, or choose another folder with EFT_HOME=PATH",
            ) from error
        return True

    def is_intact(self, digest: str) -> bool:
        """Whether the file exists and every checksum in it is right. Raises as ``is_there``."""
        if not self.is_there(digest):
            return False
        try:
            with zipfile.ZipFile(self.path(digest)) as archive:
                return archive.testzip() is None
        except _DAMAGE:
            return False

    @contextmanager
    def computing(self, digest: str) -> Iterator[None]:
        """Within the block no other process that shares the folder computes this result; others wait.

        The lock is a file lock of the kernel, which is released however its holder ends. Raises as ``save``.
        """
        path = self.path(digest).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                lock = path.open("ab")
                fcntl.flock(lock, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.fstat(lock.fileno()).st_ino == path.stat().st_ino:
                        break
                lock.close()  # the former holder removed this file; others would open and lock a new one
        except OSError as error:
            raise self._unwritable(path, error) from error
        with lock:
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def save(self, digest: str, stored: Stored) -> None:
        """Write a result atomically. Raises EnvironmentProblem if the folder cannot be written or the disk is full.

        The umask decides which other users may read and write the file, as for every file of results.
        """
        path = self.path(digest)
        part = path.with_suffix(f".{secrets.token_hex(8)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as file:
                    meta = np.frombuffer(json.dumps(stored.meta).encode(), dtype=np.uint8)
                    np.savez(file, allow_pickle=False, **{_META: meta}, **stored.arrays)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._unwritable(path, error) from error

    def load(self, digest: str) -> Stored:
        """The stored result. Raises EnvironmentProblem when it is missing or damaged, or as ``is_there``."""
        self.is_there(digest)
        try:
            with self.path(digest).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            meta = json.loads(arrays.pop(_META).tobytes())
            if not isinstance(meta, dict) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("it holds other things than arrays and their description")
            return Stored(arrays=arrays, meta=meta)
        except _DAMAGE as error:
            raise EnvironmentProblem(
                f"is missing or damaged ({error})",
                place=self.path(digest),
                remedy="run the study again to compute it again",
            ) from error

    @staticmethod
    def _unwritable(path: Path, error: OSError) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"cannot be written ({error.strerror})",
            place=path,
            remedy="free some space, or choose a folder with EFT_HOME=PATH",
        )


def default_store() -> ResultStore:
    """The store below ``data_home()``."""
    return ResultStore(data_home() / "arrays")
