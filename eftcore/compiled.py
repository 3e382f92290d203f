"""numba's compiler, with its code kept on disk where there is a place for it.

The place is beside the module, else in the user's cache folder, or where NUMBA_CACHE_DIR says. Where none of these can
be written, as with a package of the system and no home, each process compiles anew, which takes it some seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: numba.njit with these options, and with a cache where there can be one."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba's word for it that no place can be written
            return njit(**options)(function)

    return decorate
