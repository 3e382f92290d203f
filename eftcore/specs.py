"""What to compute: the network, the prediction and the ensemble as validated, frozen descriptions with a digest.

Time is ``t = epsilon**2 * layer`` throughout. Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, field_validator, model_validator

from eftcore.activations import get_activation
from eftcore.errors import InputError, within
from eftcore.identity import Spec, canonical_json, digest_of_json
from eftcore.inputs.fields import Finite, Label, Whole
from eftcore.inputs.kernel import InputKernel
from eftcore.inputs.sizes import DEEPEST, check_epsilon, check_result

ALGORITHM_VERSION = {"prediction": 5, "simulation": 4, "measurement": 1, "check": 1}
"""Bumped by hand whenever the same spec would give different numbers."""

QUANTILES_SINCE = 4
"""Version of simulations from which on they keep histograms of the kernel, from which its quantiles follow."""


def newest_version(algorithm: str) -> int:
    """The version of the results that this program computes.

    A measurement rests on predictions and simulations: its version is the sum of all three, so that it is superseded
    where any of them is.
    """
    parts = ("prediction", "simulation", "measurement") if algorithm == "measurement" else (algorithm,)
    return sum(ALGORITHM_VERSION[part] for part in parts)


CLOSURES = ("mean", "source_only", "g_only", "sigma", "wick", "particle", "exact")
Closure = Literal["mean", "source_only", "g_only", "sigma", "wick", "particle", "exact"]

CHAIN_CLOSURES = ("mean", "source_only", "g_only", "exact")
"""Closures of blocks with two matrices."""

NORMALISED_CLOSURES = ("mean", "source_only", "g_only", "wick", "exact")
"""Closures of blocks with one matrix behind a normalisation."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


Block = Literal["one_matrix", "two_matrix"]
Normalisation = Literal["rms", "layer"]

HIDDEN = ("hidden_ratio", "hidden_weight_variance", "hidden_bias_variance")
"""Fields of a network that only one with block = "two_matrix" has."""

OF_BLOCKS = ("normalisation", *HIDDEN)
"""Fields of a network that the block of the paper does not have."""

_RULE = re.compile(r"(?P<factor>[0-9.eE+-]+)\s*/\s*(?P<root>sqrt\(L\)|L)")


def epsilon_of_rule(rule: Any, depth: Any) -> float:
    """epsilon of a residual scale: a number, or a rule in the depth L as "1/sqrt(L)", "1/L" or "0.5/sqrt(L)".

    Raises InputError for another text.

    >>> epsilon_of_rule("1/sqrt(L)", 100), epsilon_of_rule("2 / L", 100), epsilon_of_rule(0.3, 100)
    (0.1, 0.02, 0.3)
    """
    if not isinstance(rule, str):
        return float(rule)
    try:
        return float(rule)
    except ValueError:
        match = _RULE.fullmatch(rule.strip())
    try:
        factor = float(match["factor"]) if match else 0.0
    except ValueError:
        factor = 0.0
    if match is None or factor <= 0:
        raise InputError("unknown rule", value=rule, remedy="a number, or for example '1/sqrt(L)' or '1/L'")
    return factor / (float(np.sqrt(depth)) if match["root"].startswith("sqrt") else float(depth))


class ResNet(Spec):
    """A pre-activation ResNet at initialisation, of layers l = 0 .. depth.

    The block of the paper has one matrix (eq. 1.1):

        phi^{l+1} = phi^l + epsilon (W sigma(phi^l) + b),  W_ij ~ N(0, weight_variance / n), b_i ~ N(0, bias_variance),

    or, behind a normalisation, sigma(norm(phi^l)) (eq. 11.14). block = "two_matrix" is the one of residual MLPs and of
    the MLP halves of transformers, with m = hidden_ratio n hidden neurons (eq. 11.1):

        phi^{l+1} = phi^l + epsilon (W_2 sigma(W_1 norm(phi^l) + b_1) + b_2),

    where weight_variance / m and bias_variance belong to W_2 and b_2, hidden_weight_variance / n and
    hidden_bias_variance to W_1 and b_1. norm is that of ``normalisation``: None, "rms" (phi_a / sqrt(G_aa)), or "layer"
    (the mean over neurons is subtracted first).

    ``residual_scale`` may be given in place of epsilon, as a number or as a rule in the depth: "1/sqrt(L)", "1/L" or
    "0.5/sqrt(L)".

    >>> ResNet(activation="tanh", weight_variance=2.0, epsilon=0.05, depth=800).total_time
    2.0
    >>> ResNet(block="two_matrix", activation="relu", weight_variance=2.0, depth=64, residual_scale="1/sqrt(L)").epsilon
    0.125
    """

    activation: str = Field(description="activation by name, with parameters as in 'softplus(beta=2)'")
    weight_variance: Finite = Field(gt=0, description="C_W, variance of the weights times the width")
    bias_variance: Finite = Field(default=0.0, ge=0, description="C_b, variance of the biases")
    epsilon: Finite = Field(gt=0, description="size of the residual branch")
    depth: Whole = Field(ge=1, le=DEEPEST, description="number of layers L")
    block: Block = Field(default="one_matrix", description="how many matrices a residual branch has")
    normalisation: Normalisation | None = Field(default=None, description="of the input of a branch")
    hidden_ratio: Finite = Field(default=1.0, gt=0, description="m / n, hidden neurons of a branch per neuron")
    hidden_weight_variance: Finite = Field(default=1.0, gt=0, description="C_1, variance of W_1 times the width")
    hidden_bias_variance: Finite = Field(default=0.0, ge=0, description="C_b1, variance of b_1")

    @model_validator(mode="before")
    @classmethod
    def _scale_of_the_branch(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "residual_scale" not in given:
            return given
        fields = {name: value for name, value in given.items() if name != "residual_scale"}
        if "epsilon" in fields:
            raise InputError(
                "does not go with epsilon", place="residual_scale", value=given["residual_scale"], remedy="give one"
            )
        with within("residual_scale"):
            return {**fields, "epsilon": epsilon_of_rule(given["residual_scale"], fields.get("depth", 1))}

    @model_validator(mode="after")
    def _hidden_goes_with_two_matrices(self) -> ResNet:
        if self.block == "one_matrix":
            for name in HIDDEN:
                value = getattr(self, name)
                if value != type(self).model_fields[name].default:
                    raise InputError(
                        "belongs to block = 'two_matrix'", place=name, value=value, remedy="leave it out, or give block"
                    )
        return self

    @field_validator("activation")
    @classmethod
    def _known_activation(cls, name: str) -> str:
        return get_activation(name).name

    @field_validator("epsilon")
    @classmethod
    def _square_is_a_number(cls, epsilon: float) -> float:
        return check_epsilon(epsilon)

    @property
    def total_time(self) -> float:
        """T = epsilon^2 L (eq. 1.2; rounded to 12 digits, so that 0.05^2 * 800 reads 2.0)."""
        return round(self.epsilon**2 * self.depth, 12)

    def hidden_width(self, width: int) -> int:
        """m, the hidden neurons of each branch of a network of ``width`` neurons; at least 1."""
        return max(1, round(self.hidden_ratio * width))

    @property
    def of_the_paper(self) -> bool:
        """Whether its block is that of the paper: one matrix, without normalisation."""
        return self.block == "one_matrix" and self.normalisation is None

    @property
    def closures(self) -> tuple[str, ...]:
        """The closures that there are for its block."""
        if self.block == "two_matrix":
            return CHAIN_CLOSURES
        return CLOSURES if self.of_the_paper else NORMALISED_CLOSURES

    def described(self) -> dict[str, Any]:
        """Its fields, JSON-able; of one matrix without those that say what other blocks are."""
        if self.block == "two_matrix":
            return self.model_dump(mode="json")
        return self.model_dump(mode="json", exclude={"block", *(OF_BLOCKS if self.of_the_paper else HIDDEN)})

    def identity(self) -> dict[str, Any]:
        # without what describes other blocks, so that digests from before there were these stay valid
        return {**self.described(), "activation": get_activation(self.activation).identity()}


def only_of_the_paper(model: ResNet) -> None:
    """Raises InputError for a network with two matrices in a block, or with a normalisation."""
    for field, value in (("block", model.block), ("normalisation", model.normalisation)):
        if value not in ("one_matrix", None):
            raise InputError("is about the block of the paper", place=("model", field), value=value)


class Numerics(Spec):
    """How the Gaussian integrals are done.

    "auto" uses closed forms where they exist and otherwise a rule that refines itself to ``rtol``.
    "gauss_hermite" with ``nodes`` is the fixed tensor rule of the published figures (32 nodes), kept to reproduce them.
    """

    quadrature: Literal["auto", "gauss_hermite"] = "auto"
    nodes: Whole | None = Field(default=None, ge=2, le=500, description="nodes per dimension, for gauss_hermite")
    rtol: Finite = Field(default=1e-9, gt=1e-15, lt=1, description="requested relative error")

    @model_validator(mode="after")
    def _nodes_go_with_gauss_hermite(self) -> Numerics:
        if (self.quadrature == "gauss_hermite") != (self.nodes is not None):
            raise InputError(
                "goes with quadrature = 'gauss_hermite', and only with it",
                place="nodes",
                value=self.nodes,
                remedy="for example nodes = 32",
            )
        return self


def default_depths(depth: int, count: int = 100) -> tuple[int, ...]:
    """About ``count`` recorded layers, evenly spaced, including 0 and ``depth``.

    >>> default_depths(800)[:3], len(default_depths(800)), default_depths(3)
    ((0, 8, 16), 101, (0, 1, 2, 3))
    """
    return tuple(int(layer) for layer in np.unique(np.round(np.linspace(0, depth, min(count, depth) + 1))))


def check_depths(depths: Iterable[int] | None, depth: int) -> tuple[int, ...]:
    """Recorded layers, sorted and unique; default_depths when None. Raises InputError for one outside 0 .. depth.

    The error has no place: the caller knows how the layers are called.
    """
    if depths is None:
        return default_depths(depth)
    given = tuple(depths)
    chosen = sorted(set(given))
    if set(map(type, chosen)) == {int} and chosen[0] >= 0 and chosen[-1] <= depth:
        return given if len(given) == len(chosen) and list(given) == chosen else tuple(chosen)
    if not chosen or any(isinstance(x, bool) or int(x) != x or not 0 <= x <= depth for x in chosen):
        raise InputError(f"must be whole layer numbers between 0 and depth = {depth}", value=list(given))
    return tuple(int(layer) for layer in chosen)


def _whole_numbers(given: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validated layers. Those that are whole numbers already, of which a study has many, need no further look."""
    return given if type(given) is tuple and set(map(type, given)) <= {int} else validate(given)


Layers = Annotated[tuple[Whole, ...], WrapValidator(_whole_numbers)]


class _Recorded(Spec):
    algorithm: ClassVar[str]
    result: ClassVar[str]

    model: ResNet
    kernel: InputKernel
    depths: Layers | None = None
    version: Whole = Field(
        default=0, validate_default=True, ge=0, description="version of the algorithm; 0 stands for the present one"
    )

    @field_validator("version")
    @classmethod
    def _known_version(cls, version: int) -> int:
        newest = newest_version(cls.algorithm)
        if version > newest:
            raise InputError(f"this program knows 1 to {newest}", remedy="update the program")
        return version or newest

    @model_validator(mode="after")
    def _normalised_inputs(self) -> _Recorded:
        if self.model.normalisation is not None and not np.diag(self.kernel.array).all():
            raise InputError("an input that is 0 cannot be normalised", place="kernel", remedy="leave it out")
        return self

    @model_validator(mode="after")
    def _depths_within(self) -> _Recorded:
        with within("depths"):
            depths = check_depths(self.depths, self.model.depth)
        shape = {"depth": self.model.depth, "recorded": len(depths), "n_inputs": self.kernel.n_inputs}
        check_result(**shape, covariance=self.has_covariance)
        object.__setattr__(self, "depths", depths)
        return self

    @property
    def has_covariance(self) -> bool:
        """Whether V4 is part of the result."""
        return True

    @property
    def time(self) -> np.ndarray:
        """(R,) t = epsilon^2 * recorded layer."""
        assert self.depths is not None
        return self.model.epsilon**2 * np.array(self.depths, dtype=float)

    def identity(self) -> dict[str, Any]:
        own = self.model_dump(mode="json", exclude={"model", "kernel", "version"})
        return {**own, "model": self.model.identity(), "kernel": self.kernel.identity()}

    def of_same_network(self, other: _Recorded) -> bool:
        """Whether both describe the same model and the same inputs."""
        return (self.model, self.kernel.matrix) == (other.model, other.kernel.matrix)

    @property
    def superseded(self) -> bool:
        """Whether this describes a result of an older version of the algorithm, which this program cannot compute."""
        return self.version < newest_version(self.algorithm)

    def of_version(self, version: int) -> Self:
        """This spec for another version of the algorithm, whose result has another digest.

        >>> spec = PredictionSpec(model=ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=1),
        ...                       kernel=InputKernel.explicit([[1.0]]))
        >>> older = spec.of_version(1)
        >>> older.superseded, older.digest == spec.digest, older.of_version(spec.version).digest == spec.digest
        (True, False, True)
        """
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | {"version": version})

    def older_digests(self) -> Iterator[tuple[int, str]]:
        """The older versions of the algorithm, the newest first, each with the digest that it would have."""
        described = canonical_json(self.identity())
        for version in range(self.version - 1, 0, -1):
            yield version, self._digest(described, version)

    def _digest(self, described: str, version: int) -> str:
        """The digest, from the canonical JSON of what is described."""
        return digest_of_json(f'{{"{self.result}":{described},"version":{version}}}')


def usual_step(closure: str) -> Literal["euler", "exact"]:
    """The step by which a closure goes from layer to layer unless the caller chooses one."""
    return "exact" if closure in ("wick", "particle", "exact") else "euler"


class PredictionSpec(_Recorded):
    """One theory prediction.

    ``order`` belongs to the wick closure alone: the highest Wick order, or "auto" to raise it until V4 and K1 change by
    less than ``truncation`` (relative), which the exact closure has too. ``step`` is "euler", forward Euler in t as in
    the paper, or "exact", every power of epsilon; default: "exact" for wick and exact, else "euler". ``continuous``
    takes the limit epsilon -> 0 at fixed t instead of stepping layer by layer. ``next_order`` adds D, K2 and the third
    cumulant to the exact closure.
    """

    algorithm: ClassVar[str] = "prediction"
    result: ClassVar[str] = "prediction"

    closure: Closure = "g_only"
    order: Whole | Literal["auto"] | None = None
    truncation: Finite | None = Field(default=None, gt=0, lt=1)
    step: Literal["euler", "exact"] | None = None
    continuous: bool = False
    next_order: bool = False
    numerics: Numerics = Numerics()

    @model_validator(mode="after")
    def _closure_of_the_block(self) -> PredictionSpec:
        closures = self.model.closures
        if self.closure not in closures:
            chain = self.model.block == "two_matrix"
            raise InputError(
                "is not needed for block = 'two_matrix', whose G-only hierarchy is exact"
                if chain
                else "is there without normalisation only",
                place="closure",
                value=self.closure,
                remedy=f"take one of {', '.join(closures)}",
            )
        return self

    @model_validator(mode="after")
    def _order_goes_with_wick(self) -> PredictionSpec:
        if self.closure == "wick" and self.order is None:
            object.__setattr__(self, "order", 24)
        if self.closure != "wick" and self.order is not None:
            raise InputError(
                "belongs to closure = 'wick'",
                place="order",
                value=self.order,
                remedy=f"leave it out for {self.closure!r}",
            )
        if isinstance(self.order, int) and not 2 <= self.order <= 120:
            raise InputError("must lie between 2 and 120, or be 'auto'", place="order", value=self.order)
        truncated = self.order == "auto" or self.closure == "exact"
        if self.truncation is not None and not truncated:
            raise InputError(
                "goes with order = 'auto' and closure = 'exact'",
                place="truncation",
                value=self.truncation,
                remedy="leave it out otherwise",
            )
        if truncated and self.truncation is None:
            object.__setattr__(self, "truncation", 1e-3)
        if self.closure == "exact" and self.step == "euler":
            raise InputError(
                "leaves out powers of epsilon",
                place="step",
                value=self.step,
                remedy="leave it out for closure = 'exact'",
            )
        if self.closure == "exact" and self.numerics.quadrature == "gauss_hermite":
            raise InputError(
                "is not exact with a fixed rule",
                place="closure",
                value=self.closure,
                remedy="leave out numerics.quadrature",
            )
        if self.next_order and self.closure != "exact":
            raise InputError(
                "belongs to closure = 'exact'",
                place="next_order",
                value=True,
                remedy=f"leave it out for {self.closure!r}",
            )
        if self.closure == "particle" and (self.continuous or self.step == "euler"):
            raise InputError(
                "follows the network layer by layer",
                place="closure",
                value=self.closure,
                remedy="leave out continuous and step",
            )
        if self.continuous and self.step is not None:
            raise InputError("does not go with continuous = true", place="step", value=self.step, remedy="leave it out")
        if not self.continuous and self.step is None:
            object.__setattr__(self, "step", usual_step(self.closure))
        return self

    @property
    def has_covariance(self) -> bool:
        return self.closure != "mean"

    def identity(self) -> dict[str, Any]:
        own = super().identity()
        # digests from before this field existed stay valid
        return own if self.next_order else {name: value for name, value in own.items() if name != "next_order"}

    @cached_property
    def digest(self) -> str:
        """Identity of the prediction."""
        return self._digest(canonical_json(self.identity()), self.version)


class EnsembleSpec(_Recorded):
    """One ensemble of networks of one width. The number of networks is not part of it: shards are added up."""

    algorithm: ClassVar[str] = "simulation"
    result: ClassVar[str] = "ensemble"

    width: Whole = Field(ge=1, le=1_000_000, description="neurons n")
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    estimator: Literal["plain", "paired"] = "paired"
    sampler: Literal["block", "weights"] = "block"
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _network_of_this_width(self) -> EnsembleSpec:
        model = self.model
        hidden = model.hidden_ratio * self.width
        if abs(hidden - model.hidden_width(self.width)) > 1e-9 * hidden:
            raise InputError(
                f"times {model.hidden_ratio:g} it is no whole number of hidden neurons",
                place="width",
                value=self.width,
                remedy="take another width, or hidden_ratio = m / n",
            )
        if model.normalisation == "layer" and self.width < 2:
            raise InputError("layer normalisation needs two neurons", place="width", value=self.width)
        if model.block == "two_matrix" and (self.sampler, self.estimator) == ("weights", "paired"):
            raise InputError(
                "has no twin with weights of two matrices",
                place="estimator",
                value=self.estimator,
                remedy="take estimator = 'plain', or sampler = 'block'",
            )
        return self

    @cached_property
    def digest(self) -> str:
        """Identity of the ensemble; with a shard index it fixes the random stream."""
        return self._digest(canonical_json(self.identity()), self.version)


class MeasurementSpec(_Recorded):
    """One measurement of the next order in 1/n, from samples of one network at several widths (eq. 10.10).

    ``exact`` is the digest of the prediction of the leading order; ``samples`` has the width, the number of networks
    and the digest of each sample, sorted. ``version`` counts those of its parts too, see ``newest_version``.
    """

    algorithm: ClassVar[str] = "measurement"
    result: ClassVar[str] = "measurement"

    exact: Digest
    samples: tuple[tuple[Whole, Whole, Digest], ...]

    @field_validator("samples")
    @classmethod
    def _several_widths(cls, samples: tuple[tuple[int, int, str], ...]) -> tuple[tuple[int, int, str], ...]:
        widths = [width for width, _, _ in samples]
        if len(set(widths)) < 2:
            raise InputError("two different widths are needed at least", value=widths)
        return tuple(sorted(samples))

    @classmethod
    def of(cls, exact: PredictionSpec, samples: Iterable[tuple[EnsembleSpec, int, str]]) -> MeasurementSpec:
        """The measurement from a prediction and samples, each given by its ensemble, number of networks and digest.

        Raises InputError unless they are of one network, with the same inputs and recorded layers, at two widths.
        """
        samples = list(samples)
        for ensemble, _, _ in samples:
            if not ensemble.of_same_network(exact) or ensemble.depths != exact.depths:
                raise InputError("are of another network, other inputs or other layers than exact", place="samples")
        oldest = min((ensemble.version for ensemble, _, _ in samples), default=0)
        return cls(
            model=exact.model,
            kernel=exact.kernel,
            depths=exact.depths,
            version=ALGORITHM_VERSION[cls.algorithm] + exact.version + oldest,
            exact=exact.digest,
            samples=tuple((ensemble.width, networks, digest) for ensemble, networks, digest in samples),
        )

    @property
    def widths(self) -> list[int]:
        """The widths of the samples, without repetition."""
        return sorted({width for width, _, _ in self.samples})

    @property
    def networks(self) -> int:
        """Number of networks of all samples together."""
        return sum(networks for _, networks, _ in self.samples)

    @cached_property
    def digest(self) -> str:
        """Identity of the measurement."""
        return self._digest(canonical_json(self.identity()), self.version)


class CheckSpec(_Recorded):
    """One check of a user's torch module, whose kernels were measured at initialisation (section 12 of docs/theory.md).

    ``model`` is the network that the module was compared with, ``kernel`` the mean kernel before its first block. What
    was found is part of it, as ``kernels_digest``: code that the module imports may change without a trace elsewhere.
    """

    algorithm: ClassVar[str] = "check"
    result: ClassVar[str] = "check"

    width: Whole = Field(ge=1, description="neurons n of the stream")
    networks: Whole = Field(ge=2, description="initialisations")
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    dtype: Literal["float32", "float64"] = "float32"
    train: bool = False
    feature_axis: int = -1
    positions: Literal["average", "separate"] | None = None
    module: Label = Field(description="class of the module")
    module_digest: Digest
    factory: Label | None = None
    factory_digest: Digest | None = None
    inputs_digest: Digest
    guessed: bool = Field(default=False, description="whether the network was found and not given")
    kernels_digest: Digest

    @property
    def has_covariance(self) -> bool:
        # averages over positions fluctuate less than the kernel of one
        return self.positions != "average"

    @cached_property
    def digest(self) -> str:
        """Identity of the check."""
        return self._digest(canonical_json(self.identity()), self.version)


AnySpec = PredictionSpec | EnsembleSpec | MeasurementSpec
"""What a run of a study computes."""
