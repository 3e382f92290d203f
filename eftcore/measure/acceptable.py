"""What a module must be for its kernels to be judged: random, and with samples that do not know of one another."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from eftcore.errors import InputError
from eftcore.measure.stream import Reading, read, seeded

SAME = 1e-5
"""Relative difference of two passes that counts as rounding."""


def refuse_what_cannot_be_judged(first: nn.Module, second: nn.Module, inputs: torch.Tensor, reading: Reading) -> None:
    """Raises InputError with the modules' names for a module that is not what the theory is about.

    Args:
        first, second: two initialisations.
        inputs: a batch, samples first.
        reading: how the stream is read.
    """
    mixing = [
        name
        for name, part in first.named_modules()
        if part.training and isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    if mixing:
        raise InputError(
            f"batch normalisation in training mode mixes the samples: {', '.join(mixing[:4])}",
            place="make_model",
            remedy="leave train = False, or take it out",
        )
    with seeded(1):
        once = read(first, inputs, reading)
    with seeded(2):
        again = read(first, inputs, reading)
    if _differ(once, again):
        active = [
            name
            for name, part in first.named_modules()
            if part.training and isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
        ]
        why = f"dropout is active in {', '.join(active[:4])}" if active else "it draws random numbers"
        raise InputError(
            f"two passes of one network differ: {why}",
            place="make_model",
            remedy="leave train = False, or take it out",
        )
    if _equal_parameters(first, second):
        raise InputError(
            "it returns the same weights each time", place="make_model", remedy="draw them anew, and fix no seed in it"
        )
    if len(inputs) > 1:
        alone = read(first, inputs[:1], reading)
        per_sample = once.shape[1] // len(inputs)
        if _differ(once[:, :per_sample], alone):
            layer = int(np.argmax([_differ(a, b) for a, b in zip(once[:, :per_sample], alone, strict=True)]))
            where = reading.blocks[layer - 1] if layer else "what is before the first block"
            raise InputError(
                f"what a sample becomes depends on the other samples, in {where}",
                place="make_model",
                remedy="attention or normalisation across samples cannot be judged",
            )


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() > SAME * max(float(np.abs(one).max()), 1e-300))


def _equal_parameters(one: nn.Module, other: nn.Module) -> bool:
    pairs = list(zip(one.parameters(), other.parameters(), strict=True))
    varied = [(a, b) for a, b in pairs if a.dim() > 1]
    return all(torch.equal(a, b) for a, b in varied)
