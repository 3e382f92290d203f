"""What a check of a module finds: the verdict on each block, and on all together (docs/theory.md, section 12)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eftcore.inputs.kernel import InputKernel
from eftcore.measure.innovations import SQUARES, Products, scores
from eftcore.measure.verdict import Fit, block_p_value, confusions, fit_branch, likely_confusions, simultaneous
from eftcore.pairs import pair_indices
from eftcore.specs import CheckSpec, ResNet

if TYPE_CHECKING:
    from eftcore.measure.guess import Guess

LEVEL = 1e-3
"""Family-wise level at which a block counts as deviating."""


@dataclass(frozen=True)
class Settings:
    """How the networks were made and read; the fields are arguments of ``eft.check``."""

    seed: int = 0
    train: bool = False
    dtype: str = "float32"
    device: str = "cpu"
    feature_axis: int = -1
    positions: str | None = None


@dataclass(frozen=True)
class CheckedBlock:
    """What was found of one block.

    Attributes:
        name: the module's name.
        p_value: that the block is as the spec says; uniform where it is.
        largest_z: the largest z-score of its kernel entries.
        weight_variance: its C_W (C_2 with two matrices), fitted with the spec's epsilon.
        bias_variance: its C_b, likewise; None for one input, from which the two cannot be told apart.
        epsilon: its epsilon, fitted with the spec's weight variance; None where nothing of it is left.
        confusions: common mistakes that would explain the ratio of the weight variances.
    """

    name: str
    p_value: float
    largest_z: float
    weight_variance: Fit
    bias_variance: Fit | None
    epsilon: Fit | None
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
        settings: how the networks were made and read.
        provenance: the version of torch; the module's class and the digest of its printed form; the function that makes
            it with the digest of its file, where it has one; the digest of the inputs.
        guessed: where no spec was given, all that were tried, the best first; that one is ``spec``.
    """

    spec: ResNet
    width: int
    networks: int
    blocks: tuple[CheckedBlock, ...]
    p_value: float
    first_deviating: int | None
    kernel: np.ndarray
    settings: Settings
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

    @cached_property
    def recorded_as(self) -> CheckSpec:
        """Its identity among recorded results: what was checked, and the digest of the kernels that were found.

        Raises InputError where a record cannot hold so many inputs.
        """
        given, settings = self.provenance, asdict(self.settings)
        del settings["device"]  # provenance, as for other results
        return CheckSpec(
            model=self.spec,
            kernel=InputKernel.explicit(self.mean[0], label=f"{given['module']} before {self.blocks[0].name}"[:80]),
            width=self.width,
            networks=self.networks,
            module=given["module"],
            module_digest=given["module_digest"],
            factory=given.get("factory"),
            factory_digest=given.get("factory_digest"),
            inputs_digest=given["inputs_digest"],
            guessed=bool(self.guessed),
            kernels_digest=hashlib.sha256(np.ascontiguousarray(self.kernel).tobytes()).hexdigest(),
            **settings,
        )

    def table(self) -> pd.DataFrame:
        """One row for each block, with the columns that ``v_checks`` has of blocks; its layer is the one it makes."""
        rows = [
            {
                "layer": index + 1,
                "block_name": block.name,
                "p_value": block.p_value,
                "largest_z": block.largest_z,
                "deviates": block.deviates(len(self.blocks)),
                **_columns("fitted_weight_variance", block.weight_variance),
                **_columns("fitted_bias_variance", block.bias_variance),
                **_columns("fitted_epsilon", block.epsilon),
                "diagnosis": "; ".join(block.confusions) or None,
            }
            for index, block in enumerate(self.blocks)
        ]
        return pd.DataFrame(rows)

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
            "settings": asdict(self.settings),
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


def judged(
    products: Products,
    spec: ResNet,
    width: int,
    names: tuple[str, ...],
    *,
    settings: Settings,
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
                epsilon=_scale(ratio, spec.epsilon),
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
        settings=settings,
        provenance=provenance,
        guessed=guessed,
    )


def _ratio(fit: Fit, expected: float) -> Fit:
    return Fit(fit.value / expected, fit.se / expected)


def _scale(ratio: Fit, epsilon: float) -> Fit | None:
    """The epsilon whose square is this ratio times that of the spec."""
    if ratio.value <= 0:
        return None
    root = float(np.sqrt(ratio.value))
    return Fit(epsilon * root, epsilon * ratio.se / (2 * root))


def _columns(name: str, fit: Fit | None) -> dict[str, float]:
    return {name: np.nan if fit is None else fit.value, f"{name}_se": np.nan if fit is None else fit.se}
