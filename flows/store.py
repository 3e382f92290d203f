"""Content-addressed results on disk: one ``.npz`` per digest, complete or absent, checked when asked for.

Prefect caches which work is done; the arrays live here, so that no array passes through Prefect. A file is written
under another name and renamed, so a crash leaves no half file; a damaged one counts as absent and is computed again.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eftcore.errors import EnvironmentProblem

_META = "meta.json"


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

    def is_intact(self, digest: str) -> bool:
        """Whether the result is there and every checksum in it holds."""
        try:
            with zipfile.ZipFile(self.path(digest)) as archive:
                return archive.testzip() is None
        except (OSError, zipfile.BadZipFile, EOFError):
            return False

    def save(self, digest: str, stored: Stored) -> None:
        """Write atomically. Raises EnvironmentProblem when the folder cannot be written or the disk is full."""
        path = self.path(digest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    meta = np.frombuffer(json.dumps(stored.meta).encode(), dtype=np.uint8)
                    np.savez(file, allow_pickle=False, **{_META: meta}, **stored.arrays)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise EnvironmentProblem(
                f"{path}: cannot be written ({error.strerror}); free some space, or choose a folder with EFT_HOME=PATH"
            ) from error

    def load(self, digest: str) -> Stored:
        """Raises EnvironmentProblem when the result is missing or damaged."""
        try:
            with self.path(digest).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
            raise EnvironmentProblem(
                f"{self.path(digest)}: is missing or damaged ({error}); run the study again to compute it again"
            ) from error
        meta = json.loads(arrays.pop(_META).tobytes())
        return Stored(arrays=arrays, meta=meta)


def data_home() -> Path:
    """The folder of results: EFT_HOME, or ``eft-data`` in the working directory."""
    return Path(os.environ.get("EFT_HOME") or "eft-data").expanduser().resolve()


def default_store() -> ResultStore:
    """The store below ``data_home()``."""
    return ResultStore(data_home() / "arrays")
