"""An object store as a place of results, by fsspec and s3fs: Amazon's, or any server that speaks its protocol."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

from eftcore.errors import EnvironmentProblem
from flows.work.places import Place, kind_of

AT_ONCE = 256
"""Objects that are read at a time."""

_LONGEST = 160
_REQUESTS = {"connect_timeout": 5, "read_timeout": 60, "retries": {"mode": "standard", "max_attempts": 2}}
_LIBRARIES = {"botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs"}


class Bucket(Place):
    """Objects of an S3-compatible store below ``bucket/prefix``, through fsspec.

    Credentials, region and another server than Amazon's are those of the AWS libraries: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        try:
            import s3fs
        except ModuleNotFoundError as missing:
            raise EnvironmentProblem(
                f"needs the Python package {missing.name}",
                place="EFT_STORE",
                value=str(self),
                remedy="pip install 'resnet-eft[s3]'",
            ) from None
        # a listing is asked for to see what others have written meanwhile, so none is kept
        self._objects = s3fs.S3FileSystem(use_listings_cache=False, config_kwargs=_REQUESTS, skip_instance_cache=True)

    def __str__(self) -> str:
        return f"s3://{self.root}"

    def within(self, name: str) -> str:
        return f"s3://{self.root}/{name}"

    def reading(self, name: str) -> BinaryIO:
        with self._translated(name):
            # at most one request: several at a time would first ask for the size
            return io.BytesIO(self._objects.cat_file(self._key(name), max_concurrency=1))

    def reading_each(self, names: Sequence[str]) -> Iterator[tuple[str, BinaryIO]]:
        for start in range(0, len(names), AT_ONCE):
            asked = {self._key(name): name for name in names[start : start + AT_ONCE]}
            with self._translated():
                answers = self._objects.cat(list(asked), on_error="return", max_concurrency=1)
            for key, answer in answers.items():
                if isinstance(answer, bytes):
                    yield asked[key], io.BytesIO(answer)
                elif not isinstance(answer, FileNotFoundError):
                    with self._translated(asked[key]):
                        raise answer

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        whole = io.BytesIO()
        yield whole
        with self._translated(name, missing=True):
            self._objects.pipe_file(self._key(name), whole.getvalue())

    def remove(self, name: str) -> None:
        with self._translated(name):
            self._objects.rm_file(self._key(name))

    def require_there(self) -> None:
        bucket, _, prefix = self.root.partition("/")
        with self._translated(missing=True):
            self._objects.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)

    def _each(self, names: Sequence[str]) -> set[str]:
        """One request for one byte of each, many at a time."""
        with self._translated():
            keys, one = [self._key(name) for name in names], [1] * len(names)
            answers = self._objects.cat_ranges(keys, [0] * len(names), one, on_error="return", batch_size=AT_ONCE)
        found = set()
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, BaseException) and not _is_empty(answer):
                if not isinstance(answer, FileNotFoundError):
                    with self._translated(name):
                        raise answer
            else:
                found.add(name)
        return found

    def _listed(self, folders: Sequence[str]) -> set[str]:
        """One request for each thousand objects; several folders at a time."""
        with self._translated(), ThreadPoolExecutor(min(16, len(folders))) as pool:
            return {name for names in pool.map(self._in_folder, folders) for name in names}

    def _in_folder(self, folder: str) -> list[str]:
        bucket, _, prefix = self._key(f"{folder}/").partition("/")
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = self._objects.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
            found += [f"{folder}/{item['Key'].rpartition('/')[2]}" for item in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _key(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def _translated(self, name: str = "", *, missing: bool = False) -> Iterator[None]:
        """Errors of the libraries as ours; a missing object stays FileNotFoundError unless ``missing`` is wrong too."""
        try:
            yield
        except FileNotFoundError as error:
            if not missing:
                raise
            raise self._problem(EnvironmentProblem, "there is no such bucket", error) from error
        except PermissionError as error:
            raise self._problem(EnvironmentProblem, f"access is refused ({_said(error)})", error) from error
        except Exception as error:
            if not _is_of_the_service(error):
                raise
            raise self._problem(kind_of(error), f"cannot be used ({_said(error)})", error) from error

    def _problem(self, kind: type[EnvironmentProblem], reason: str, error: BaseException) -> EnvironmentProblem:
        return kind(
            reason,
            place="EFT_STORE",
            value=str(self),
            remedy="check its name, the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE) and AWS_ENDPOINT_URL",
        )


def _is_of_the_service(error: Exception) -> bool:
    """Whether the libraries between us and the object store raise it; botocore has a ValueError for wrong addresses."""
    return isinstance(error, OSError | ValueError) or type(error).__module__.partition(".")[0] in _LIBRARIES


def _is_empty(error: BaseException) -> bool:
    """Whether an object has no first byte: it is there all the same, and damaged."""
    return isinstance(error, OSError) and "InvalidRange" in f"{error} {error.__cause__!r}"


def _said(error: BaseException) -> str:
    """The first line of an error of the libraries, which name the server and the operation and never a secret."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."
