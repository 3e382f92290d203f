"""Random streams: keys derived from (ensemble digest, shard), so that a result depends on nothing else."""

from __future__ import annotations

import hashlib

from eftcore.specs import EnsembleSpec


def stream_key(spec: EnsembleSpec, shard: int, *more: int) -> int:
    """A 64-bit key; ``more`` splits a shard's stream further.

    >>> from eftcore import InputKernel, ResNet
    >>> spec = EnsembleSpec(model=ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=1),
    ...                     kernel=InputKernel.explicit([[1.0]]), width=4)
    >>> stream_key(spec, 0) == stream_key(spec, 1)
    False
    """
    text = ":".join(map(str, (spec.digest, shard, *more)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
