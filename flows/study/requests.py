"""Parameters of flows, as validated models: Prefect's pages show them as forms, and wrong values are refused first."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from eftcore.activations import activation_names
from eftcore.errors import InputError, input_error
from eftcore.identity import Spec, digest_of
from eftcore.inputs.kernel import InputKernel
from eftcore.inputs.layers import whole_layers
from eftcore.precision import Precision
from eftcore.specs import OF_BLOCKS, Block, Closure, Normalisation, ResNet
from eftcore.words import network_text
from flows.study.expansion import Study, expand_study, find_study, load_study
from flows.study.kernels import Number, Whole


def _told(given: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(given)
    except ValidationError as error:
        told = [PydanticCustomError("input", "{line}", {"line": each.line}) for each in input_error(error, given).each]
        lines = [InitErrorDetails(type=each, input=given) for each in told]
        raise ValidationError.from_exception_data("request", lines) from None


Checked = WrapValidator(_told)
"""Annotation of a flow's parameter: Prefect then says in our words, and not in pydantic's, what is wrong with it."""


class Resources(Spec):
    """The device, task runner and workers for a study. Results depend on them only by the rounding of the device."""

    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="where to simulate")] = "auto"
    runner: Annotated[
        Literal["threads", "processes", "dask"],
        Field(description="who computes: threads of this process, processes of this machine, or a Dask cluster"),
    ] = "threads"
    workers: Annotated[
        Whole | None, Field(ge=1, description="tasks at a time; as many as there are processors when left out")
    ] = None
    dask_address: Annotated[
        str | None,
        Field(
            description="a running Dask scheduler, as tcp://host:8786; else a cluster on this machine",
        ),
    ] = None
    task_timeout: Annotated[
        Number | None, Field(gt=0, description="seconds after which a single prediction or shard counts as failed")
    ] = None

    @model_validator(mode="after")
    def _one_cluster(self) -> Resources:
        if self.dask_address is not None and self.runner != "dask":
            raise InputError(
                f"goes with runner = 'dask', not {self.runner!r}", place="dask_address", value=self.dask_address
            )
        if self.dask_address is not None and self.workers is not None:
            raise InputError(
                "a running Dask cluster has its own",
                place="workers",
                value=self.workers,
                remedy="leave workers out with dask_address",
            )
        return self


DEFAULT = Resources()


Renew = Annotated[
    bool,
    Field(description="compute anew what an older version of an algorithm made; else its results count as done"),
]


class StudyRequest(Spec):
    """The request to run a study."""

    study: Annotated[
        str,
        Field(
            pattern=r"^[^\x00-\x1f\x7f]+$", description="a bundled study (quick, digits) or the path of a study file"
        ),
    ]
    renew: Renew = False

    @model_validator(mode="after")
    def _loads(self) -> StudyRequest:
        _ = self._study  # a file that is wrong is refused with the request
        return self

    @property
    def title(self) -> str:
        """Name of the flow run."""
        return Path(self.study).stem

    @cached_property
    def _study(self) -> Study:
        return load_study(find_study(self.study))

    def plan(self) -> Study:
        """The study, expanded; the file is read once."""
        return self._study


class TopUpRequest(StudyRequest):
    """The request to enlarge a study's simulations to a number of networks or a precision. Finished shards are kept."""

    samples: Annotated[Whole | None, Field(ge=2, description="networks for each simulation; fewer change nothing")] = (
        None
    )
    precision: Annotated[Precision | None, Field(description="instead of samples: how precise to become")] = None

    @model_validator(mode="after")
    def _one_aim(self) -> TopUpRequest:
        if (self.samples is None) == (self.precision is None):
            raise InputError(
                "one of two is needed",
                place="samples",
                remedy="give either samples (networks) or precision, and not both",
            )
        return self

    def plan(self) -> Study:
        """The study with larger simulations."""
        return self._study.topped_up(samples=self.samples, precision=self.precision)


def _known_names(schema: dict[str, Any]) -> None:
    """Add to the form's schema the names of all registered activations, with or without parameters."""
    names = "|".join(map(re.escape, activation_names()))
    parameter = r"\s*\w+\s*=\s*[-+.0-9eE]+\s*"
    schema["pattern"] = rf"^\s*({names})\s*(\(({parameter}(,{parameter})*)?\))?\s*$"


class ModelRequest(Spec):
    """A network and its inputs."""

    activation: Annotated[
        str,
        Field(
            description="tanh, erf, relu, gelu, ...; with a parameter as softplus(beta=2)",
            json_schema_extra=_known_names,
        ),
    ]
    weight_variance: Annotated[Number, Field(gt=0, description="C_W")] = 2.0
    bias_variance: Annotated[Number, Field(ge=0, description="C_b")] = 0.0
    block: Annotated[Block, Field(description="matrices in a residual branch")] = "one_matrix"
    normalisation: Annotated[Normalisation | None, Field(description="before the first of two matrices")] = None
    hidden_ratio: Annotated[Number, Field(gt=0, description="m / n of two matrices")] = 1.0
    hidden_weight_variance: Annotated[Number, Field(gt=0, description="C_1 of the first of two matrices")] = 1.0
    hidden_bias_variance: Annotated[Number, Field(ge=0, description="C_b1 of the hidden neurons")] = 0.0
    epsilon: Annotated[Number, Field(gt=0, description="size of the residual branch")] = 0.1
    total_time: Annotated[Number, Field(gt=0, description="T = epsilon^2 layers, which must come out whole")] = 2.0
    n_inputs: Annotated[Whole, Field(ge=1, description="equicorrelated inputs N")] = 2
    variance: Annotated[Number, Field(gt=0, description="their variance")] = 2.0
    correlation: Annotated[Number, Field(ge=-1, le=1, description="their correlation")] = 0.3

    @model_validator(mode="after")
    def _exists(self) -> ModelRequest:
        self.model()
        self.kernel()
        return self

    @property
    def title(self) -> str:
        """Name of the flow run."""
        return (
            f"{network_text(self.model())}, C_W={self.weight_variance:g}, C_b={self.bias_variance:g},"
            f" eps={self.epsilon:g}, T={self.total_time:g}, N={self.n_inputs}, K={self.variance:g},"
            f" rho={self.correlation:g}"
        )

    def model(self) -> ResNet:
        """The network. Raises InputError."""
        shared = {name: getattr(self, name) for name in ResNet.model_fields if name != "depth"}
        return ResNet(**shared, depth=whole_layers(self.total_time, self.epsilon))

    def kernel(self) -> InputKernel:
        """Its inputs. Raises InputError."""
        return InputKernel.equicorrelated(n_inputs=self.n_inputs, variance=self.variance, correlation=self.correlation)


class ConfigurationRequest(ModelRequest):
    """One network at one width, its inputs, and the closures to compare with its simulation."""

    width: Annotated[Whole, Field(ge=1, le=1_000_000, description="neurons n of a layer")] = 64
    samples: Annotated[Whole, Field(ge=2, description="networks to simulate")] = 4000
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    estimator: Literal["plain", "paired"] = "paired"
    closures: Annotated[tuple[Closure, ...], Field(min_length=1)] = ("mean", "source_only", "g_only")
    tolerances: Annotated[tuple[Annotated[Number, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (0.01, 0.05, 0.1)
    renew: Renew = False

    @model_validator(mode="after")
    def _expands(self) -> ConfigurationRequest:
        self.plan()
        return self

    def plan(self) -> Study:
        """A study of this configuration alone. Raises InputError."""
        names = ("activation", "weight_variance", "bias_variance", "epsilon", "total_time")
        inputs = {name: getattr(self, name) for name in ("n_inputs", "variance", "correlation")}
        drawn = {name: getattr(self, name) for name in ("samples", "seed", "estimator", "closures", "tolerances")}
        content: dict[str, Any] = {
            **drawn,
            "name": "configuration",
            "widths": self.width,
            "model": {name: getattr(self, name) for name in names} | self._branch(),
            "kernel": [{"kind": "equicorrelated", **inputs}],
        }
        digest = digest_of(content)
        return expand_study({**content, "name": f"configuration-{digest[:8]}"})

    def _branch(self) -> dict[str, Any]:
        """The fields of a study file that say what a branch is, where it is not that of the paper."""
        block = {} if self.block == "one_matrix" else {"block": self.block}
        own = ("normalisation",) if self.block == "one_matrix" else OF_BLOCKS
        return block | {name: getattr(self, name) for name in own if getattr(self, name) is not None}


class TheoremRequest(ModelRequest):
    """A network on which to check the exact statements of the theory, which hold at any width."""

    width: Annotated[Whole, Field(ge=1, le=1_000_000, description="neurons n of a layer")] = 16
    samples: Annotated[Whole, Field(ge=2, description="networks in each statistical check")] = 4000
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
