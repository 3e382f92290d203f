"""Where memory is too small for a batch of networks, the batch is halved; the random numbers drawn stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from eftcore.errors import OutOfMemory

_SIGNS = ("out of memory", "can't allocate memory", "alloc_failed")
"""Texts in messages of torch's allocators, CUDA's driver and its libraries that mean too little memory, where these do
not raise an OutOfMemoryError."""

Made = TypeVar("Made")


class Batch:
    """The number of networks that are simulated at once, lowered where memory does not suffice.

    Args:
        networks: the number to begin with.
        unit: number of networks whose observations are summed together. Pieces are whole units, so that sums do not
            depend on the number of units in a piece.
        smallest: number of networks that is not halved any more.
    """

    def __init__(self, networks: int, *, unit: int, smallest: int) -> None:
        self.networks = networks
        self._unit = unit
        self._smallest = smallest

    def pieces(self, networks: int, make: Callable[[int, int], Made]) -> Iterator[Made]:
        """``make(first, count)`` for one piece after the other; a piece too large for the memory is made smaller."""
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
            # memory is freed only after the handler ends: the frames of the error hold what was allocated
            half = min(self.networks, networks) // 2
            self.networks = max(half // self._unit * self._unit or half, self._smallest)
            _release()


def explained(device: str, do: Callable[[], Made]) -> Made:
    """The value of ``do()``; its errors for too little memory become OutOfMemory, which keeps no memory allocated."""
    try:
        return do()
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0]
    remedy = "" if device == "cpu" else ", or device = 'cpu'"
    raise OutOfMemory(
        f"too little memory for the fewest networks at a time ({said})",
        place="device",
        value=device,
        remedy=f"free some, or take a smaller width, fewer inputs, fewer recorded depths{remedy}",
    )


def _is_out_of_memory(error: Exception) -> bool:
    said = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
    return said or type(error).__name__ == "OutOfMemoryError"  # torch's class; torch may not be imported yet


def _release() -> None:
    """Give back the GPU memory that torch keeps for later use."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
