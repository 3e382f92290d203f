"""eft.check: is the initialisation of a torch module what its author thinks it is? (docs/theory.md, section 12)"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import torch

from eftcore.errors import InputError
from eftcore.measure.acceptable import refuse_what_cannot_be_judged
from eftcore.measure.guess import Guess, activations_of, guesses
from eftcore.measure.innovations import SQUARES, Products, score_count, scores
from eftcore.measure.stream import Positions, Reading, find_blocks, make, read
from eftcore.measure.verdict import Fit, block_p_value, confusions, fit_branch, likely_confusions, simultaneous
from eftcore.pairs import pair_indices
from eftcore.specs import ResNet

FEWEST_PER_SCORE = 3
"""Networks that are needed for each score of a block."""

LEVEL = 1e-3
"""Family-wise level at which a block counts as deviating."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CheckedBlock:
    """What was found of one block.

    Attributes:
        name: the module's name.
        p_value: that the block is as the spec says; uniform where it is.
        largest_z: the largest z-score of its kernel entries.
        weight_variance: its C_W (C_2 with two matrices), fitted with the spec's epsilon.
        bias_variance: its C_b, likewise; None for one input, from which the two cannot be told apart.
        confusions: common mistakes that would explain the ratio of the weight variances.
    """

    name: str
    p_value: float
    largest_z: float
    weight_variance: Fit
    bias_variance: Fit | None
    confusions: tuple[str, ...]

    def deviates(self, blocks: int) -> bool:
        """Whether it deviates, as one of this many blocks that are looked at."""
        return self.p_value * blocks < LEVEL


@dataclass(frozen=True, eq=False)
class Check:
    """The verdict on a module.

    Attributes:
        spec: what the module was compared with.
        width: neurons n of the stream.
        networks: number of initialisations.
        blocks: what was found of each block.
        p_value: one p-value for all blocks.
        first_deviating: position of the first block that deviates, None where none does.
        kernel: (R, L+1, N, N) kernel of each network before the first block and after each, averaged over positions.
        provenance: versions and a digest of the module's printed form.
        guessed: where no spec was given, all that were tried, the best first; that one is ``spec``.
    """

    spec: ResNet
    width: int
    networks: int
    blocks: tuple[CheckedBlock, ...]
    p_value: float
    first_deviating: int | None
    kernel: np.ndarray
    provenance: dict[str, str]
    guessed: tuple[Guess, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no block deviates."""
        return self.first_deviating is None

    @property
    def mean(self) -> np.ndarray:
        """(L+1, N, N) mean kernel over networks."""
        found: np.ndarray = self.kernel.mean(0)
        return found

    def as_data(self) -> dict[str, Any]:
        """The verdict for programs."""
        return {
            "spec": self.spec.identity(),
            "guessed": bool(self.guessed),
            "width": self.width,
            "networks": self.networks,
            "passed": self.passed,
            "p_value": self.p_value,
            "first_deviating": None if self.first_deviating is None else self.blocks[self.first_deviating].name,
            "sentence": self.sentence(),
            "blocks": [asdict(block) for block in self.blocks],
            "provenance": self.provenance,
        }

    def sentence(self) -> str:
        """The verdict in a sentence or two."""
        if self.first_deviating is None:
            return (
                f"All {len(self.blocks)} blocks are as the spec says, as far as {self.networks} networks can tell"
                f" (p = {self.p_value:.2g})."
            )
        block = self.blocks[self.first_deviating]
        ratio = _ratio(block.weight_variance, self.spec.weight_variance)
        text = f"{block.name} is the first block that deviates (p = {block.p_value:.1e}): "
        text += f"its weight variance is {ratio.value:.4g} +- {ratio.se:.1g} times what the spec says"
        bias = block.bias_variance
        if bias is not None and abs(bias.value - self.spec.bias_variance) > 4 * bias.se:
            text += f", its bias variance {bias.value:.3g} +- {bias.se:.1g} instead of {self.spec.bias_variance:g}"
        if block.confusions:
            text += f"; this mistake would do that: {' or '.join(block.confusions)}"
        return text + "."


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
    batch = _batch(inputs, dtype, device)
    options: dict[str, Any] = {"train": train, "dtype": getattr(torch, dtype), "device": device}
    first = make(make_model, seed, **options)
    if positions not in (None, *get_args(Positions)):
        raise InputError(f"must be one of {', '.join(get_args(Positions))}", place="positions", value=positions)
    reading = Reading(find_blocks(first, batch, stream), feature_axis, positions)
    refuse_what_cannot_be_judged(first, make(make_model, seed + 1, **options), batch, reading)
    if spec is not None and len(reading.blocks) != spec.depth:
        raise InputError(
            f"the module has {len(reading.blocks)} blocks ({reading.blocks[0]} to {reading.blocks[-1]})",
            place=("spec", "depth"),
            value=spec.depth,
            remedy="give the spec that depth, or name the blocks with stream",
        )
    activations = activations_of(first) if spec is None else (spec.activation,)
    parts: list[Products] = []
    begun = time.perf_counter()
    for index in range(networks):
        found = read(make(make_model, seed + index, **options), batch, reading)
        parts.append(Products.of(found, activations))
        if index == 0:
            _enough(networks, parts[0])
        if index == 1 and planned is not None:
            seconds = (time.perf_counter() - begun) / 2 * networks
            planned(Plan(networks, needed_networks(found.shape[-1], found.shape[1]), seconds))
        if progress is not None:
            progress(index + 1, networks)
    products = Products.together(parts)
    guessed: tuple[Guess, ...] = ()
    if spec is None:
        guessed = tuple(guesses(products, activations, found.shape[-1]))
        spec = guessed[0].spec
    return judged(products, spec, found.shape[-1], reading.blocks, _provenance(first), guessed)


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


def judged(
    products: Products,
    spec: ResNet,
    width: int,
    names: tuple[str, ...],
    provenance: dict[str, str],
    guessed: tuple[Guess, ...] = (),
) -> Check:
    """The verdict, from the products over neurons of all networks."""
    h = spec.epsilon**2
    engine = products.engine(spec)
    moments = products.second_moments(spec, engine)
    values = scores(products, spec, engine, moments, width)
    pairs = pair_indices(products.kernel.shape[-1])
    known = confusions(width, spec.hidden_width(width), spec.depth, spec.epsilon)
    blocks = []
    for layer, name in enumerate(names):
        own = values[:, layer]
        spread = own.std(0, ddof=1)
        z = np.divide(own.mean(0), spread / np.sqrt(len(own)), out=np.zeros(own.shape[1]), where=spread > 0)
        increment, moment = (x[:, layer].mean(1)[:, pairs[0], pairs[1]] for x in (products.increment, moments))
        parts = [h * moment, np.full_like(moment, h)]
        if len(pairs[0]) == 1:
            increment, parts = increment - h * spec.bias_variance, parts[:1]
        fits = fit_branch(increment, parts)
        ratio = _ratio(fits[0], spec.weight_variance)
        blocks.append(
            CheckedBlock(
                name=name,
                p_value=block_p_value(own, SQUARES),
                largest_z=float(np.abs(z).max()),
                weight_variance=fits[0],
                bias_variance=fits[1] if len(fits) > 1 else None,
                confusions=likely_confusions(ratio, known) if abs(ratio.value - 1) > 4 * ratio.se else (),
            )
        )
    p_values = np.array([block.p_value for block in blocks])
    deviating = [index for index, block in enumerate(blocks) if block.deviates(len(blocks))]
    return Check(
        spec=spec,
        width=width,
        networks=len(products.kernel),
        blocks=tuple(blocks),
        p_value=simultaneous(p_values),
        first_deviating=deviating[0] if deviating else None,
        kernel=products.kernel.mean(2),
        provenance=provenance,
        guessed=guessed,
    )


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


def _ratio(fit: Fit, expected: float) -> Fit:
    return Fit(fit.value / expected, fit.se / expected)


def _provenance(module: torch.nn.Module) -> dict[str, str]:
    from eftcore.identity import digest_of

    return {"torch": str(torch.__version__), "module": type(module).__name__, "module_digest": digest_of(repr(module))}
