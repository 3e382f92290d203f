"""The exact leading order by sines and cosines, which suit smooth bounded activations (docs/theory.md, section 4.4).

Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from itertools import pairwise, takewhile

import numpy as np

from eftcore.activations import get_activation
from eftcore.gaussian.fourier import is_bounded
from eftcore.specs import PredictionSpec
from eftcore.theory.closures.trigonometric import Trigonometric, Waves
from eftcore.theory.mean_field import Path, in_range
from eftcore.theory.solving import Builder, Solution, at_resolution, relative_change, solve, starting_engine

MODES = (12, 17, 24, 34, 48, 68, 96, 136, 192, 272, 384)
"""Longest wave vectors, in units of pi / L, that are tried in turn."""

MOST_ENTRIES = 2**18
"""Sines and cosines are used while their state, P times the number of waves of all pairs, has at most this many
entries."""


async def by_waves(spec: PredictionSpec) -> Solution | None:
    """The solution by sines and cosines, with as many of them as change V4 and K1 by at most ``spec.truncation``.

    ``details["truncation_error"]`` is the last change: the sum converges exponentially, so that what is left is less.
    It is larger than ``spec.truncation`` where more waves would be too many. None for an activation that is not smooth
    and bounded, and where no two numbers of waves can be compared.
    """
    assert spec.truncation is not None
    found: Solution | None = None
    async for before, after in rising_waves(spec):
        change = relative_change(before, after)
        rest = {name: change[name] for name in ("V4", "K1")}
        found = replace(after, details={**after.details, "truncation_error": rest})
        if max(rest.values()) <= spec.truncation:
            break
    return found


async def rising_waves(spec: PredictionSpec) -> AsyncGenerator[tuple[Solution, Solution], None]:
    """Solutions with more and more waves, each beside the one before it, as far as memory allows.

    The numerical error is estimated on the fewest waves, which carry almost all of V4 and K1. There are none for an
    activation that is not smooth and bounded, and none behind a normalisation.
    """
    activation = get_activation(spec.model.activation)
    if not spec.model.of_the_paper or activation.kinks or not is_bounded(activation):
        return
    engine = await starting_engine(spec)
    path = in_range(await Path(spec.model, spec.kernel.array, engine)).kernel
    engine = engine.refined(nodes=True, terms=True) or engine
    families = ((modes, Waves(activation, np.diag(path[-1]), modes)) for modes in MODES)
    affordable = takewhile(lambda family: _affordable(family[1], path[[0, -1]]), families)
    before: Solution | None = None
    for (_, fewest), (modes, waves) in pairwise(affordable):
        build: Builder = partial(Trigonometric, spec.model, waves=waves)
        if before is None:
            before = await solve(spec, partial(Trigonometric, spec.model, waves=fewest))
        found = await at_resolution(spec, engine, build)
        details = {**before.details, "basis": "trigonometric", "modes": modes}
        found = replace(found, numerical_error=before.numerical_error, details=details)
        yield before, found
        before = found


def _affordable(waves: Waves, kernels: np.ndarray) -> bool:
    """Whether the state fits, and the covariances of the waves can be computed."""
    pairs = len(waves.first)
    return pairs * waves.pair.size <= MOST_ENTRIES and bool(np.isfinite(waves.with_products(kernels)).all())
