"""The decorator ``compiled``: numba.njit with a cache on disk that any change of a source file of eftcore invalidates.

The cache is in the folder NUMBA_CACHE_DIR if that is set, else beside the module, else in the user's cache folder.
Where none of these can be written, for example in a system-wide installation used by an account without a home folder,
each process compiles anew, which takes some seconds.

numba's own cache checks only the file of the compiled function. A function that calls functions of other files would
keep running their old code after those files changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator


@lru_cache(maxsize=1)
def _source_digest() -> str:
    """sha256 (hex) of the names and contents of all source files of eftcore."""
    root = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


class _OfAllSources:
    """Makes a cached function valid only as long as no source file of eftcore changes."""

    def get_source_stamp(self) -> str:
        return _source_digest()


class WhereTold(_OfAllSources, UserProvidedCacheLocator):
    """Caches compiled functions in the folder NUMBA_CACHE_DIR."""


class BesideTheModule(_OfAllSources, InTreeCacheLocator):
    """Caches compiled functions in the folder __pycache__ beside the module."""


class OfTheUser(_OfAllSources, UserWideCacheLocator):
    """Caches compiled functions in the user's cache folder."""


_PLACES = ",".join(f"{__name__}.{place.__name__}" for place in (WhereTold, BesideTheModule, OfTheUser))


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: numba.njit with these options, and with a cache on disk where some folder can be written."""

    def decorate(function: Callable[..., Any]) -> Any:
        before, config.CACHE_LOCATOR_CLASSES = config.CACHE_LOCATOR_CLASSES, _PLACES  # type: ignore[attr-defined]
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba raises it where no cache folder can be written
            return njit(**options)(function)
        finally:
            config.CACHE_LOCATOR_CLASSES = before  # type: ignore[attr-defined]

    return decorate
