"""The fields of a study file, validated one by one and against each other before anything is expanded."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from eftcore.errors import InputError, within
from eftcore.identity import Spec
from eftcore.inputs.fields import STUDY_NAME
from eftcore.inputs.layers import whole_layers
from eftcore.inputs.sizes import MOST_RECORDED
from eftcore.precision import Precision
from eftcore.specs import HIDDEN, OF_BLOCKS, Closure, Numerics, PredictionSpec, ResNet, check_depths, default_depths
from flows.study.kernels import KernelSection, Number, Numbers, Text, Texts, Whole, Wholes, as_tuple

Widths = Annotated[tuple[Annotated[Whole, Field(ge=1, le=1_000_000)], ...], BeforeValidator(as_tuple)]
"""Widths to simulate; the list may be empty."""


class ModelGrid(Spec):
    """``[model]``: fields of eftcore.ResNet, each one value or a list; depth or total_time (T = epsilon^2 depth).

    In place of epsilon, residual_scale may have rules in the depth, such as "1/sqrt(L)". The fields from normalisation
    on make a grid for block = "two_matrix" alone; normalisation is "none", "rms" or "layer".
    Several ``[[model]]`` sections may follow each other; the study is the union of their grids. Each section may have
    its own widths and samples. With ``widths = []`` its models are predicted but not simulated.
    """

    activation: Texts
    weight_variance: Numbers
    bias_variance: Numbers = (0.0,)
    epsilon: Numbers | None = None
    residual_scale: Texts | None = None
    depth: Wholes | None = None
    total_time: Numbers | None = None
    block: Texts | None = None
    normalisation: Texts | None = None
    hidden_ratio: Numbers | None = None
    hidden_weight_variance: Numbers | None = None
    hidden_bias_variance: Numbers | None = None
    widths: Widths | None = None
    samples: Annotated[Whole, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> ModelGrid:
        if (self.depth is None) == (self.total_time is None):
            raise InputError(
                "one of two is needed",
                place="depth",
                remedy="give either depth (layers) or total_time (T = epsilon^2 depth), and not both",
            )
        return self

    @model_validator(mode="after")
    def _one_scale(self) -> ModelGrid:
        if (self.epsilon is None) == (self.residual_scale is None):
            raise InputError(
                "one of two is needed",
                place="epsilon",
                remedy="give either epsilon or residual_scale, such as '1/sqrt(L)', and not both",
            )
        if self.residual_scale is not None and self.depth is None:
            raise InputError("goes with depth", place="residual_scale", value=list(self.residual_scale))
        return self

    @model_validator(mode="after")
    def _hidden_goes_with_two_matrices(self) -> ModelGrid:
        given = [name for name in HIDDEN if getattr(self, name) is not None]
        if given and "two_matrix" not in (self.block or ()):
            raise InputError("belongs to block = 'two_matrix'", place=given[0], remedy="leave it out, or give block")
        return self

    @property
    def count(self) -> int:
        """Number of models in the grid."""
        scales = self.epsilon or self.residual_scale or ()
        axes = (self.activation, self.weight_variance, self.bias_variance, scales, self._lengths)
        return math.prod(map(len, axes)) * len(self._blocks())

    @property
    def _lengths(self) -> tuple[float, ...]:
        return self.depth or self.total_time or ()

    def _blocks(self) -> list[dict[str, Any]]:
        """The fields of each kind of block."""
        found: list[dict[str, Any]] = []
        for block in self.block or ("one_matrix",):
            of_block = OF_BLOCKS if block == "two_matrix" else ("normalisation",)
            axes = {name: getattr(self, name) for name in of_block if getattr(self, name) is not None}
            for values in itertools.product(*axes.values()):
                fields = dict(zip(axes, values, strict=True))
                found.append(
                    {"block": block, **{k: v for k, v in fields.items() if (k, v) != ("normalisation", "none")}}
                )
        return found

    def models(self) -> tuple[ResNet, ...]:
        """One model for each combination of values; the activation varies slowest."""
        scales = [{"epsilon": epsilon} for epsilon in self.epsilon or ()]
        rules = [{"residual_scale": rule} for rule in self.residual_scale or ()]
        return tuple(
            ResNet(
                activation=activation,
                weight_variance=weight_variance,
                bias_variance=bias_variance,
                depth=length if self.depth else whole_layers(length, scale["epsilon"]),
                **scale,
                **block,
            )
            for activation, weight_variance, bias_variance, scale, length, block in itertools.product(
                self.activation,
                self.weight_variance,
                self.bias_variance,
                [*scales, *rules],
                self._lengths,
                self._blocks(),
            )
        )


class TheoryChoice(Spec):
    """A closure with fields of eftcore.PredictionSpec."""

    name: Closure
    step: Literal["euler", "exact"] | None = None
    continuous: bool = False
    numerics: Numerics | None = Field(default=None, description="for this closure alone, in place of the study's")
    truncation: Annotated[Number, Field(gt=0)] | None = Field(
        default=None,
        description="with order = 'auto' and for 'exact': the largest relative error of V4 and K1 by what is left out",
    )
    next_order: bool = Field(default=False, description="for 'exact': also D, K2 and T, the next order in 1/n")

    @property
    def orders(self) -> tuple[int | Literal["auto"] | None, ...]:
        """All requested Wick orders; (None,) for a closure without an order."""
        return (None,)

    @model_validator(mode="after")
    def _one_order_at_least_can_be_raised(self) -> TheoryChoice:
        if self.truncation is not None and "auto" not in self.orders and self.name != "exact":
            raise InputError(
                "goes with order = 'auto' and name = 'exact'",
                place="truncation",
                value=self.truncation,
                remedy="leave it out otherwise",
            )
        return self

    def spec(self, order: int | Literal["auto"] | None, usual: Numerics, **configuration: Any) -> PredictionSpec:
        """The prediction of one configuration."""
        own: dict[str, Any] = {name: getattr(self, name) for name in ("step", "continuous", "next_order")}
        own["numerics"] = self.numerics or usual
        if order == "auto" or self.name == "exact":
            own["truncation"] = self.truncation
        return PredictionSpec(**configuration, **own, closure=self.name, order=order)


class Reference(TheoryChoice):
    """``reference``: the theory that every prediction is compared with, such as ``"exact"``."""

    order: Whole | Literal["auto"] | None = None

    @property
    def orders(self) -> tuple[int | Literal["auto"] | None, ...]:
        return (self.order,)


class ClosureChoice(TheoryChoice):
    """One entry of ``closures``; several orders make several predictions: ``{name = "wick", order = [8, 24]}``."""

    order: Annotated[tuple[Whole | Literal["auto"], ...], Field(min_length=1)] | None = None

    @field_validator("order", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list | tuple) else (value,)

    @property
    def orders(self) -> tuple[int | Literal["auto"] | None, ...]:
        return self.order or (None,)


def _named(choice: Any) -> Any:
    return {"name": choice} if isinstance(choice, str) else choice


class StudyFile(Spec):
    """Everything that a study file may say."""

    name: Annotated[Text, Field(pattern=rf"^{STUDY_NAME}$", max_length=80)]
    description: Text = ""
    widths: Widths = ()
    samples: Annotated[Whole, Field(ge=2, description="networks for each configuration and width")] | None = None
    precision: Precision | None = None
    seed: Annotated[Whole, Field(ge=0)] = 0
    estimator: Literal["plain", "paired"] = "paired"
    sampler: Literal["block", "weights"] = "block"
    dtype: Literal["float32", "float64"] = "float32"
    closures: Annotated[tuple[ClosureChoice, ...], Field(min_length=1)]
    reference: Annotated[Reference, BeforeValidator(_named)] | None = None
    tolerances: Annotated[tuple[Annotated[Number, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (0.01, 0.05, 0.10)
    recorded_depths: Whole | tuple[Whole, ...] = 100
    model: Annotated[tuple[ModelGrid, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    kernel: Annotated[tuple[KernelSection, ...], Field(min_length=1)]
    numerics: Numerics = Numerics()

    @field_validator("closures", mode="before")
    @classmethod
    def _names_are_choices(cls, value: Any) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        return [_named(item) for item in items]

    @field_validator("recorded_depths", mode="before")
    @classmethod
    def _some_layers(cls, value: Any) -> Any:
        many = isinstance(value, int) and (isinstance(value, bool) or not 1 <= value <= MOST_RECORDED)
        if many or value in ([], ()):
            raise InputError(
                "names no layers",
                remedy=f"give about how many layers, 1 to {MOST_RECORDED}, or a list of them, such as [0, 100]",
            )
        return value

    @field_validator("kernel", mode="before")
    @classmethod
    def _several_kernels(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise InputError(
                "must be a list, since there may be several kernels",
                remedy="write [[kernel]], with two brackets, in place of [kernel]",
            )
        return value

    @model_validator(mode="after")
    def _one_size(self) -> StudyFile:
        simulated = [bool(self.widths_of(grid)) for grid in self.model]
        given = (self.samples is not None) + (self.precision is not None)
        if given > 1 or (any(simulated) and not given):
            raise InputError(
                "one of two is needed",
                place="samples",
                remedy="give either samples (networks) or a [precision] section, and not both",
            )
        if self.reference is None and not all(simulated):
            raise InputError(
                "has no widths and there is no reference, so that nothing judges its closures",
                place=("model", simulated.index(False)) if len(self.model) > 1 else "model",
                remedy="give widths, such as [64], or reference = 'exact'",
            )
        return self

    def widths_of(self, grid: ModelGrid) -> tuple[int, ...]:
        """Widths at which a grid's models are simulated."""
        return self.widths if grid.widths is None else grid.widths

    def samples_of(self, grid: ModelGrid) -> int:
        """Networks in each simulation of a grid, or the largest number that may be used to reach a precision."""
        return grid.samples or self.samples or (self.precision.max_samples if self.precision else 0)

    def depths_of(self, model: ResNet) -> tuple[int, ...]:
        """Recorded layers: the list ``recorded_depths``, or about that many evenly spaced layers if it is a number."""
        if isinstance(self.recorded_depths, int):
            return default_depths(model.depth, self.recorded_depths)
        with within("recorded_depths"):
            return check_depths(self.recorded_depths, model.depth)
