"""How much a truncated Wick hierarchy leaves out, and solutions of rising order (docs/theory.md, section 4.3).

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from eftcore.pairs import to_matrix
from eftcore.specs import PredictionSpec
from eftcore.theory.closures.wick import wick_class
from eftcore.theory.memory import check_memory, entries
from eftcore.theory.solving import TINY, Solution, at_resolution, error_scales, relative_change, solve, starting_engine
from eftcore.theory.wick_remainder import Remainder, remainder

ORDERS = (8, 12, 18, 26, 38, 56, 80, 120, 180, 270, 400, 600, 900, 1350, 2000, 3000, 4500, 6700, 10_000, 15_000, 22_000)
"""Orders that are tried in turn."""

ALWAYS = 120
"""Orders up to this one are tried for any network."""

MAX_ENTRIES = 2**18
"""Orders above ALWAYS are tried while the hierarchy's state, P x P x Wick powers, has at most this many entries."""

STRICT = 1e-7
"""While orders are raised, only a K1 below this fraction of |V4| / |K0| counts as 0, so that a small K1 converges too.
"""

CAPTURED = 0.01
"""The changes of K1 are extrapolated once at most this share of the variance of every f_p is above m (eq. 4.26)."""


@dataclass(frozen=True, eq=False)
class Raised:
    """The solution of the hierarchy up to one order, and bounds of what the orders above can add.

    Attributes:
        order: the highest order of the solution.
        solution: the solution of the hierarchy up to it.
        beyond: bounds of what the orders above can add to V4 and K1.
        rest: these bounds relative to the scales of numerical errors, the ``truncation_error`` (eq. 6.15).
        strict: these bounds with K1 relative to its own size even where K1 is small.
    """

    order: int
    solution: Solution
    beyond: Remainder
    rest: dict[str, float]
    strict: dict[str, float]


def truncated(spec: PredictionSpec, solution: Solution, order: int) -> Raised:
    """Bounds of what the orders above ``order`` can add to a solution up to ``order``, also relative to the solution.

    >>> from eftcore.inputs.kernel import InputKernel
    >>> from eftcore.specs import ResNet
    >>> from eftcore.theory.together import alone
    >>> model = ResNet(activation="sin", weight_variance=1.0, epsilon=0.1, depth=20)
    >>> spec = PredictionSpec(model=model, kernel=InputKernel.explicit([[50.0]]), closure="wick", order=24)
    >>> truncated(spec, alone(solve(spec)), 24).beyond.share > 0.99
    True
    """
    assert solution.track is not None
    beyond = remainder(spec, solution.track, order)
    sizes = {"V4": beyond.variance.sum(1), "K1": np.linalg.norm(to_matrix(beyond.correction), axis=(1, 2))}
    rest, strict = (_relative(sizes, error_scales(solution, tiny)) for tiny in (TINY, STRICT))
    return Raised(order, solution, beyond, rest, strict)


def _relative(sizes: dict[str, np.ndarray], scales: dict[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for name, size in sizes.items():
        ratio = np.divide(size, scales[name], out=np.where(size > 0, np.inf, 0.0), where=scales[name] > 0)
        found[name] = float(np.nan_to_num(ratio, nan=np.inf).max())
    return found


async def raised_orders(spec: PredictionSpec) -> AsyncGenerator[Raised, None]:
    """Solutions of rising Wick order, as far as time and memory allow.

    Each step solves for the new orders alone. The numerical error is estimated on the lowest orders, which carry almost
    all of V4 and K1.
    """
    total = await solve(spec.model_copy(update={"order": ORDERS[0]}))
    engine = await starting_engine(spec)
    engine = engine.refined(nodes=True, terms=True) or engine
    found = truncated(spec, total, ORDERS[0])
    yield found
    before: float | None = None
    for order in ORDERS[1:]:
        if not _affordable(spec, order):
            return
        check_memory(spec, order, found.order)
        build = partial(wick_class(spec.model), spec.model, order=order, above=found.order)
        more = await at_resolution(spec, engine, build)
        previous, total = total, total.plus(more)
        found = truncated(spec, total, order)
        change = relative_change(previous, total)["K1"]
        if found.beyond.coarse and found.beyond.share <= CAPTURED and before is not None and change < before:
            found = _extrapolated(found, change**2 / (before - change))
        before = change
        yield found


def _extrapolated(found: Raised, left: float) -> Raised:
    """``found`` with twice ``left``, the rest of a geometric series, for K1 where that is less (eq. 4.26)."""
    lower = {"K1": min(found.rest["K1"], 2 * left)}
    return replace(found, rest=found.rest | lower, strict=found.strict | lower)


def _affordable(spec: PredictionSpec, order: int) -> bool:
    # explicit Euler steps and the continuous equations are stiff in the orders
    return order <= ALWAYS or (spec.step == "exact" and entries(spec, order) <= MAX_ENTRIES)
