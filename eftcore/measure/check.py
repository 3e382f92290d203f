"""eft.check: is the initialisation of a torch module what its author thinks it is? (docs/theory.md, section 12)"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch

from eftcore.errors import InputError
from eftcore.measure.acceptable import refuse_what_cannot_be_judged
from eftcore.measure.checked import Check, Settings, judged
from eftcore.measure.guess import Guess, activations_of, guesses
from eftcore.measure.innovations import Products, score_count
from eftcore.measure.origin import provenance_of
from eftcore.measure.stream import Positions, Reading, find_blocks, make, read
from eftcore.specs import ResNet

FEWEST_PER_SCORE = 3
"""Networks that are needed for each score of a block."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What a check will see, before it is run.

    Attributes:
        networks: initialisations.
        needed: initialisations with which a variance of one block that is 5 % off is seen at 5 sigma.
        seconds: time that the check takes, from the first two initialisations.
    """

    networks: int
    needed: int
    seconds: float


def check(
    make_model: Callable[[], Any],
    inputs: Any,
    spec: ResNet | None = None,
    *,
    stream: str | None = None,
    networks: int = 400,
    seed: int = 0,
    train: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
    feature_axis: int = -1,
    positions: str | None = None,
    progress: Progress | None = None,
    planned: Callable[[Plan], None] | None = None,
) -> Check:
    """Compare each block of a module's residual stream with a spec, over many initialisations.

    Each block is judged by itself, given the stream that it gets, and at the module's own width: a wrong block does not
    make those after it look wrong, and nothing is lost to expansions in 1/n (eq. 12.1).

    Args:
        make_model: gives a newly initialised torch.nn.Module each time; torch is seeded before each call.
        inputs: a batch as the module takes it, samples first; a numpy array or a tensor.
        spec: what the blocks should be; its depth is their number. Without one, the blocks are compared with the
            spec that they all together are most like, see ``Check.guessed``.
        stream: names of the blocks, as in "blocks.*"; found by itself where the module allows it.
        networks: initialisations.
        seed: of the first; the following ones have the following seeds.
        train: whether the module is in training mode.
        dtype: "float32" or "float64", to which the module and floating-point inputs are converted.
        device: a torch device.
        feature_axis: axis of the stream that counts neurons.
        positions: what is done with other axes, such as tokens: "average" or "separate" (see Reading).
        progress: called with (networks done, networks in all).
        planned: called after two networks with what the check will see, and how long it takes.

    Raises InputError for a module without a residual stream or of another depth than the spec, one whose samples know
    of one another or that draws random numbers, a factory that gives the same weights each time, inputs that it does
    not take, a stream that is not finite, and too few networks for the number of inputs.
    """
    if positions not in (None, *get_args(Positions)):
        raise InputError(f"must be one of {', '.join(get_args(Positions))}", place="positions", value=positions)
    settings = Settings(seed, train, dtype, device, feature_axis, positions)
    batch = _batch(inputs, dtype, device)

    def network(index: int) -> torch.nn.Module:
        return make(make_model, seed + index, train=train, dtype=getattr(torch, dtype), device=device)

    begun = time.perf_counter()
    pair = network(0), network(1)
    took = time.perf_counter() - begun
    reading = Reading(find_blocks(pair[0], batch, stream), feature_axis, positions)
    refuse_what_cannot_be_judged(*pair, batch, reading)
    if spec is not None and len(reading.blocks) != spec.depth:
        raise InputError(
            f"the module has {len(reading.blocks)} blocks ({reading.blocks[0]} to {reading.blocks[-1]})",
            place=("spec", "depth"),
            value=spec.depth,
            remedy="give the spec that depth, or name the blocks with stream",
        )
    activations = activations_of(pair[0]) if spec is None else (spec.activation,)
    provenance = provenance_of(pair[0], make_model, batch)
    parts: list[Products] = []
    begun = time.perf_counter()
    for index in range(networks):
        found = read(pair[index] if index < len(pair) else network(index), batch, reading)
        parts.append(Products.of(found, activations))
        if index == 0:
            _enough(networks, parts[0])
        if index == 1 and planned is not None:
            seconds = (took + time.perf_counter() - begun) / 2 * networks
            planned(Plan(networks, needed_networks(found.shape[-1], found.shape[1]), seconds))
        if progress is not None:
            progress(index + 1, networks)
    products = Products.together(parts)
    guessed: tuple[Guess, ...] = ()
    if spec is None:
        guessed = tuple(guesses(products, activations, found.shape[-1]))
        spec = guessed[0].spec
    width = found.shape[-1]
    return judged(products, spec, width, reading.blocks, settings=settings, provenance=provenance, guessed=guessed)


def count_blocks(
    make_model: Callable[[], Any],
    inputs: Any,
    *,
    stream: str | None = None,
    seed: int = 0,
    train: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
) -> int:
    """The number of blocks of a module's residual stream; arguments and errors are those of ``check``."""
    batch = _batch(inputs, dtype, device)
    module = make(make_model, seed, train=train, dtype=getattr(torch, dtype), device=device)
    return len(find_blocks(module, batch, stream))


def needed_networks(width: int, n_inputs: int, *, error: float = 0.05, sigma: float = 5.0) -> int:
    """Networks with which a relative ``error`` of a block's variance is seen at this many standard errors.

    One network knows the mean square of the n increments of an input to sqrt(2 / n), and several inputs hardly more.

    >>> needed_networks(200, 1)
    100
    """
    return int(np.ceil((sigma / error) ** 2 * 2 / width))


def _enough(networks: int, products: Products) -> None:
    n_inputs = products.kernel.shape[-1]
    fewest = FEWEST_PER_SCORE * score_count(n_inputs)
    if networks < fewest:
        raise InputError(
            f"{n_inputs} inputs need at least {fewest} networks",
            place="networks",
            value=networks,
            remedy="take more, or fewer inputs: two or three say most",
        )


def _batch(inputs: Any, dtype: str, device: str) -> torch.Tensor:
    if dtype not in ("float32", "float64"):
        raise InputError("must be 'float32' or 'float64'", place="dtype", value=dtype)
    batch = torch.as_tensor(inputs)
    if batch.dim() < 1 or len(batch) < 1:
        raise InputError("must be a batch with the samples first", place="inputs", remedy="for example (2, 784)")
    if batch.is_floating_point():
        batch = batch.to(getattr(torch, dtype))
        if not torch.isfinite(batch).all():
            raise InputError("must be finite", place="inputs")
    return batch.to(device)
