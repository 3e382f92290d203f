"""Studies: files in TOML, validated before anything runs, expanded to the work that they ask for.

A study is a grid of models and input kernels. Each pair is predicted by every closure, simulated at every width, and
each prediction is compared with each simulation and with the reference theory. Simulations or the reference may be
missing. From simulations at two widths and the exact closure the next order in 1/n is measured. Work that two grid
points share, as its digest shows, is done once.
"""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from db.settings import bundled_studies
from eftcore.ensemble.sample import Shards, sample_digest
from eftcore.ensemble.shards import first_round, shards_of
from eftcore.errors import InputError, as_written, within
from eftcore.identity import digest_of
from eftcore.inputs.kernel import InputKernel
from eftcore.precision import Precision
from eftcore.specs import EnsembleSpec, PredictionSpec, ResNet
from flows.study import sizes
from flows.study.file import ModelGrid, StudyFile

LARGEST_FILE = 10_000_000
"""Most bytes of a study file."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """An ensemble, and the number of networks or the precision that the study asks for."""

    spec: EnsembleSpec
    samples: int | None = None
    precision: Precision | None = None

    @property
    def first_round(self) -> Shards:
        """Shards to begin with, as (index, networks): all shards, or the first round towards a precision."""
        if self.precision is not None:
            return first_round(self.spec, self.precision)
        return self.all_shards

    @property
    def all_shards(self) -> Shards:
        """All shards, as (index, networks); up to the largest number of networks if a precision is wanted."""
        return shards_of(self.spec, self.networks)

    @property
    def networks(self) -> int:
        """Number of networks wanted, or the largest number that may be used to reach a precision."""
        networks = self.samples if self.precision is None else self.precision.max_samples
        assert networks is not None
        return networks

    @property
    def size(self) -> sizes.Size:
        """The numbers that determine the cost of the simulation."""
        return sizes.Size(self.networks, self.spec.model.depth, self.spec.width, self.spec.kernel.n_inputs)

    @property
    def digest(self) -> str:
        """Identity of the request; if it asks for a number of networks, the digest of the sample itself."""
        if self.precision is None:
            return sample_digest(self.spec, self.all_shards)
        return digest_of({"ensemble": self.spec.digest, "precision": self.precision.identity()})

    def identity(self) -> Any:
        """The request (ensemble and precision or number of networks), JSON-able."""
        return self.samples if self.precision is None else self.precision.identity()


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a study asks of one network with the same inputs and recorded layers: nothing else depends on it.

    Attributes:
        predictions: digests of its predictions, among them those that others are compared with.
        simulations: digests of its ensembles.
    """

    predictions: tuple[str, ...]
    simulations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A validated study with its work, deduplicated, in the order of the file.

    Attributes:
        predictions: specs of predictions by digest.
        simulations: simulations by digest of the ensemble.
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

    @cached_property
    def digest(self) -> str:
        """Identity of the study: its name and its work, independent of the paths of files."""
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
    def configurations(self) -> tuple[Configuration, ...]:
        """Its predictions and simulations, configuration by configuration, in the order of the file."""
        predicted = _by_network(self.predictions)
        simulated = _by_network({digest: item.spec for digest, item in self.simulations.items()})
        return tuple(
            Configuration(predictions=tuple(predicted.get(network, ())), simulations=tuple(simulated.get(network, ())))
            for network in predicted | simulated
        )

    @cached_property
    def references(self) -> dict[str, list[str]]:
        """Digests of the predictions that are compared with each reference theory."""
        return _by_reference(self.theory_comparisons)

    @cached_property
    def compared(self) -> dict[str, list[str]]:
        """Digests of the predictions that are compared with each simulation, by digest of the ensemble."""
        return _by_reference(self.comparisons)

    @cached_property
    def width_references(self) -> dict[str, tuple[str, ...]]:
        """Digests of the predictions of the same network, for each prediction of the next order in 1/n by its digest.

        From the next order follows from which width on each of them holds, itself among them.
        """
        return {digest: self.alike[digest] for digest, spec in self.predictions.items() if spec.next_order}

    @cached_property
    def alike(self) -> dict[str, tuple[str, ...]]:
        """Digests of the predictions of the same configuration, by digest of each of them."""
        return {digest: each.predictions for each in self.configurations for digest in each.predictions}

    @cached_property
    def measured(self) -> dict[str, list[str]]:
        """Digests of the ensembles from which the next order in 1/n of a network is measured (eq. 10.10).

        They are those of two or more widths, by the digest of the prediction of their leading order: by the exact
        closure, layer by layer, and where there is a choice without the next order, which may not converge.
        """
        simulated = _by_network({digest: item.spec for digest, item in self.simulations.items()})
        leading: dict[tuple[object, ...], str] = {}
        for digest, spec in sorted(self.predictions.items(), key=lambda item: item[1].next_order):
            if spec.closure == "exact" and not spec.continuous:
                leading.setdefault(_network(spec), digest)
        found = {}
        for network, digest in leading.items():
            ensembles = simulated.get(network, [])
            if len({self.simulations[each].spec.width for each in ensembles}) > 1:
                found[digest] = ensembles
        return found

    @cached_property
    def runs(self) -> list[PredictionSpec | Simulation]:
        """Its predictions and simulations, which are known before it runs; each of them is a run in the database."""
        return [*self.predictions.values(), *self.simulations.values()]

    @property
    def superseded(self) -> int:
        """Number of its predictions and simulations that were made by an older version of their algorithm."""
        made = (*self.predictions.values(), *(item.spec for item in self.simulations.values()))
        return sum(spec.superseded for spec in made)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The description of the study that the database stores."""
        asked = len(self.runs) + len(self.measured)
        return {"name": self.name, "digest": self.digest, "spec": self.spec, "runs_asked": asked}

    def topped_up(self, *, samples: int | None = None, precision: Precision | None = None) -> Study:
        """This study with larger simulations: at least ``samples`` networks, or as many as ``precision`` needs.

        Simulations never get smaller. Raises InputError where the study has no simulations.
        """
        if not self.simulations:
            raise InputError(
                "simulates nothing, so nothing becomes larger", place="study", value=self.name, remedy="give it widths"
            )
        simulations = {}
        for digest, item in self.simulations.items():
            networks = samples if samples is None or item.samples is None else max(samples, item.samples)
            simulations[digest] = Simulation(spec=item.spec, samples=networks, precision=precision)
        sizes.refuse_too_many_shards(Counter(item.size for item in simulations.values()))
        aim = {"samples": samples} if precision is None else {"precision": precision.model_dump(mode="json")}
        kept = {name: value for name, value in self.spec.items() if name not in ("samples", "precision")}
        return replace(self, simulations=simulations, spec={**kept, **aim})


def _network(spec: PredictionSpec | EnsembleSpec) -> tuple[object, ...]:
    """What predictions and ensembles of one network, with the same inputs and recorded layers, have in common."""
    return spec.model, spec.kernel.matrix, spec.depths


def _by_network(specs: Mapping[str, PredictionSpec | EnsembleSpec]) -> dict[tuple[object, ...], list[str]]:
    """Digests of the specs of each network."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for digest, spec in specs.items():
        alike.setdefault(_network(spec), []).append(digest)
    return alike


def _by_reference(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for prediction, reference in pairs:
        found.setdefault(reference, []).append(prediction)
    return found


def find_study(name_or_path: str) -> Path:
    """The file of a bundled study by name, or a study file by path. Raises InputError when there is neither."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    bundled = bundled_studies()
    if name_or_path in bundled:
        return bundled[name_or_path]
    raise InputError(
        "no such file or bundled study",
        place="study",
        value=name_or_path,
        remedy=f"give a path, or one of: {', '.join(bundled)}",
    )


def load_study(path: Path) -> Study:
    """Read, validate and expand a study file. Raises InputError naming file, field, value and remedy."""
    with within(path):
        return expand_study(read_toml(path), folder=path.parent)


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds. Raises InputError, without its name, for one that cannot be read or is no TOML."""
    try:
        with path.open("rb") as file:
            written = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", remedy="check the path and its permissions") from None
    if len(written) > LARGEST_FILE:
        raise InputError(f"is larger than {LARGEST_FILE / 1e6:g} MB", remedy="is it the study file that was meant?")
    try:
        return tomllib.loads(written.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text (byte {error.start})", remedy="save it as UTF-8") from None
    except RecursionError:
        raise InputError("is not valid TOML (nested too deeply)", remedy="correct the file there") from None
    except ValueError as error:  # raised by the TOML parser, and by Python for a number with too many digits
        raise InputError(f"is not valid TOML ({error})", remedy="correct the file there") from None


def expand_study(content: dict[str, Any], *, folder: Path = Path()) -> Study:
    """The study described by plain values; relative paths of data files start at ``folder``."""
    file = StudyFile(**content)
    sizes.refuse_too_many_tasks(file)
    grids: list[tuple[ModelGrid, ResNet]] = []
    for number, grid in enumerate(file.model):
        with within(*as_written(("model", number), content)):
            grids += [(grid, model) for model in grid.models()]
    sizes.refuse_too_large(file, grids)
    kernels: dict[str, InputKernel] = {}
    for number, section in enumerate(file.kernel):
        with within("kernel", number):
            for kernel in section.kernels(folder):
                kernels.setdefault(digest_of(kernel.identity()), kernel)

    predictions: dict[str, PredictionSpec] = {}
    simulations: dict[str, Simulation] = {}
    comparisons: dict[tuple[str, str], None] = {}
    theory_comparisons: dict[tuple[str, str], None] = {}
    for (grid, model), kernel in itertools.product(grids, kernels.values()):
        shared = {"model": model, "kernel": kernel, "depths": file.depths_of(model)}
        theories: list[PredictionSpec] = []
        for number, choice in enumerate(file.closures):
            with within(*as_written(("closures", number), content)):
                theories += [choice.spec(order, file.numerics, **shared) for order in choice.orders]
        drawn = {name: getattr(file, name) for name in ("seed", "estimator", "sampler", "dtype")}
        with within("widths"):
            ensembles = [EnsembleSpec(**shared, width=width, **drawn) for width in file.widths_of(grid)]
        samples = grid.samples or file.samples
        predictions.update((theory.digest, theory) for theory in theories)
        if file.reference is not None:
            with within("reference"):
                reference = file.reference.spec(file.reference.order, file.numerics, **shared)
            judged = [theory.digest for theory in theories if theory.digest != reference.digest]
            if not judged and not ensembles:
                raise InputError(
                    "the reference is the only theory, so that there is nothing to compare",
                    place="closures",
                    remedy="add a closure, such as 'g_only'",
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
