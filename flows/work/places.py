"""Where the bytes of results lie: a folder, or an object store that all machines reach, by its address.

Both write a name whole or not at all. A folder gets a temporary file that is renamed; an object store makes an object
visible when all of it has arrived, and compares its checksum.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from db.addresses import shown
from eftcore.errors import EnvironmentProblem, InputError

FEW = 16
"""Names of one folder up to which each is asked for by itself; for more of them the folder is listed."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FORMS = "give a folder, file:///folder or s3://bucket/prefix"


class StoreAway(EnvironmentProblem):
    """The store of results does not answer, or not now; it may a moment later."""


class Place(ABC):
    """Bytes by name; a name is a path of two parts, ``folder/file``.

    Every method raises EnvironmentProblem where the place does not allow what is asked, StoreAway where it does not
    answer.
    """

    @abstractmethod
    def __str__(self) -> str:
        """The address, without secrets."""

    @abstractmethod
    def within(self, name: str) -> str | Path:
        """The address of a name, for messages."""

    @abstractmethod
    def reading(self, name: str) -> BinaryIO:
        """The bytes of a name as an open file, which can be searched. Raises FileNotFoundError."""

    @abstractmethod
    def reading_each(self, names: Sequence[str]) -> Iterator[tuple[str, BinaryIO]]:
        """The names that exist, each with its bytes."""

    @abstractmethod
    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file whose bytes take the name at the end of the block; an exception in it leaves everything as it was."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a name that exists."""

    @abstractmethod
    def _each(self, names: Sequence[str]) -> set[str]:
        """The names that exist, each asked for by itself."""

    @abstractmethod
    def _listed(self, folders: Sequence[str]) -> set[str]:
        """All names in these folders."""

    def there(self, names: Iterable[str]) -> set[str]:
        """Those of the names that exist. Folders of many names are listed, so that not each costs a request."""
        folders: dict[str, list[str]] = defaultdict(list)
        for name in names:
            folders[name.partition("/")[0]].append(name)
        few = [name for inside in folders.values() if len(inside) <= FEW for name in inside]
        many = {folder: inside for folder, inside in folders.items() if len(inside) > FEW}
        found = self._each(few) if few else set()
        if many:
            wanted = {name for inside in many.values() for name in inside}
            found |= self._listed(list(many)) & wanted
        return found

    @abstractmethod
    def require_there(self) -> None:
        """Raise EnvironmentProblem unless the place can be read, or is a folder that is not there yet."""

    def require_usable(self) -> None:
        """Raise EnvironmentProblem unless bytes can be written, read and removed here."""
        self.require_there()
        name = f"check-{secrets.token_hex(8)}/{secrets.token_hex(8)}"
        with self.writing(name) as file:
            file.write(name.encode())
        with self.reading(name) as file:
            file.read()
        self.remove(name)


class Folder(Place):
    """A folder, perhaps on a file system that several machines share. The umask decides who may read its files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def within(self, name: str) -> Path:
        return self.path / name

    def reading(self, name: str) -> BinaryIO:
        try:
            return self.within(name).open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise kind_of(error)(
                f"cannot be read ({error.strerror})",
                place=self.within(name),
                remedy="have its owner let you read it, or choose another folder with EFT_HOME=PATH or EFT_STORE=PATH",
            ) from error

    def reading_each(self, names: Sequence[str]) -> Iterator[tuple[str, BinaryIO]]:
        for name in names:
            try:
                file = self.reading(name)
            except FileNotFoundError:
                continue
            with file:
                yield name, file

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        path = self.within(name)
        part = path.with_suffix(f".{secrets.token_hex(8)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise kind_of(error)(
                f"cannot be written ({error.strerror})",
                place=path,
                remedy="free some space, or choose a folder with EFT_HOME=PATH or EFT_STORE=PATH",
            ) from error

    def remove(self, name: str) -> None:
        self.within(name).unlink()
        with suppress(OSError):  # others' files are in it
            self.within(name).parent.rmdir()

    def require_there(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise EnvironmentProblem("is no folder", place="EFT_STORE", value=str(self), remedy=_FORMS)

    def _each(self, names: Sequence[str]) -> set[str]:
        return {name for name in names if self.within(name).exists()}

    def _listed(self, folders: Sequence[str]) -> set[str]:
        return {f"{folder}/{path.name}" for folder in folders for path in (self.path / folder).glob("*")}


_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE}
_PASSING.add(getattr(errno, "EREMOTEIO", errno.EIO))  # what a server answers that has an error of its own


def kind_of(error: Exception) -> type[EnvironmentProblem]:
    """StoreAway where the store may answer a moment later: connections, time limits, busy or broken servers."""
    # botocore's errors of connections have names, and no base, in common with Python's
    names = {parent.__name__ for parent in type(error).__mro__}
    passes = names & {"ConnectionError", "HTTPClientError", "TimeoutError", "ClientConnectionError"}
    return StoreAway if passes or getattr(error, "errno", None) in _PASSING else EnvironmentProblem


def parsed(address: str) -> Path | str:
    """A folder, or ``bucket/prefix`` of an object store, by the address of a store.

    Raises InputError for any other address.

    >>> parsed("s3://results/ours/")
    'results/ours'
    >>> parsed("file:///data/results")
    PosixPath('/data/results')
    """
    scheme, marked, rest = address.partition("://")
    if not marked:
        try:
            return Path(address).expanduser().resolve()
        except RuntimeError:
            raise _wrong(address, "begins with the ~ of no known user") from None
    if scheme == "file":
        if not rest.startswith("/"):
            raise _wrong(address, "must have three slashes and a folder written in full")
        return Path(unquote(rest))
    if scheme != "s3":
        raise _wrong(address, f"{shown(scheme)}:// is not supported")
    if "@" in rest or "?" in rest:
        raise _wrong(
            address,
            "must have no credentials or options",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    root = "/".join(part for part in rest.split("/") if part)
    if not _BUCKET.fullmatch(root.partition("/")[0]):
        raise _wrong(address, "its bucket must have 3 to 63 lower-case letters, digits, hyphens and dots")
    return root


def _wrong(address: str, reason: str, remedy: str = _FORMS) -> InputError:
    return InputError(reason, place="EFT_STORE", value=shown(address), remedy=remedy)


def place_of(address: str) -> Place:
    """The place with this address. Raises InputError as ``parsed``, EnvironmentProblem where a package is missing."""
    found = parsed(address)
    if isinstance(found, Path):
        return Folder(found)
    surroundings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    return _bucket(found, os.getpid(), surroundings)


@lru_cache(maxsize=4)
def _bucket(root: str, _process: int, _surroundings: tuple[tuple[str, str], ...]) -> Place:
    """One for each bucket and its settings, with its open connections, which do not survive a fork."""
    from flows.work.bucket import Bucket  # its libraries are imported where they are needed

    return Bucket(root)
