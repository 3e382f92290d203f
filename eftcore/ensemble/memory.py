"""Too little memory for so many networks at once: half as many, and on; what is drawn stays the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from eftcore.errors import OutOfMemory

_SIGNS = ("out of memory", "can't allocate memory", "alloc_failed")
"""How torch's allocators, CUDA's driver and its libraries say it, where they do not raise an OutOfMemoryError."""

Made = TypeVar("Made")


class Batch:
    """Networks that are followed at once.

    Args:
        networks: to begin with.
        unit: networks whose observations are added up together. Pieces are whole units, so sums do not depend on how
            many of them come at once.
        smallest: networks below which there is no point in halving.
    """

    def __init__(self, networks: int, *, unit: int, smallest: int) -> None:
        self.networks = networks
        self._unit = unit
        self._smallest = smallest

    def pieces(self, networks: int, make: Callable[[int, int], Made]) -> Iterator[Made]:
        """``make(first, count)`` of one piece after the other; a piece that does not fit is made again, smaller."""
        first = 0
        while first < networks:
            count = min(max(self.networks, self._unit), networks - first)
            try:
                made = make(first, count)
            except Exception as error:
                if not _is_out_of_memory(error) or min(self.networks, networks) <= self._smallest:
                    raise
            else:
                yield made
                first += count
                continue
            # not before the handler is left: the error's frames hold what was allocated
            half = min(self.networks, networks) // 2
            self.networks = max(half // self._unit * self._unit or half, self._smallest)
            _release()


def explained(device: str, do: Callable[[], Made]) -> Made:
    """``do()``. Raises OutOfMemory, which holds on to nothing, in place of the errors that say the same."""
    try:
        return do()
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0]
    remedy = "" if device == "cpu" else ", or device = 'cpu'"
    raise OutOfMemory(
        f"simulate: too little memory on {device} for the fewest networks at a time ({said}); free some, or take a "
        f"smaller width, fewer inputs, fewer recorded depths{remedy}"
    )


def _is_out_of_memory(error: Exception) -> bool:
    said = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
    return said or type(error).__name__ == "OutOfMemoryError"  # torch's, which may not be imported yet


def _release() -> None:
    """Give back what torch keeps of a graphics processor's memory for later."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
