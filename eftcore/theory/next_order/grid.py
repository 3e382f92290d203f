"""Signed densities of one neuron's preactivations on a grid, and what a layer's Gaussian increment does to them.

They are smooth and fall off like a Gaussian, so that sums over the points of a grid converge exponentially, and
discrete Fourier transforms give derivatives and Gaussian smoothing to the same accuracy. Equation numbers are those of
docs/theory.md.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import eigh

from eftcore.pairs import pair_indices

REACH = 6.5
"""Functions are evaluated within this many standard deviations of the widest Gaussian: farther out no neuron is."""

BORDER = 7.0
"""Half the period of the grid, in standard deviations of the widest Gaussian."""


def points_needed(narrowest: np.ndarray, widest: np.ndarray, spacing: float) -> float:
    """Number of points of such a grid; infinite where a Gaussian is not one of all directions."""
    try:
        squares = eigh(narrowest, widest, eigvals_only=True)
    except np.linalg.LinAlgError:
        return math.inf
    if squares[0] <= 0:
        return math.inf
    return float(np.prod(2 * BORDER / np.minimum(spacing, np.sqrt(squares))))


class Grid:
    """Points on which all Gaussians between a narrowest and a widest one are resolved.

    The axes are those in which the widest Gaussian N(0, W) is standard normal and the narrowest N(0, V) has independent
    coordinates; along each axis the points are ``spacing`` apart, or as dense as the narrowest Gaussian needs.

    Args:
        narrowest, widest: V and W (N, N), positive definite, V <= W.
        spacing: largest distance of neighbouring points in standard deviations of the widest Gaussian.
        even: whether all functions f(phi) = f(-phi), so that half of the points suffice.

    Attributes:
        points: (points, N) all of them.
        cell: the volume of the cell of a point.
        kept: (G,) numbers of the points within REACH, of phi and -phi one if ``even``.
        near: (G, N) those points, at which functions are needed.
        derivative: (P, ...) what D_q multiplies the transform of a density by.
    """

    def __init__(self, narrowest: np.ndarray, widest: np.ndarray, spacing: float, *, even: bool) -> None:
        squares, axes = eigh(narrowest, widest)
        inputs = len(widest)
        spacings = np.minimum(spacing, np.sqrt(squares))
        self._shape = tuple(2 * math.ceil(BORDER / s) for s in spacings)
        back = widest @ axes  # phi = back @ z
        lines = [s * (np.arange(n) - n // 2) for n, s in zip(self._shape, spacings, strict=True)]
        z = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, inputs)
        self.points = z @ back.T
        self.cell = float(np.prod(spacings)) * abs(float(np.linalg.det(back)))
        inside = (z**2).sum(1) <= REACH**2
        volume = np.full(len(z), self.cell)
        if even:
            leading = np.take_along_axis(z, np.argmax(z != 0, axis=1)[:, None], 1)[:, 0]
            inside &= leading >= 0
            volume[leading > 0] *= 2
        self.kept = np.flatnonzero(inside)
        self._volume = volume[self.kept]
        self.near = self.points[self.kept]
        waves = [2 * np.pi * np.fft.fftfreq(n, s) for n, s in zip(self._shape, spacings, strict=True)]
        waves[-1] = 2 * np.pi * np.fft.rfftfreq(self._shape[-1], spacings[-1])
        self._vectors = np.stack(np.meshgrid(*waves, indexing="ij"), axis=-1) @ axes.T
        first, second = pair_indices(inputs)
        factors = [-0.5 if a == b else -1.0 for a, b in zip(first, second, strict=True)]
        self.derivative = np.stack(
            [
                factor * self._vectors[..., a] * self._vectors[..., b]
                for factor, a, b in zip(factors, first, second, strict=True)
            ]
        )

    def gaussian(self, kernel: np.ndarray) -> np.ndarray:
        """(points,) the density of N(0, kernel)."""
        precision = np.linalg.inv(kernel)
        size = math.sqrt(np.linalg.det(2 * np.pi * kernel))
        found: np.ndarray = np.exp(-0.5 * ((self.points @ precision) * self.points).sum(1)) / size
        return found

    def transformed(self, densities: np.ndarray) -> np.ndarray:
        """The Fourier transforms of densities (A, points)."""
        values = densities.reshape(-1, *self._shape)
        found: np.ndarray = np.fft.rfftn(values, axes=tuple(range(1, values.ndim)))
        return found

    def densities(self, transforms: np.ndarray) -> np.ndarray:
        """The inverse of ``transformed``."""
        found = np.fft.irfftn(transforms, s=self._shape, axes=tuple(range(1, transforms.ndim)))
        return found.reshape(len(transforms), -1)

    def smoothing(self, increment: np.ndarray) -> np.ndarray:
        """By what adding an independent N(0, increment) multiplies the transform of a density."""
        found: np.ndarray = np.exp(-0.5 * ((self._vectors @ increment) * self._vectors).sum(-1))
        return found

    def measures(self, densities: np.ndarray) -> np.ndarray:
        """(A, G) weights of the points ``near`` by which functions are integrated over densities (A, points)."""
        found: np.ndarray = densities[:, self.kept] * self._volume
        return found
