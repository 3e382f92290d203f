"""Recorded runs as Python objects: predictions as eftcore.Theory, simulations as StoredSample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from db.schema.models import Configuration, Kernel, KernelTrajectory, Run
from db.schema.rows import model_of
from db.schema.types import unpack
from db.session import Database
from eftcore.identity import digest_of
from eftcore.inputs.kernel import InputKernel
from eftcore.quantities import QUANTITIES
from eftcore.results import KernelTrajectories, Theory
from eftcore.specs import AnySpec, CheckSpec, EnsembleSpec, MeasurementSpec, PredictionSpec, ResNet


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredSample(KernelTrajectories):
    """A recorded simulation: the arrays of eftcore.Sample that the database keeps, with their standard errors.

    Sigma is None where an older version of the program recorded the run.

    Attributes:
        spec: the ensemble.
        samples: networks M.
    """

    spec: EnsembleSpec
    samples: int


def stored_results(db: Database, run_ids: Sequence[int]) -> dict[int, Theory | StoredSample]:
    """Predictions and simulations that finished, by run id in the order of ``run_ids``; other runs are left out.

    One statement.
    """
    wanted = [int(run_id) for run_id in run_ids]
    query = (
        sa.select(Run, Configuration, Kernel, KernelTrajectory)
        .join(Configuration, Configuration.id == Run.configuration_id)
        .join(Kernel, Kernel.id == Configuration.kernel_id)
        .join(KernelTrajectory, KernelTrajectory.run_id == Run.id)
        .where(Run.id.in_(wanted), Run.kind.in_(("prediction", "simulation")))
    )
    with db.reading() as session:
        records = session.execute(query).all()
    runs: dict[int, tuple[Run, Configuration, Kernel]] = {}
    arrays: dict[int, dict[str, Any]] = {}
    errors: dict[int, dict[str, float]] = {}
    for run, configuration, kernel, stored in records:
        runs[run.id] = (run, configuration, kernel)
        quantity = QUANTITIES[stored.quantity]
        shape, name = quantity.shape(stored.n_layers, stored.n_entries), quantity.attribute
        found = arrays.setdefault(run.id, {})
        found[name] = unpack(stored.data, shape)
        if stored.se is not None:
            found[f"{name}_se"] = unpack(stored.se, shape)
        if stored.numerical_error is not None and quantity.compared:  # others are in the details
            errors.setdefault(run.id, {})[stored.quantity] = stored.numerical_error
    return {
        run_id: _result(*runs[run_id], arrays[run_id], errors.get(run_id, {})) for run_id in wanted if run_id in runs
    }


def stored_specs(db: Database, run_ids: Sequence[int]) -> dict[int, AnySpec | CheckSpec]:
    """Specs of runs by id, in the order of ``run_ids``; runs that do not exist are left out. One statement."""
    wanted = [int(run_id) for run_id in run_ids]
    query = (
        sa.select(Run, Configuration, Kernel)
        .join(Configuration, Configuration.id == Run.configuration_id)
        .join(Kernel, Kernel.id == Configuration.kernel_id)
        .where(Run.id.in_(wanted))
    )
    with db.reading() as session:
        found = {run.id: _spec(run, configuration, kernel) for run, configuration, kernel in session.execute(query)}
    return {run_id: found[run_id] for run_id in wanted if run_id in found}


def simulations_of(db: Database, model: ResNet, kernel: InputKernel) -> list[tuple[int, int, int]]:
    """(run id, width, networks) of the finished simulations of a configuration, most networks first. One statement."""
    digest = digest_of({"model": model.identity(), "kernel": kernel.identity()})
    query = (
        sa.select(Run.id, Run.width, Run.samples)
        .join(Configuration, Configuration.id == Run.configuration_id)
        .where(Configuration.digest == digest, Run.kind == "simulation", Run.status == "succeeded")
        .order_by(Run.samples.desc(), Run.id)
    )
    with db.reading() as session:
        return [(run_id, int(width or 0), int(samples or 0)) for run_id, width, samples in session.execute(query)]


def numerical_errors(db: Database, run_ids: Sequence[int]) -> dict[tuple[int, str], float]:
    """Estimated relative error of the numerics, by (run id of the prediction, quantity). One statement."""
    query = sa.select(KernelTrajectory.run_id, KernelTrajectory.quantity, KernelTrajectory.numerical_error).where(
        KernelTrajectory.run_id.in_([int(run_id) for run_id in run_ids]), KernelTrajectory.numerical_error.is_not(None)
    )
    with db.reading() as session:
        return {(run_id, quantity): error for run_id, quantity, error in session.execute(query) if error is not None}


def _spec(run: Run, configuration: Configuration, kernel: Kernel) -> AnySpec | CheckSpec:
    model = model_of({name: getattr(configuration, name) for name in ResNet.model_fields})
    matrix = tuple(tuple(row) for row in kernel.matrix)
    common = {**run.spec, "model": model, "kernel": InputKernel(matrix=matrix, label=kernel.label)}
    return _SPECS[run.kind](**common)


_SPECS: dict[str, type[AnySpec | CheckSpec]] = {
    "prediction": PredictionSpec,
    "simulation": EnsembleSpec,
    "measurement": MeasurementSpec,
    "check": CheckSpec,
}


def _result(
    run: Run, configuration: Configuration, kernel: Kernel, arrays: dict[str, Any], errors: dict[str, float]
) -> Theory | StoredSample:
    spec = _spec(run, configuration, kernel)
    common = {"depth": np.array(spec.depths), "time": spec.time, "numerical_error": errors, **arrays}
    if isinstance(spec, EnsembleSpec):
        return StoredSample(spec=spec, samples=int(run.samples or 0), **common)
    assert isinstance(spec, PredictionSpec)
    return Theory(spec=spec, converged=bool(run.converged), details=run.details or {}, **common)
