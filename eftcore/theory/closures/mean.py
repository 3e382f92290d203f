"""The infinite-width closure: the mean kernel K0 alone (docs/theory.md, section 3)."""

from __future__ import annotations

from eftcore.theory.closures.base import Closure


class Mean(Closure):
    """Nothing fluctuates: no V4, no K1; K0 alone (eq. 3.1)."""
