"""The infinite-width closure: the mean kernel K0 alone (theory: GC0)."""

from __future__ import annotations

from eftcore.closures.base import Closure


class Mean(Closure):
    """Nothing fluctuates: no V4, no K1."""
