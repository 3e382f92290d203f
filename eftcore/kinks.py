"""Where a function jumps or bends: its kinks, found from its values alone (docs/theory.md, section 6.1).

The sixth difference of a smooth function falls like the sixth power of its step; across a jump of the m-th derivative
it falls like the m-th power. So the difference around each point of a grid is computed at ever smaller steps, and the
powers seen at the smallest steps decide whether there is a kink.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WINDOW = 40.0
"""Kinks are looked for at |x| up to this."""

HIGHEST = 3
"""Jumps of derivatives up to this one are found, since the theory uses the fourth derivative."""

_STENCIL = np.arange(-3, 4)
_WEIGHTS = np.array([1, -6, 15, -20, 15, -6, 1], dtype=float)
_FIRST_STEP = 2.0**-6
_HALVINGS = 30
_JUDGED = 4
_ROUNDING = 64 * 2e-15
_NOISE_STEPS = (2.0**-22, 2.0**-29, 2.0**-36)
_NOISE_PLACES = 5


def find_kinks(function: Callable[[np.ndarray], np.ndarray]) -> tuple[float, ...]:
    """Points with |x| <= WINDOW where ``function`` or one of its first HIGHEST derivatives jumps, increasing.

    Jumps of the function and its slope are located to about 1e-10, of the second derivative to 1e-6, of the third to
    1e-4. Changes on scales below 1e-7 count as jumps, and single precision hides weak ones. Where values are not finite
    nothing is found.

    >>> find_kinks(np.abs), find_kinks(lambda x: np.clip(x, -1, 1)), find_kinks(np.tanh)
    ((0.0,), (-1.0, 1.0), ())
    """
    with np.errstate(all="ignore"):
        return _merged(_search(function))


def _search(function: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    centre = np.arange(-WINDOW, WINDOW, 1.5 * _FIRST_STEP)
    found: list[float] = []
    step = _FIRST_STEP
    size = _difference(function, centre, step)[0]
    noise = _noise(function, centre)
    powers = np.full((len(centre), _JUDGED), np.inf)
    for _ in range(_HALVINGS):
        step /= 2
        children = centre[:, None] + 2 * step * np.arange(-2, 2.5, 0.5)
        after, rounding = _difference(function, children, step)
        best = np.argmax(after, axis=1)[:, None]
        after, rounding, children = (np.take_along_axis(array, best, 1)[:, 0] for array in (after, rounding, children))
        alive = after > np.maximum(rounding, noise)
        # a difference that falls below rounding is judged by the powers seen before; noise would not fall at all
        sunk = ~alive & (powers > 0.5).all(1)
        found += _judged(centre[sunk], powers[sunk], step)
        power = np.log2(size[alive] / after[alive])
        powers = np.concatenate([powers[alive, 1:], power[:, None]], axis=1)
        centre, size, noise, rounding = children[alive], after[alive], noise[alive], rounding[alive]
    clear = size > 8 * np.maximum(rounding, noise)
    return found + _judged(centre[clear], powers[clear], step)


def _difference(
    function: Callable[[np.ndarray], np.ndarray], centre: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """|sixth difference| around each centre, and a bound of the rounding error in it."""
    values = np.asarray(function(centre[..., None] + step * _STENCIL), dtype=float)
    values = np.where((np.abs(values) < 1e300).all(-1, keepdims=True), values, 0.0)
    return np.abs(values @ _WEIGHTS), _ROUNDING * np.abs(values).max(-1)


def _noise(function: Callable[[np.ndarray], np.ndarray], centre: np.ndarray) -> np.ndarray:
    """Noise of the function around each centre: the sixth difference at steps so small that a smooth part vanishes.

    It is never taken below the rounding error.
    """
    places = centre[:, None] + np.random.default_rng(0).uniform(-1, 1, (len(centre), _NOISE_PLACES)) * _FIRST_STEP
    seen = np.max([_difference(function, places, step)[0].max(1) for step in _NOISE_STEPS], axis=0)
    inner = np.abs(centre) < 4
    scale = np.median(_difference(function, centre[inner], _FIRST_STEP)[1])
    noise: np.ndarray = np.maximum(4 * seen, scale + 1e-300)
    return noise


def _judged(centre: np.ndarray, powers: np.ndarray, step: float) -> list[float]:
    jumps = (powers < HIGHEST + 1.5).all(1)
    places = [_shortest(place, 8 * step) for place in centre[jumps]]
    return [place for place in places if abs(place) <= WINDOW - 4 * _FIRST_STEP]


def _shortest(place: float, tolerance: float) -> float:
    """The number with the fewest decimals within the tolerance."""
    for digits in range(13):
        candidate = round(float(place), digits)
        if abs(candidate - place) <= tolerance:
            return candidate + 0.0
    return float(place)


def _merged(places: list[float]) -> tuple[float, ...]:
    """Distinct places; neighbours within 1e-3 count as one kink, at the place with the shortest decimal text."""
    merged: list[float] = []
    for place in sorted(places):
        if merged and place - merged[-1] < 1e-3:
            merged[-1] = min(merged[-1], place, key=lambda value: len(repr(value)))
        else:
            merged.append(place)
    return tuple(merged)
