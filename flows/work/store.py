"""Content-addressed results on disk: one ``.npz`` per digest, complete or absent, checked when asked for.

The arrays live here, so that no array passes through Prefect; what lies here is done. A file is written under another
name and renamed, so a crash leaves no half file; a damaged one counts as absent and is computed again. No file says how
it is read: it holds arrays of numbers and text, and JSON; never Python objects.
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
"""What reading a file raises that is not one of ours: cut off, another format, encrypted, packed in another way,
or claiming to be larger than memory."""


@dataclass(frozen=True)
class Stored:
    """Arrays by name, and what describes them (JSON-able)."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


class ResultStore:
    """Results by digest below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where the result of this digest lies, if it is there."""
        return self.folder / digest[:2] / f"{digest}.npz"

    def is_there(self, digest: str) -> bool:
        """Whether there is a result, intact or not.

        Raises EnvironmentProblem where it cannot be read: another user's is not computed again.
        """
        try:
            self.path(digest).open("rb").close()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise EnvironmentProblem(
                f"{self.path(digest)}: cannot be read ({error.strerror}); have its owner let you read it, or choose "
                "another folder with EFT_HOME=PATH"
            ) from error
        return True

    def is_intact(self, digest: str) -> bool:
        """Whether the result is there and every checksum in it holds. Raises as ``is_there``."""
        if not self.is_there(digest):
            return False
        try:
            with zipfile.ZipFile(self.path(digest)) as archive:
                return archive.testzip() is None
        except _DAMAGE:
            return False

    @contextmanager
    def computing(self, digest: str) -> Iterator[None]:
        """The block alone computes this result: others wait for it, in all processes that share the folder.

        The lock is the kernel's, which releases it however its holder ends. Raises EnvironmentProblem as ``save``.
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
                lock.close()  # whoever had it removed it: ours is not the one that the next would find
        except OSError as error:
            raise self._unwritable(path, error) from error
        with lock:
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def save(self, digest: str, stored: Stored) -> None:
        """Write atomically. Raises EnvironmentProblem when the folder cannot be written or the disk is full.

        Who else may read and write the file is for the umask to say, as for every file of results.
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
        """Raises EnvironmentProblem when the result is missing or damaged, or as ``is_there``."""
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
                f"{self.path(digest)}: is missing or damaged ({error}); run the study again to compute it again"
            ) from error

    @staticmethod
    def _unwritable(path: Path, error: OSError) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"{path}: cannot be written ({error.strerror}); free some space, or choose a folder with EFT_HOME=PATH"
        )


def default_store() -> ResultStore:
    """The store below ``data_home()``."""
    return ResultStore(data_home() / "arrays")
