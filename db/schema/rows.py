"""Predictions, simulations and comparisons as rows of tables. Needs no database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias

from db.schema.components import QUANTILES, diagonal_components, row_components
from db.schema.types import pack, split_nonfinite
from eftcore.errors import InputError
from eftcore.identity import digest_of
from eftcore.quantities import Quantity
from eftcore.results import Theory
from eftcore.specs import HIDDEN, CheckSpec, EnsembleSpec, MeasurementSpec, PredictionSpec, ResNet

if TYPE_CHECKING:
    import pandas as pd

    from eftcore.ensemble.next_order import MeasuredNextOrder
    from eftcore.ensemble.sample import Sample
    from eftcore.measure.checked import Check
    from eftcore.measure.kernels import CheckedKernels
    from eftcore.verdicts.windows import Comparison

Result: TypeAlias = "Theory | Sample | MeasuredNextOrder | CheckedKernels"
"""What has trajectories."""

PROVENANCE_KEYS = (
    "git_commit",
    "git_dirty",
    "versions",
    "host",
    "device",
    "python",
    "started_at",
    "worker_seconds",
    "elapsed_seconds",
    "seed",
    "flow_run_id",
    "task_run_id",
)


@dataclass(frozen=True, kw_only=True)
class PrecisionTarget:
    """The precision that a simulation was run for: quantity, ``kind`` of precision, target, precision reached."""

    quantity: str
    kind: str
    target: float
    reached: float

    def row(self) -> dict[str, Any]:
        """Columns of simulation_precision."""
        (number,), (marker,) = split_nonfinite([self.reached])
        return {"target_kind": self.kind, "target": self.target, "reached": number, "reached_nonfinite": marker}


def model_fields(model: ResNet) -> dict[str, Any]:
    """Columns of model_configurations that describe a network."""
    fields = {name: getattr(model, name) for name in ResNet.model_fields}
    hidden = dict.fromkeys(HIDDEN) if model.block == "one_matrix" else {}
    return {**fields, **hidden, "total_time": model.total_time}


def model_of(row: Mapping[str, Any]) -> ResNet:
    """The network that these columns of model_configurations describe. Raises InputError where they describe none."""
    return ResNet(**{name: row[name] for name in ResNet.model_fields if row.get(name) is not None})


def prediction_fields(spec: PredictionSpec) -> dict[str, Any]:
    """Columns of runs that only a prediction has."""
    return {
        "kind": "prediction",
        "digest": spec.digest,
        "closure": spec.closure,
        "closure_order": spec.order if isinstance(spec.order, int) else None,
        "quadrature": spec.numerics.quadrature,
        "nodes": spec.numerics.nodes,
        "rtol": spec.numerics.rtol,
        "step": spec.step,
        "continuous": spec.continuous,
        "next_order": spec.next_order,
    }


def simulation_fields(spec: EnsembleSpec, digest: str, samples: int) -> dict[str, Any]:
    """Columns of runs that only a simulation has; ``digest`` also covers its shards."""
    return {
        "kind": "simulation",
        "digest": digest,
        "ensemble_digest": spec.digest,
        "width": spec.width,
        "samples": samples,
        "seed": spec.seed,
        "estimator": spec.estimator,
        "sampler": spec.sampler,
        "dtype": spec.dtype,
    }


def measurement_fields(spec: MeasurementSpec) -> dict[str, Any]:
    """Columns of runs that only a measurement has."""
    return {
        "kind": "measurement",
        "digest": spec.digest,
        "widths": ", ".join(map(str, spec.widths)),
        "samples": spec.networks,
    }


def check_fields(spec: CheckSpec) -> dict[str, Any]:
    """Columns of runs that only a check has."""
    return {
        "kind": "check",
        "digest": spec.digest,
        "width": spec.width,
        "samples": spec.networks,
        "seed": spec.seed,
        "dtype": spec.dtype,
    }


def module_fields(spec: CheckSpec) -> dict[str, Any]:
    """Columns of module_checks that follow from the spec of a check."""
    return {name: getattr(spec, name) for name in ("module", "module_digest", "factory", "factory_digest", "guessed")}


def provenance_fields(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of runs that say where a result came from.

    Raises InputError for an unknown key or a time without zone.
    """
    unknown = sorted(set(provenance) - set(PROVENANCE_KEYS))
    if unknown:
        raise InputError(f"has unknown keys {unknown}", place="provenance", remedy=f"use {', '.join(PROVENANCE_KEYS)}")
    fields = {key: provenance.get(key) for key in PROVENANCE_KEYS}
    started = fields["started_at"]
    if isinstance(started, str):
        try:
            fields["started_at"] = datetime.fromisoformat(started)
        except ValueError:
            raise InputError(
                "must be an ISO time with its zone", place=("provenance", "started_at"), value=started
            ) from None
    if fields["started_at"] is not None and fields["started_at"].tzinfo is None:
        raise InputError(
            "has no time zone", place=("provenance", "started_at"), value=started, remedy="use datetime.now(UTC)"
        )
    return fields


def blob_row(quantity: Quantity, result: Result) -> dict[str, Any] | None:
    """Row of kernel_trajectories: the exact arrays; None where the result does not have the quantity."""
    values, error = quantity.of(result), quantity.standard_error_of(result)
    if values is None:
        return None
    known = quantity.numerical_error_of(result)
    numbers, markers = split_nonfinite([] if known is None else [known])
    return {
        "quantity": quantity.name,
        "n_layers": values.shape[0],
        "n_entries": values.shape[1],
        "numerical_error": numbers[0] if numbers else None,
        "numerical_error_nonfinite": markers[0] if markers else None,
        "data": pack(values),
        "se": None if error is None else pack(error),
    }


def precision_row(quantity: Quantity, sample: Sample) -> dict[str, Any]:
    """Row of simulation_precision: ||se|| / ||value||, Frobenius norms over pairs a <= b (over all entries for V4).

    The ratio is given at the last layer, and as its largest value over the layers where the value exceeds twice its
    error (absent where there is no such layer). The row also has the share of layers whose error can be trusted, and
    the smallest number of degrees of freedom (absent if infinite).
    """
    values, error = quantity.of(sample), quantity.standard_error_of(sample)
    assert values is not None
    assert error is not None
    size, noise = quantity.norms(values), quantity.norms(error)
    resolved = size > 2 * noise
    fewest = float(sample.degrees_of_freedom(quantity.name).min())
    row: dict[str, Any] = {
        "quantity": quantity.name,
        "reliable_share": float(sample.reliable(quantity.name).mean()),
        "degrees_of_freedom": fewest if math.isfinite(fewest) else None,
    }
    for name, where in (("relative_se", size[-1:] != 0), ("largest_relative_se", resolved)):
        last_or_all = slice(-1, None) if name == "relative_se" else slice(None)
        ratios = noise[last_or_all][where] / size[last_or_all][where]
        numbers, markers = split_nonfinite([ratios.max()] if ratios.size else [])
        row |= {name: numbers[0] if numbers else None, f"{name}_nonfinite": markers[0] if markers else None}
    return row


def quantile_rows(result: Sample | CheckedKernels) -> list[dict[str, Any]]:
    """Rows of kernel_quantiles, in the order of the primary key.

    Quantiles of an input that is 0 are not defined and have no row.
    """
    found = result.quantiles(QUANTILES)
    names = diagonal_components(result.spec.kernel.n_inputs)
    values, low, high = (
        split_nonfinite(numbers[:, : len(names)].swapaxes(0, 1).ravel())[0]
        for numbers in (found.value, found.low, found.high)
    )
    keys = [(name, layer, p) for name in names for layer in result.depth.tolist() for p in QUANTILES]
    return [
        {"component": name, "layer": layer, "probability": p, "value": value, "low": below, "high": above}
        for (name, layer, p), value, below, above in zip(keys, values, low, high, strict=True)
        if value is not None
    ]


VALUE_COLUMNS = ("quantity", "component", "layer", "value", "value_nonfinite", "se", "se_nonfinite")
"""Columns of trajectory_values in the order of ``value_rows``, without the run."""


def value_rows(quantity: Quantity, result: Result, layers: Sequence[int]) -> list[tuple[Any, ...]]:
    """Rows of trajectory_values (VALUE_COLUMNS), in the order of the primary key so that the b-tree fills its pages.

    Entries of a partial quantity that are not known have no row.
    """
    whole, whole_error = quantity.of(result), quantity.standard_error_of(result)
    if whole is None:
        return []
    names, index = row_components(quantity.name, result.spec.kernel.n_inputs)
    at: tuple[Any, ...] = (slice(None), *index)
    values, value_marks = split_nonfinite(whole[at].T.ravel())
    count = len(values)
    errors: Sequence[float | None] = [None] * count
    error_marks: Sequence[str | None] = [None] * count
    if whole_error is not None:
        errors, error_marks = split_nonfinite(whole_error[at].T.ravel())
    components = [name for name in names for _ in layers]
    columns = (repeat(quantity.name, count), components, [*layers] * len(names))
    rows = zip(*columns, values, value_marks, errors, error_marks, strict=True)
    return [row for row in rows if row[4] != "nan"] if quantity.partial else list(rows)


def module_row(check: Check) -> dict[str, Any]:
    """Row of module_checks."""
    first = check.first_deviating
    return {
        **module_fields(check.recorded_as),
        "p_value": check.p_value,
        "first_deviating_layer": None if first is None else first + 1,
        "verdict": check.sentence(),
    }


def block_rows(check: Check) -> list[dict[str, Any]]:
    """Rows of checked_blocks; what was not fitted is NULL."""
    frame = check.table()
    columns = {
        str(name): split_nonfinite(column)[0] if column.dtype == float else column.tolist()
        for name, column in frame.items()
    }
    return _rows({}, columns)


def error_rows(comparison_id: int, comparison: Comparison) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Rows of error_metrics, as names of columns and plain values."""
    frame = comparison.errors
    defined = frame["defined"].to_numpy(dtype=bool)
    columns: dict[str, list[Any]] = {
        "quantity": frame["quantity"].tolist(),
        "layer": frame["depth"].astype(int).tolist(),
        "defined": defined.tolist(),
    }
    for name in ("error", "error_se", "absolute_error", "absolute_error_se"):
        numbers, markers = split_nonfinite(frame[name].to_numpy(dtype=float))
        if name in (
            "error",
            "error_se",
        ):  # NaN marks a relative error that is not defined; it is stored as absent
            markers = [mark if ok else None for mark, ok in zip(markers, defined, strict=True)]
            numbers = [number if ok else None for number, ok in zip(numbers, defined, strict=True)]
        columns |= {name: numbers, f"{name}_nonfinite": markers}
    for name in ("error_low", "error_high", "resolution"):
        columns[name] = split_nonfinite(frame[name].to_numpy(dtype=float))[0]
    rows = zip(repeat(comparison_id, len(frame)), *columns.values(), strict=True)
    return ["comparison_id", *columns], list(rows)


def window_rows(comparison_id: int, comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of validity_windows."""
    frame = comparison.windows
    columns = {name: frame[name].tolist() for name in ("quantity", "tolerance", "status")}
    for name in ("resolved_from", "certified_until", "refuted_from", "numerical_error", "confidence"):
        columns[name] = split_nonfinite(frame[name].to_numpy(dtype=float))[0]
    return _rows({"comparison_id": comparison_id}, columns)


def width_rows(prediction_run_id: int, reference_run_id: int, widths: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of width_windows, from those of eftcore.verdicts.widths.widths_of."""
    columns = {name: widths[name].tolist() for name in ("quantity", "tolerance", "status")}
    columns["layer"] = widths["depth"].astype(int).tolist()
    for name in ("width", "width_low", "width_high"):
        columns[name] = split_nonfinite(widths[name].to_numpy(dtype=float))[0]
    return _rows({"prediction_run_id": prediction_run_id, "reference_run_id": reference_run_id}, columns)


def _rows(owner: Mapping[str, int], columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    names = list(columns)
    records = zip(*columns.values(), strict=True)
    return [{**owner, **dict(zip(names, record, strict=True))} for record in records]


def study_claim(study: str, holder: str) -> str:
    """Digest of the claim by which a holder tells that it executes a study (its digest)."""
    return digest_of({"study": study, "holder": holder})


def computing_claim(digest: str) -> str:
    """Digest of the claim by which a holder tells that it computes a stored result (its digest)."""
    return digest_of({"computing": digest})
