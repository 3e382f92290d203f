"""About how long predictions take, as measured, so that a page can ask before it begins a long one.

The times are those of one processor, for networks of 100 layers and total time 1. They are rough: the right ones are up
to three times shorter or longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import eftcore as eft
from eftcore.activations import get_activation
from eftcore.gaussian.fourier import is_bounded

INPUTS = (1, 2, 4, 8, 16)
"""Numbers of inputs for which times were measured."""

_WAVES, _WICK, _CHAIN = "sines and cosines", "Wick powers", "Markov chain"
SECONDS = {
    ("g_only", _WAVES): (0.1, 0.15, 0.2, 0.3, 0.5),
    ("g_only", _WICK): (0.1, 0.15, 0.2, 0.3, 0.5),
    ("g_only", _CHAIN): (0.1, 0.2, 0.3, 0.4, 2.0),
    ("sigma", _WAVES): (0.1, 0.2, 0.3, 0.4, 2.0),
    ("sigma", _WICK): (0.1, 0.2, 0.3, 0.4, 2.0),
    ("exact", _WAVES): (0.1, 0.15, 0.4, 4.0, 60.0),
    ("exact", _WICK): (0.3, 0.5, 1.2, 3.5, 35.0),
    ("exact", _CHAIN): (0.1, 0.2, 0.3, 0.5, 1.5),
    ("next", _WAVES): (0.3, 0.9, 4.0, 5.0, 70.0),
    ("next", _WICK): (0.6, 4.0, 9.0, 9.0, 60.0),
    ("next", _CHAIN): (0.3, 0.9, 2.0, 3.0, 10.0),
}
"""Seconds of each stage of ui.data.predict by what it is computed with, for these numbers of inputs."""


def expected_seconds(model: eft.ResNet, kernel: eft.InputKernel, stages: Sequence[str]) -> float:
    """About how many seconds these stages of ui.data.predict take together.

    >>> model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=100)
    >>> round(expected_seconds(model, eft.InputKernel.explicit([[1.0]]), ["g_only", "exact"]), 2)
    0.2
    """
    return sum(_seconds(model, kernel.n_inputs, stage) for stage in stages)


def quick_part(
    model: eft.ResNet, kernel: eft.InputKernel, stages: tuple[str, ...], limit: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first stages, which take at most so many seconds together, and the others."""
    for number in range(len(stages), 0, -1):
        if expected_seconds(model, kernel, stages[:number]) <= limit:
            return stages[:number], stages[number:]
    return (), stages


def _seconds(model: eft.ResNet, n_inputs: int, stage: str) -> float:
    by = _method(model)
    usual = np.exp(np.interp(np.log(n_inputs), np.log(INPUTS), np.log(SECONDS[stage, by])))
    longer = max(1.0, model.total_time) ** 0.5 if by == _WAVES else 1.0
    return float(usual * longer * (0.2 + 0.8 * model.depth / 100))


def _method(model: eft.ResNet) -> str:
    if model.block == "two_matrix":
        return _CHAIN
    activation = get_activation(model.activation)
    smooth = is_bounded(activation) and not activation.kinks
    return _WAVES if smooth and model.of_the_paper else _WICK
