"""A function of one Gaussian input as a sum of sines and cosines (docs/theory.md, eq. 4.27).

For smooth bounded functions the sum converges exponentially wherever the input has any weight. Gaussian means of sines
and cosines are exact, so that no integral is left to be done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eftcore.activation_families import Parity
from eftcore.activations import Activation

REACH = 1.2
"""Half a period is this times sqrt(modes), in standard deviations: what lies beyond it and what oscillates faster than
the sum are then about equally unimportant."""

FARTHEST = 6.5
"""Most standard deviations of half a period: farther out no neuron is, and coefficients that nothing fixes get large.
"""

POINTS_PER_WAVE = 16
"""Points of the fit for each period of the fastest wave."""

FEWEST_POINTS = 501


def half_period(modes: float, deviation: float) -> float:
    """L for an input of this standard deviation and waves up to ``modes`` pi / L.

    >>> half_period(16, 1.0), half_period(100, 2.0)
    (4.8, 13.0)
    """
    return min(REACH * math.sqrt(modes), FARTHEST) * deviation


@dataclass(frozen=True, eq=False)
class Series:
    """f(x) = sum_j c_j cos(j u x) over even j + sum_j s_j sin(j u x) over odd j, with the unit u = pi / (2 L).

    Both parts are smooth at the ends of -L .. L, whatever values f has there.

    Attributes:
        unit: u.
        cosines: c_0, c_2, c_4, ...; empty for an odd f.
        sines: s_1, s_3, ...; empty for an even f.
    """

    unit: float
    cosines: np.ndarray
    sines: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The sum at x, of the same shape."""
        numbers, coefficients = self.waves()
        found: np.ndarray = (np.exp(1j * self.unit * np.multiply.outer(x, numbers)) @ coefficients).real
        return found

    def waves(self) -> tuple[np.ndarray, np.ndarray]:
        """(M,) whole numbers j of both signs, and (M,) complex coefficients of exp(i j u x).

        The coefficients of an even f are real, and those of an odd f imaginary.
        """
        even, odd = 2 * np.arange(len(self.cosines)), 2 * np.arange(len(self.sines)) + 1
        half = np.where(even == 0, 1.0, 0.5) * self.cosines
        numbers = np.concatenate([-even[:0:-1], even, -odd[::-1], odd])
        coefficients = np.concatenate([half[:0:-1], half, 0.5j * self.sines[::-1], -0.5j * self.sines])
        return numbers, coefficients


def fit(
    function: Callable[[np.ndarray], np.ndarray], deviation: float, modes: float, parity: Parity | None = None
) -> Series:
    """The series of a function with waves up to ``modes`` pi / L, for an input of at most this standard deviation.

    It is the least-squares fit under the Gaussian of that deviation. ``parity`` says that the function is "odd" or
    "even".

    >>> series = fit(np.tanh, 1.0, modes=24, parity="odd")
    >>> float(np.abs(series(np.array([0.5, 2.0])) - np.tanh([0.5, 2.0])).max()) < 1e-7
    True
    """
    half = half_period(modes, deviation)
    unit, highest = math.pi / (2 * half), math.floor(2 * modes)
    x = np.linspace(0, half, max(FEWEST_POINTS, POINTS_PER_WAVE * highest // 4))
    weight = np.exp(-((x / deviation) ** 2) / 4)
    right, left = (np.asarray(function(sign * x), dtype=float) for sign in (1, -1))

    def part(values: np.ndarray, wave: Callable[[np.ndarray], np.ndarray], first: int) -> np.ndarray:
        waves = wave(np.outer(x, unit * np.arange(first, highest + 1, 2)))
        found: np.ndarray = np.linalg.lstsq(waves * weight[:, None], values * weight, rcond=1e-14)[0]
        return found

    none = np.empty(0)
    return Series(
        unit,
        none if parity == "odd" else part((right + left) / 2, np.cos, 0),
        none if parity == "even" else part((right - left) / 2, np.sin, 1),
    )


def is_bounded(activation: Activation) -> bool:
    """Whether sigma stays bounded, as far as its values show.

    >>> from eftcore.activations import get_activation
    >>> [is_bounded(get_activation(name)) for name in ("tanh", "sin", "relu", "softplus")]
    [True, True, False, False]
    """
    near, far = np.linspace(-30, 30, 601), np.linspace(300, 1e4, 601)
    values = [np.abs(activation.function(x)).max() for x in (near, far, -far)]
    return bool(max(values[1:]) <= 2 * values[0])
