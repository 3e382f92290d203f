"""numba's compiler, with its code kept on disk where there is a place for it, until any source file here changes.

The place is where NUMBA_CACHE_DIR says, else beside the module, else in the user's cache folder. Where none of these
can be written, as with a package of the system and no home, each process compiles anew, which takes it some seconds.

numba by itself looks at the file of the compiled function alone, and would go on running what was compiled into it from
other files after those changed.
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
    """Of all source files of this package."""
    root = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


class _OfAllSources:
    """Kept code is good for these source files alone."""

    def get_source_stamp(self) -> str:
        return _source_digest()


class WhereTold(_OfAllSources, UserProvidedCacheLocator):
    """In the folder NUMBA_CACHE_DIR."""


class BesideTheModule(_OfAllSources, InTreeCacheLocator):
    """In __pycache__."""


class OfTheUser(_OfAllSources, UserWideCacheLocator):
    """In the user's cache folder."""


_PLACES = ",".join(f"{__name__}.{place.__name__}" for place in (WhereTold, BesideTheModule, OfTheUser))


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: numba.njit with these options, and with a cache where there can be one."""

    def decorate(function: Callable[..., Any]) -> Any:
        before, config.CACHE_LOCATOR_CLASSES = config.CACHE_LOCATOR_CLASSES, _PLACES  # type: ignore[attr-defined]
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba's word for it that no place can be written
            return njit(**options)(function)
        finally:
            config.CACHE_LOCATOR_CLASSES = before  # type: ignore[attr-defined]

    return decorate
