"""Study files: TOML, validated before anything runs, expanded to the work that they ask for.

A study is a grid of models and input kernels. Each pair is predicted by every closure, simulated at every width, and
each prediction is compared with each simulation and with the reference theory, if there is one. Either may be missing.
Work that two grid points share is done once: identity is the digest.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from eftcore.ensemble.sample import Shards, sample_digest
from eftcore.ensemble.shards import first_round, shards_of
from eftcore.errors import InputError
from eftcore.sizes import DEEPEST, EPSILON, MOST_RECORDED
from eftcore.specs import (
    STUDY_NAME,
    Closure,
    EnsembleSpec,
    InputKernel,
    Numerics,
    Precision,
    PredictionSpec,
    ResNet,
    default_depths,
    describe_validation_error,
    digest_of,
)
from flows import sizes
from flows.inputs import KernelSection, Number, Numbers, Section, Text, Texts, Whole, Wholes, as_tuple

Widths = Annotated[tuple[Annotated[Whole, Field(ge=1, le=1_000_000)], ...], BeforeValidator(as_tuple)]
"""Widths to simulate; none of them is an answer too."""


LARGEST_FILE = 10_000_000
"""Bytes of a study file."""


class ModelGrid(Section):
    """``[model]``: fields of eftcore.ResNet, each one value or a list; depth or total_time (T = epsilon^2 depth).

    ``[[model]]`` sections, one after the other, add their grids up; each may have widths and samples of its own.
    ``widths = []`` simulates nothing, so that a few models of many are simulated.
    """

    activation: Texts
    weight_variance: Numbers
    bias_variance: Numbers = (0.0,)
    epsilon: Numbers
    depth: Wholes | None = None
    total_time: Numbers | None = None
    widths: Widths | None = None
    samples: Annotated[Whole, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> ModelGrid:
        if (self.depth is None) == (self.total_time is None):
            raise ValueError("give either depth (layers) or total_time (T = epsilon^2 depth), and not both")
        return self

    @property
    def count(self) -> int:
        """How many models there are."""
        axes = (self.activation, self.weight_variance, self.bias_variance, self.epsilon, self._lengths)
        return math.prod(map(len, axes))

    @property
    def _lengths(self) -> tuple[float, ...]:
        return self.depth or self.total_time or ()

    def models(self) -> tuple[ResNet, ...]:
        """One model for each combination, activation slowest."""
        return tuple(
            ResNet(
                activation=activation,
                weight_variance=weight_variance,
                bias_variance=bias_variance,
                epsilon=epsilon,
                depth=length if self.depth else layers_for(length, epsilon),
            )
            for activation, weight_variance, bias_variance, epsilon, length in itertools.product(
                self.activation, self.weight_variance, self.bias_variance, self.epsilon, self._lengths
            )
        )


class TheoryChoice(Section):
    """A closure with fields of eftcore.PredictionSpec."""

    name: Closure
    step: Literal["euler", "exact"] | None = None
    continuous: bool = False
    numerics: Numerics | None = Field(default=None, description="for this closure alone, in place of the study's")

    def spec(self, order: int | Literal["auto"] | None, usual: Numerics, **configuration: Any) -> PredictionSpec:
        """The prediction of one configuration."""
        own = {"step": self.step, "continuous": self.continuous, "numerics": self.numerics or usual}
        return PredictionSpec(**configuration, **own, closure=self.name, order=order)


class Reference(TheoryChoice):
    """``reference``: the theory that every prediction is compared with, such as ``{name = "wick", order = "auto"}``."""

    order: Whole | Literal["auto"] | None = None


class ClosureChoice(TheoryChoice):
    """One entry of ``closures``; several orders make several predictions: ``{name = "wick", order = [8, 24]}``."""

    order: Annotated[tuple[Whole | Literal["auto"], ...], Field(min_length=1)] | None = None

    @field_validator("order", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list | tuple) else (value,)


def _named(choice: Any) -> Any:
    return {"name": choice} if isinstance(choice, str) else choice


class StudyFile(Section):
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
            raise ValueError(f"give about how many layers, 1 to {MOST_RECORDED}, or a list of them, such as [0, 100]")
        return value

    @field_validator("kernel", mode="before")
    @classmethod
    def _several_kernels(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise ValueError("there may be several kernels: write [[kernel]], with two brackets, in place of [kernel]")
        return value

    @model_validator(mode="after")
    def _one_size(self) -> StudyFile:
        simulated = [bool(self.widths_of(grid)) for grid in self.model]
        given = (self.samples is not None) + (self.precision is not None)
        if given > 1 or (any(simulated) and not given):
            raise ValueError("give either samples (networks) or a [precision] section, and not both")
        if self.reference is None and not all(simulated):
            raise ValueError(
                f"[model] number {simulated.index(False) + 1} has no widths and there is no reference, so that nothing "
                "judges its closures; give widths, such as [64], or reference = { name = 'wick', order = 'auto' }"
            )
        return self

    def widths_of(self, grid: ModelGrid) -> tuple[int, ...]:
        """Widths at which a grid's models are simulated."""
        return self.widths if grid.widths is None else grid.widths

    def samples_of(self, grid: ModelGrid) -> int:
        """Networks of each of a grid's simulations, or the most that a precision may take."""
        return grid.samples or self.samples or (self.precision.max_samples if self.precision else 0)

    def depths_of(self, model: ResNet) -> tuple[int, ...]:
        """Recorded layers: ``recorded_depths`` as a list of layers, or about that many evenly spaced ones."""
        if isinstance(self.recorded_depths, int):
            return default_depths(model.depth, self.recorded_depths)
        return self.recorded_depths


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """An ensemble and what the study wants of it: so many networks, or a precision."""

    spec: EnsembleSpec
    samples: int | None = None
    precision: Precision | None = None

    @property
    def first_round(self) -> Shards:
        """(shard index, networks) to begin with: all of them, unless a precision decides how many follow."""
        if self.precision is not None:
            return first_round(self.spec, self.precision)
        return self.all_shards

    @property
    def all_shards(self) -> Shards:
        """(shard index, networks) of every shard, up to the cap where a precision is wanted."""
        return shards_of(self.spec, self.networks)

    @property
    def networks(self) -> int:
        """Networks wanted, or the most that a precision may take."""
        networks = self.samples if self.precision is None else self.precision.max_samples
        assert networks is not None
        return networks

    @property
    def size(self) -> sizes.Size:
        """What its costs follow from."""
        return sizes.Size(self.networks, self.spec.model.depth, self.spec.width, self.spec.kernel.n_inputs)

    @property
    def digest(self) -> str:
        """Identity of what is wanted; where that is a number of networks, the digest of the sample itself."""
        if self.precision is None:
            return sample_digest(self.spec, self.all_shards)
        return digest_of({"ensemble": self.spec.digest, "precision": self.precision.identity()})

    def identity(self) -> Any:
        """What is wanted, JSON-able."""
        return self.samples if self.precision is None else self.precision.identity()


@dataclass(frozen=True, kw_only=True)
class Study:
    """A validated study with its work, deduplicated, in the order of the file.

    Attributes:
        predictions: by digest.
        simulations: by ensemble digest.
        comparisons: (prediction digest, ensemble digest).
        theory_comparisons: (prediction digest, digest of the reference, which is one of the predictions).
        spec: the study as plain JSON-able values, for the record.
    """

    name: str
    predictions: dict[str, PredictionSpec]
    simulations: dict[str, Simulation]
    comparisons: tuple[tuple[str, str], ...]
    theory_comparisons: tuple[tuple[str, str], ...]
    tolerances: tuple[float, ...]
    spec: dict[str, Any]

    @property
    def digest(self) -> str:
        """Identity of the study: its name and its work, not where its files lie."""
        work: dict[str, Any] = {
            "study": self.name,
            "simulations": {digest: item.identity() for digest, item in self.simulations.items()},
            "comparisons": sorted(self.comparisons),
            "tolerances": sorted(self.tolerances),
        }
        if self.theory_comparisons:
            work["theory_comparisons"] = sorted(self.theory_comparisons)
        return digest_of(work)

    @cached_property
    def references(self) -> dict[str, list[str]]:
        """The predictions held against each reference theory."""
        return _by_reference(self.theory_comparisons)

    @cached_property
    def compared(self) -> dict[str, list[str]]:
        """The predictions held against each simulation that has any."""
        return _by_reference(self.comparisons)

    @property
    def superseded(self) -> int:
        """How many of its predictions and simulations an older version of their algorithm made."""
        made = (*self.predictions.values(), *(item.spec for item in self.simulations.values()))
        return sum(spec.superseded for spec in made)

    @property
    def record(self) -> dict[str, Any]:
        """What the database keeps of the study itself."""
        return {"name": self.name, "digest": self.digest, "spec": self.spec}

    def topped_up(self, *, samples: int | None = None, precision: Precision | None = None) -> Study:
        """The same study with larger simulations: at least so many networks, or as many as a precision needs.

        Its simulations of a given number of networks never shrink. Raises InputError where there are none.
        """
        if not self.simulations:
            raise InputError(f"study {self.name} simulates nothing, so nothing becomes larger; give it widths")
        simulations = {}
        for digest, item in self.simulations.items():
            networks = samples if samples is None or item.samples is None else max(samples, item.samples)
            simulations[digest] = Simulation(spec=item.spec, samples=networks, precision=precision)
        sizes.refuse_too_many_shards(Counter(item.size for item in simulations.values()))
        aim = {"samples": samples} if precision is None else {"precision": precision.model_dump(mode="json")}
        kept = {name: value for name, value in self.spec.items() if name not in ("samples", "precision")}
        return replace(self, simulations=simulations, spec={**kept, **aim})


def _by_reference(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for prediction, reference in pairs:
        found.setdefault(reference, []).append(prediction)
    return found


def bundled_studies() -> dict[str, Path]:
    """The study files that come with the project, by name."""
    here = Path(__file__).parent
    inside_wheel = here / "_studies"
    folder = inside_wheel if inside_wheel.is_dir() else here.parent / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_study(name_or_path: str) -> Path:
    """A bundled study by name, or any study file by path. Raises InputError when there is neither."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    bundled = bundled_studies()
    if name_or_path in bundled:
        return bundled[name_or_path]
    raise InputError(
        f"study = {name_or_path!r}: no such file or bundled study; give a path, or one of: {', '.join(bundled)}"
    )


def load_study(path: Path) -> Study:
    """Read, validate and expand a study file. Raises InputError naming file, field, value and remedy."""
    try:
        with path.open("rb") as file:
            written = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if len(written) > LARGEST_FILE:
        raise InputError(f"{path}: is larger than {LARGEST_FILE / 1e6:g} MB; is it the study file that was meant?")
    try:
        content = tomllib.loads(written.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path}: is not valid TOML (nested too deeply); correct the file there") from None
    except ValueError as error:  # of the parser, and of Python for a number of more digits than it reads
        raise InputError(f"{path}: is not valid TOML ({error}); correct the file there") from None
    try:
        return expand_study(content, folder=path.parent)
    except InputError as error:
        lines = str(error).splitlines()
        raise InputError("\n".join(f"{path}: {line}" for line in lines)) from None


def expand_study(content: dict[str, Any], *, folder: Path = Path()) -> Study:
    """The work of a study given as plain values; ``folder`` is where relative data paths start."""
    try:
        file = StudyFile.model_validate(content)
    except ValidationError as error:
        raise InputError(describe_validation_error("study", error)) from None
    sizes.refuse_too_many_tasks(file)
    grids = [(grid, model) for grid in file.model for model in _in_section("[model]", grid.models)]
    sizes.refuse_too_large(file, grids)
    kernels: dict[str, InputKernel] = {}
    for position, section in enumerate(file.kernel, start=1):
        for kernel in _in_section(f"[[kernel]] number {position}", lambda section=section: section.kernels(folder)):
            kernels.setdefault(digest_of(kernel.identity()), kernel)

    predictions: dict[str, PredictionSpec] = {}
    simulations: dict[str, Simulation] = {}
    comparisons: dict[tuple[str, str], None] = {}
    theory_comparisons: dict[tuple[str, str], None] = {}
    for (grid, model), kernel in itertools.product(grids, kernels.values()):
        shared = {"model": model, "kernel": kernel, "depths": file.depths_of(model)}
        theories = [
            choice.spec(order, file.numerics, **shared) for choice in file.closures for order in choice.order or (None,)
        ]
        drawn = {name: getattr(file, name) for name in ("seed", "estimator", "sampler", "dtype")}
        ensembles = [EnsembleSpec(**shared, width=width, **drawn) for width in file.widths_of(grid)]
        samples = grid.samples or file.samples
        predictions.update((theory.digest, theory) for theory in theories)
        if file.reference is not None:
            reference = file.reference.spec(file.reference.order, file.numerics, **shared)
            judged = [theory.digest for theory in theories if theory.digest != reference.digest]
            if not judged and not ensembles:
                raise InputError(
                    "study: closures: the reference is the only theory, so that there is nothing to compare;"
                    " add a closure, such as 'g_only'"
                )
            predictions[reference.digest] = reference
            theory_comparisons.update(dict.fromkeys((digest, reference.digest) for digest in judged))
        for spec in ensembles:
            wanted = Simulation(spec=spec, samples=samples, precision=None if grid.samples else file.precision)
            before = simulations.get(spec.digest)
            simulations[spec.digest] = before if before and before.networks >= wanted.networks else wanted
        comparisons.update(dict.fromkeys((p.digest, e.digest) for p, e in itertools.product(theories, ensembles)))
    return Study(
        name=file.name,
        predictions=predictions,
        simulations=simulations,
        comparisons=tuple(comparisons),
        theory_comparisons=tuple(theory_comparisons),
        tolerances=file.tolerances,
        spec=file.model_dump(mode="json", exclude_none=True),
    )


def layers_for(total_time: float, epsilon: float) -> int:
    """L = T / epsilon^2, which must be whole.

    >>> layers_for(2.0, 0.1)
    200
    """
    if not epsilon > 0 or not total_time > 0:
        raise InputError(f"total_time = {total_time}, epsilon = {epsilon}: both must be greater than 0")
    if not EPSILON[0] <= epsilon <= EPSILON[1]:
        raise InputError(f"epsilon = {epsilon}: must lie between {EPSILON[0]:g} and {EPSILON[1]:g}")
    layers = total_time / epsilon**2
    if not layers <= DEEPEST:
        raise InputError(
            f"total_time = {total_time}: with epsilon = {epsilon} it takes {layers:.3g} layers, more than the {DEEPEST}"
            " of a network; give a shorter time or a larger epsilon"
        )
    whole = max(1, round(layers))
    if abs(layers - whole) > 1e-9 * whole:
        raise InputError(
            f"total_time = {total_time}: with epsilon = {epsilon} it takes {layers:.6g} layers, which must be whole; "
            f"the nearest is total_time = {whole * epsilon**2:.12g}, or give depth"
        )
    return whole


def _in_section(section: str, expand: Any) -> Any:
    try:
        return expand()
    except InputError as error:
        raise InputError("\n".join(f"{section} {line}" for line in str(error).splitlines())) from None
