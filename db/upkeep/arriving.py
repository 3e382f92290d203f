"""Checks of the rows of an archive: only rows that this project could have written are imported.

The checksums of an archive are in the archive itself, so they reveal damage but not a deliberate change: whoever can
change the archive can change them too. Checked are the type, the allowed values and the size of every value, the spec
of every run by the model that validates specs, and every digest by its spec. Forged numbers of the right type and size
cannot be detected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from db.schema.components import QUANTILES, ROW_INPUTS, canonical_component, diagonal_components
from db.schema.models import (
    Base,
    CheckedBlockRow,
    ComparisonRow,
    Configuration,
    ErrorMetric,
    Kernel,
    KernelQuantile,
    KernelTrajectory,
    ModuleCheck,
    Run,
    Study,
    TrajectoryValue,
    ValidityWindow,
    WidthWindow,
)
from db.schema.rows import (
    check_fields,
    measurement_fields,
    model_fields,
    model_of,
    module_fields,
    prediction_fields,
    simulation_fields,
)
from db.schema.types import UTCDateTime
from db.upkeep.archive import Moved
from eftcore.activations import activation_names
from eftcore.ensemble.sample import sample_digest
from eftcore.errors import InputError
from eftcore.identity import digest_of
from eftcore.inputs.fields import STUDY_NAME
from eftcore.inputs.kernel import InputKernel
from eftcore.quantities import QUANTITIES
from eftcore.specs import (
    OF_BLOCKS,
    AnySpec,
    CheckSpec,
    EnsembleSpec,
    MeasurementSpec,
    PredictionSpec,
    ResNet,
    newest_version,
)

TEXT_LIMIT = 100_000
"""Most characters of one text; an error message with its cause is shorter."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")

Row = dict[str, Any]


class Arriving:
    """Checks the rows of one archive, read in the order of TABLES, and remembers the rows that later ones refer to."""

    def __init__(self) -> None:
        self.kernels: dict[str, InputKernel] = {}
        self.models: dict[str, tuple[ResNet, InputKernel] | None] = {}
        self.runs: dict[str, tuple[str, str, str]] = {}
        self.shapes: dict[str, tuple[int, int]] = {}
        self.checks: dict[str, CheckSpec] = {}
        self.next_order: set[str] = set()
        self.seen: dict[type[Base], set[str]] = {}
        self.special: Mapping[type[Base], Callable[[Row], None]] = {
            Study: self._study,
            Kernel: self._kernel,
            Configuration: self._configuration,
            Run: self._run,
            KernelTrajectory: self._trajectory,
            TrajectoryValue: self._value,
            KernelQuantile: self._quantile,
            ModuleCheck: self._module,
            CheckedBlockRow: self._block,
            ComparisonRow: self._comparison,
            ErrorMetric: self._error,
            ValidityWindow: self._window,
            WidthWindow: self._width,
        }

    def check(self, moved: Moved, row: Row) -> None:
        """Raises InputError for a row that this project would not have written."""
        try:
            for column in moved.columns:
                _check_value(column, row.get(column.name), reference=column.name in moved.references)
            if moved.model in self.special:
                self.special[moved.model](row)
            if "digest" in row:
                self._once(moved.model, row["digest"])
        except InputError as error:
            named = f" {row['digest'][:12]}" if isinstance(row.get("digest"), str) else ""
            first = error.within(f"{moved.name}{named}")
            first.others = ()
            raise first from None

    def _once(self, model: type[Base], digest: str) -> None:
        seen = self.seen.setdefault(model, set())
        if digest in seen:
            raise InputError("is there twice", place="digest")
        seen.add(digest)

    def _study(self, row: Row) -> None:
        if not re.fullmatch(STUDY_NAME, row["name"]) or len(row["name"]) > 80:
            raise InputError("no study file may have such a name", place="name", value=row["name"])
        if (asked := row.get("runs_asked")) is not None and asked < 1:
            raise InputError("must be at least 1", place="runs_asked", value=asked)

    def _kernel(self, row: Row) -> None:
        kernel = InputKernel(matrix=row["matrix"], label=row["label"])
        _same(row, digest=digest_of(kernel.identity()), n_inputs=kernel.n_inputs)
        _same(row, variance=kernel.variance, correlation=kernel.correlation)
        self.kernels[row["digest"]] = kernel

    def _configuration(self, row: Row) -> None:
        kernel = self.kernels[_known(row, "kernel_id", self.kernels)]
        if row["activation"].partition("(")[0] not in activation_names():  # registered by a user, and not known here
            if not re.fullmatch(r"\w{1,100}", row["activation"]):
                raise InputError("is no name of one", place="activation", value=row["activation"])
            self.models[row["digest"]] = None
            return
        model = model_of(row)
        hidden = {name: value for name, value in model_fields(model).items() if name in OF_BLOCKS}
        _same({name: row.get(name) for name in OF_BLOCKS}, **hidden)
        _same(row, digest=digest_of({"model": model.identity(), "kernel": kernel.identity()}))
        _same(row, total_time=model.total_time)
        self.models[row["digest"]] = model, kernel

    def _run(self, row: Row) -> None:
        configuration = _known(row, "configuration_id", self.models)
        if row["status"] not in ("succeeded", "failed"):
            raise InputError("only what is finished moves", place="status", value=row["status"])
        newest = newest_version(row["kind"])
        version = row["algorithm_version"]
        if not 1 <= version <= newest:
            raise InputError(
                f"this program knows 1 to {newest}",
                place="algorithm_version",
                value=version,
                remedy="update the program",
            )
        self.runs[row["digest"]] = configuration, row["kind"], row["status"]
        if row.get("next_order"):
            self.next_order.add(row["digest"])
        known = self.models[configuration]
        if known is None:
            return
        model, kernel = known
        spec: AnySpec | CheckSpec
        if row["kind"] == "check":
            spec = CheckSpec(**row["spec"], model=model, kernel=kernel, version=version)
            fields = check_fields(spec)
            self.checks[row["digest"]] = spec
        elif row["kind"] == "measurement":
            spec = MeasurementSpec(**row["spec"], model=model, kernel=kernel, version=version)
            fields = measurement_fields(spec)
        elif row["kind"] == "prediction":
            spec = PredictionSpec(**row["spec"], model=model, kernel=kernel, version=version)
            fields = prediction_fields(spec)
            if spec.order == "auto":  # the order that was reached is a result, not part of the spec
                del fields["closure_order"]
            row.setdefault("next_order", spec.next_order)  # archives before format 6 do not say it
        else:
            spec = EnsembleSpec(**row["spec"], model=model, kernel=kernel, version=version)
            fields = simulation_fields(spec, row["digest"], row["samples"])
            if row["status"] == "succeeded":
                shards = [_shard(shard) for shard in row["shards"] or ()]
                if len(dict(shards)) < len(shards) or not shards:
                    raise InputError("must name each shard of the sample once", place="shards")
                _same(row, digest=sample_digest(spec, shards), samples=sum(count for _, count in shards))
        _same(row, **fields)
        assert spec.depths is not None
        self.shapes[row["digest"]] = len(spec.depths), kernel.n_inputs

    def _trajectory(self, row: Row) -> None:
        run = _known(row, "run_id", self.runs)
        _, _, status = self.runs[run]
        if status != "succeeded":
            raise InputError("a run that failed has no trajectory", place="run_id", value=run[:12])
        quantity = QUANTITIES[row["quantity"]]
        layers, entries = row["n_layers"], row["n_entries"]
        if run in self.shapes:
            layers, inputs = self.shapes[run]
            entries = inputs if quantity.over == "inputs" else inputs * (inputs + 1) // 2
            _same(row, n_layers=layers, n_entries=entries)
        shape = quantity.shape(layers, entries)
        for name in ("data", "se"):
            if row[name] is not None and len(row[name]) != 8 * math.prod(shape):
                raise InputError(f"has {len(row[name])} bytes, not those of {' x '.join(map(str, shape))}", place=name)

    def _value(self, row: Row) -> None:
        _known(row, "run_id", self.runs)
        _natural(row, "layer")
        if canonical_component(row["component"]) != row["component"]:
            raise InputError("is not how a component is written", place="component", value=row["component"])

    def _quantile(self, row: Row) -> None:
        self._value(row)
        run = row["run_id"]
        if self.runs[run][1] not in ("simulation", "check") or self.runs[run][2] != "succeeded":
            raise InputError("is no simulation or check that succeeded", place="run_id", value=run[:12])
        if row["component"] not in diagonal_components(ROW_INPUTS):
            raise InputError("is no diagonal entry with quantiles", place="component", value=row["component"])
        if row["probability"] not in QUANTILES:
            allowed = ", ".join(map(str, QUANTILES))
            raise InputError(f"must be one of {allowed}", place="probability", value=row["probability"])
        there = [number for number in (row["low"], row["value"], row["high"]) if number is not None]
        if there != sorted(there) or there[0] < 0:
            raise InputError("is no quantile of a kernel between its bounds", place="value", value=row["value"])

    def _module(self, row: Row) -> None:
        run = _known(row, "run_id", self.runs)
        if self.runs[run][1:] != ("check", "succeeded"):
            raise InputError("is no check that succeeded", place="run_id", value=run[:12])
        if run in self.checks:
            _same(row, **module_fields(self.checks[run]))
        _probability(row)
        _layer_of(row, "first_deviating_layer", self.checks.get(run))

    def _block(self, row: Row) -> None:
        run = _known(row, "run_id", self.runs)
        if self.runs[run][1] != "check":
            raise InputError("is no check", place="run_id", value=run[:12])
        _probability(row)
        _layer_of(row, "layer", self.checks.get(run))

    def _comparison(self, row: Row) -> None:
        prediction, reference = (
            self.runs[_known(row, f"{end}_run_id", self.runs)] for end in ("prediction", "reference")
        )
        if prediction[0] != reference[0] or prediction[1] != "prediction":
            raise InputError("compares runs of different configurations, or no prediction")
        if {prediction[2], reference[2]} != {"succeeded"}:
            raise InputError("compares a run that failed")

    def _error(self, row: Row) -> None:
        _natural(row, "layer")

    def _width(self, row: Row) -> None:
        self._comparison(row)
        _natural(row, "layer")
        _tolerance(row)
        if row["reference_run_id"] not in self.next_order:
            raise InputError("has no next order in 1/n", place="reference_run_id", value=row["reference_run_id"][:12])
        widths = [row[name] for name in ("width_low", "width", "width_high")]
        there = [width for width in widths if width is not None]
        if len(there) != (3 if row["status"] == "from" else 0) or there != sorted(there) or any(n < 1 for n in there):
            raise InputError(f"{widths} is no interval of widths", place="width")

    def _window(self, row: Row) -> None:
        _tolerance(row)
        ends = [row[name] for name in ("certified_until", "refuted_from") if row[name] is not None]
        if any(end < 0 for end in ends) or ends != sorted(ends):
            raise InputError(f"{ends} is no interval of time", place="refuted_from")


def _known(row: Row, name: str, there: Mapping[str, Any]) -> str:
    if row[name] not in there:
        raise InputError("the archive has no such row", place=name, value=row[name][:12])
    return str(row[name])


def _probability(row: Row) -> None:
    if not 0 <= row["p_value"] <= 1:
        raise InputError("must lie between 0 and 1", place="p_value", value=row["p_value"])


def _layer_of(row: Row, name: str, spec: CheckSpec | None) -> None:
    """Raises InputError unless a column is empty or a layer that a block of a checked module makes."""
    layer = row[name]
    if layer is not None and not 1 <= layer <= (layer if spec is None else spec.model.depth):
        raise InputError("is the layer of no block", place=name, value=layer)


def _tolerance(row: Row) -> None:
    if not 0 < row["tolerance"] < 1:
        raise InputError("must lie between 0 and 1", place="tolerance", value=row["tolerance"])


def _natural(row: Row, name: str) -> None:
    if row[name] < 0:
        raise InputError("must be at least 0", place=name, value=row[name])


def _shard(shard: Any) -> tuple[int, int]:
    if not (isinstance(shard, list) and len(shard) == 2 and all(type(part) is int for part in shard)):
        raise InputError("must be [index, networks]", place="shards", value=shard)
    index, count = shard
    if index < 0 or count < 1:
        raise InputError("must be an index of at least 0 and at least one network", place="shards", value=shard)
    return index, count


def _same(row: Row, **expected: Any) -> None:
    """Raises InputError where a column of the row differs from the value that follows from the spec."""
    for name, value in expected.items():
        found = row[name]
        if isinstance(value, float) and isinstance(found, float) and math.isclose(found, value, rel_tol=1e-9):
            continue
        if found != value:
            raise InputError(f"does not follow from its spec ({str(value)[:100]})", place=name, value=found)


def _check_value(column: sa.Column[Any], value: Any, *, reference: bool) -> None:
    """Raises InputError unless the value is one that the column may hold, on either database."""
    name, kind = column.name, column.type
    if value is None:
        if not column.nullable and column.server_default is None:
            raise InputError("is missing", place=name)
        return
    if reference:
        parts = value.split(" ") if name == "comparison_id" else [value]
        if not all(_DIGEST.fullmatch(part) for part in parts):
            raise InputError("is no digest", place=name, value=value)
    elif isinstance(kind, sa.Enum):
        if value not in kind.enums:
            raise InputError(f"must be one of {', '.join(map(str, kind.enums))}", place=name, value=value)
    elif isinstance(kind, sa.String):
        if (name == "digest" or name.endswith("_digest")) and not _DIGEST.fullmatch(value):
            raise InputError("is no digest", place=name, value=value)
        if len(value) > (kind.length or TEXT_LIMIT) or _CONTROL.search(value):
            raise InputError("is too long, or holds characters that are no text", place=name, value=value)
    elif isinstance(kind, sa.BigInteger | sa.Integer) and not isinstance(kind, sa.Boolean):
        bits = 63 if isinstance(kind, sa.BigInteger) else 31
        if not -(2**bits) <= value < 2**bits:
            raise InputError("is out of range", place=name, value=value)
    elif isinstance(kind, sa.Double):
        if not math.isfinite(value):
            raise InputError("must be finite", place=name, value=value)
    elif isinstance(kind, sa.JSON):
        _check_json(name, value)
    elif isinstance(kind, UTCDateTime) and not 1970 <= value.year <= 9000:
        raise InputError("is no time at which anything ran", place=name, value=value)


def _check_json(name: str, value: Any) -> None:
    if not isinstance(value, list if name in ("matrix", "shards") else dict):
        raise InputError("is of another kind", place=name, value=value)
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, float) and not math.isfinite(item):
            raise InputError("holds a number that is not finite", place=name)
        elif isinstance(item, int) and abs(item) >= 2**63:
            raise InputError("holds a number that is out of range", place=name)
        elif isinstance(item, str) and _CONTROL.search(item):
            raise InputError("holds characters that are no text", place=name)
