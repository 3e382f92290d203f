"""Study files (TOML) for the configuration or study shown on a page; see studies/ for examples of their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tomlkit

from eftcore.inputs.kernel import InputKernel
from eftcore.specs import EnsembleSpec, PredictionSpec, default_depths
from eftcore.verdicts.windows import DEFAULT_TOLERANCES


def study_toml(
    name: str,
    ensemble: EnsembleSpec,
    samples: int,
    predictions: Sequence[PredictionSpec],
    *,
    tolerances: Sequence[float] = DEFAULT_TOLERANCES,
    description: str = "",
) -> str:
    """The text of a study file for one configuration, which `eft run FILE` runs.

    It asks for the given simulation, and for the given predictions if all have the same numerics, as the predictions of
    one study have. Then every result has the digest of the stored one and is not computed again.
    """
    model = ensemble.model
    document: dict[str, Any] = {"name": name}
    if description:
        document["description"] = description
    document |= {"widths": [ensemble.width], "samples": samples, "seed": ensemble.seed}
    document |= {field: getattr(ensemble, field) for field in ("estimator", "sampler", "dtype")}
    document["closures"] = [_closure(spec) for spec in predictions]
    document["tolerances"] = [float(value) for value in tolerances]
    document["recorded_depths"] = _depths(ensemble)
    document["model"] = {name: value for name, value in model.described().items() if value is not None}
    document["kernel"] = [_kernel(ensemble.kernel)]
    if predictions:
        document["numerics"] = predictions[0].numerics.model_dump(mode="json", exclude_none=True)
    return tomlkit.dumps(document)


def recorded_study_toml(spec: Mapping[str, Any]) -> str:
    """The text of a study file from its record; `eft run` recognises it as the same study in any folder."""
    return tomlkit.dumps(_tables_last(spec))


def _tables_last(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with tables last, since in TOML everything after the heading of a table belongs to that table."""
    own = {name: _tables_last(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return dict(sorted(own.items(), key=lambda item: _is_table(item[1])))


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(item, Mapping) for item in value))


def data_files(spec: Mapping[str, Any]) -> list[str]:
    """Paths of the files of real inputs that a recorded study reads; relative ones start at the study file's folder."""
    sections = spec.get("kernel") or []
    return [str(section["path"]) for section in sections if isinstance(section, Mapping) and "path" in section]


def _closure(spec: PredictionSpec) -> str | dict[str, Any]:
    """The entry of a closure in a study file: its name, with the options that differ from the closure's defaults."""
    usual = PredictionSpec(model=spec.model, kernel=spec.kernel, closure=spec.closure)
    fields = ("order", "truncation", "step", "continuous", "next_order")
    own = {field: getattr(spec, field) for field in fields if getattr(spec, field) != getattr(usual, field)}
    own = {field: value for field, value in own.items() if value is not None}
    return {"name": spec.closure, **own} if own else spec.closure


def _depths(ensemble: EnsembleSpec) -> int | list[int]:
    """The value of recorded_depths: a number, where that many evenly spaced layers are these; else the layers."""
    assert ensemble.depths is not None
    depth = ensemble.model.depth
    for count in (100, len(ensemble.depths) - 1):
        if count >= 1 and default_depths(depth, count) == ensemble.depths:
            return count
    return list(ensemble.depths)


def _kernel(kernel: InputKernel) -> dict[str, Any]:
    matrix = kernel.array
    inputs, variance = kernel.n_inputs, float(matrix[0, 0])
    correlation = float(np.round(matrix[0, -1] / variance, 15)) if inputs > 1 and variance > 0 else 0.0
    if -1.0 / max(inputs - 1, 1) <= correlation <= 1.0:
        same = InputKernel.equicorrelated(n_inputs=inputs, variance=variance, correlation=correlation)
        if same.matrix == kernel.matrix:
            return {"kind": "equicorrelated", "n_inputs": inputs, "variance": variance, "correlation": correlation}
    return {"kind": "explicit", "matrix": [list(row) for row in kernel.matrix], "label": kernel.label}
