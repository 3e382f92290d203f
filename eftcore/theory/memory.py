"""What a prediction needs at its peak, estimated before it starts, so that one that does not fit is refused.

Most of it are arrays over pairs of pairs, P x P numbers for P = N (N + 1) / 2 pairs of inputs, and the state of the
Wick hierarchy, P x P x I with its I Wick powers. The numbers of such arrays were measured by tracemalloc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from eftcore import memory
from eftcore.activations import get_activation
from eftcore.gaussian.wick_series import components
from eftcore.specs import PredictionSpec
from eftcore.theory.depth_interpolation import POINTS, WORTHWHILE
from eftcore.theory.particle import PATHS, SCRAMBLINGS

NUMBER = 8
"""Bytes of a number."""

BESIDE = 2e8
"""Bytes that integrals need beside, whose pieces are of bounded size."""

RESOLUTIONS = 2
"""Solutions that are held at a time: each is compared with a coarser one."""

PATH = 4
"""Arrays of the size of K0 at all layers: K0 and E2(K0), and what is computed of them."""

STATE = {"mean": 0, "source_only": 10, "g_only": 12, "sigma": 16, "wick": 12, "exact": 16, "particle": 12}
"""P x P matrices of one layer: the variables of the closure, their rates, and what is computed on the way."""

HIERARCHY = 14
"""Arrays of the size of the Wick hierarchy's state."""

INTERPOLATED = POINTS[1] + 10
"""Depths for which ingredients are held where they are interpolated, those where this is checked included."""

PRODUCTS = 12
"""Arrays of the products of all pairs over all paths of the one-particle form."""


@dataclass(frozen=True)
class Demand:
    """What the memory of a prediction depends on; Wick orders above ``above`` up to ``order`` are solved for."""

    closure: str
    inputs: int
    layers: int
    recorded: int
    order: int | None
    even_only: bool
    above: int = 0

    @property
    def bytes(self) -> float:
        """Estimated bytes at the peak; of the exact closure, those of its first step."""
        pairs = self.inputs * (self.inputs + 1) // 2
        square = pairs**2
        recorded = 0 if self.closure == "mean" else 2 * RESOLUTIONS * self.recorded * square
        numbers = recorded + PATH * (self.layers + 1) * self.inputs**2 + STATE[self.closure] * square
        held = INTERPOLATED if self.layers + 1 >= WORTHWHILE * POINTS[0] else 1
        if self.closure == "sigma":
            numbers += held * square
        if self.order is not None:
            numbers += (HIERARCHY + held) * self.hierarchy
        if self.closure == "particle":
            numbers += PATHS * (PATH * (self.layers + 1) * self.inputs + PRODUCTS * pairs)
            numbers += SCRAMBLINGS * self.recorded * square
        return NUMBER * numbers + BESIDE

    @property
    def hierarchy(self) -> int:
        """P x P x Wick powers."""
        pairs, order = self.inputs * (self.inputs + 1) // 2, max(self.order or 0, self.above + 2)
        kept = components(order, even_only=self.even_only, above=self.above, single=self.inputs == 1)
        return pairs**2 * len(kept.first)

    def fitting(self, size: float) -> str:
        """What would fit into so many bytes."""
        inputs = _largest(lambda n: replace(self, inputs=n).bytes <= size, self.inputs)
        said = f"take at most {inputs} inputs" if inputs else "take fewer recorded depths or layers"
        order = self.order and _largest(lambda m: replace(self, order=m).bytes <= size, self.order)
        return f"{said}, or order = {order}" if order else said


def _largest(fits: Callable[[int], bool], below: int) -> int:
    """The largest number from 1 to ``below`` that fits, if larger ones need more; 0 if not even 1 does."""
    low, high = 0, below
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def demand(spec: PredictionSpec, order: int | None = None, above: int = 0) -> Demand:
    """That of a prediction; where it raises the Wick order, of the step from ``above`` to ``order``."""
    even_only = get_activation(spec.model.activation).parity is not None
    own = spec.order if isinstance(spec.order, int) else None
    recorded = len(spec.depths or ())
    return Demand(spec.closure, spec.kernel.n_inputs, spec.model.depth, recorded, order or own, even_only, above)


def check_memory(spec: PredictionSpec, order: int | None = None, above: int = 0) -> None:
    """Raises InputError or OutOfMemory, with what is needed and what would fit, where there is too little memory."""
    needed = demand(spec, order, above)
    what = f"closure = {spec.closure!r} of {needed.inputs} inputs"
    if needed.order is not None:
        what += f" at order {needed.order}"
    memory.require(needed.bytes, what, place="kernel", fitting=needed.fitting)


def entries(spec: PredictionSpec, order: int) -> int:
    """Size of the Wick hierarchy's state at an order, P x P x Wick powers."""
    return demand(spec, order).hierarchy
