"""Reading results as tidy pandas frames; every filter becomes SQL, every function is one statement.

A filter takes one value or a sequence of values; an activation may have any spelling (``leaky_relu(slope=.2)``).
Numbers that are not finite are returned as NaN, inf or -inf; an absent number is NaN too. Integer columns that may lack
values have pandas' nullable types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import sqlalchemy as sa

from db.reading.restriction import narrowed
from db.reading.user_sql import select
from db.schema.components import canonical_component
from db.schema.models import KernelTrajectory, Run, Study, StudyRun
from db.schema.types import UTCDateTime, unpack
from db.schema.views import (
    v_best_closures,
    v_checks,
    v_errors,
    v_measurements,
    v_precision,
    v_quantiles,
    v_runs,
    v_trajectories,
    v_width_windows,
    v_windows,
)
from db.session import Database
from eftcore.activations import canonical_name
from eftcore.errors import InputError
from eftcore.quantities import QUANTITIES

__all__ = [
    "arrays",
    "best_closures",
    "checks",
    "errors",
    "measurements",
    "precision",
    "quantiles",
    "runs",
    "select",
    "studies",
    "trajectories",
    "width_windows",
    "windows",
]

T = TypeVar("T")
OneOrMany: TypeAlias = T | Sequence[T] | None


def studies(db: Database) -> pd.DataFrame:
    """study_id, name, digest, created_at and number of runs of every study, newest first."""
    count = sa.func.count(StudyRun.run_id).label("runs")
    query = (
        sa.select(Study.id.label("study_id"), Study.name, Study.digest, Study.created_at, count)
        .outerjoin(StudyRun, StudyRun.study_id == Study.id)
        .group_by(Study.id)
        .order_by(Study.id.desc())
    )
    return _frame(db, query)


def runs(
    db: Database,
    study: str | None = None,
    kind: OneOrMany[str] = None,
    status: OneOrMany[str] = None,
    activation: OneOrMany[str] = None,
    limit: int | None = None,
    offset: int = 0,
    *,
    run_id: OneOrMany[int] = None,
    configuration_id: OneOrMany[int] = None,
    closure: OneOrMany[str] = None,
    width: OneOrMany[int] = None,
) -> pd.DataFrame:
    """Columns of the view v_runs, newest first.

    Args:
        study: name or digest of a study.
        limit, offset: page of the list.
    """
    query = _filtered(
        v_runs,
        kind=kind,
        status=status,
        activation=activation,
        run_id=run_id,
        configuration_id=configuration_id,
        closure=closure,
        width=width,
    )
    query = _in_study(query, study, v_runs.c.run_id)
    return _frame(db, query.order_by(v_runs.c.run_id.desc()).limit(limit).offset(offset))


def windows(
    db: Database,
    *,
    study: str | None = None,
    activation: OneOrMany[str] = None,
    closure: OneOrMany[str] = None,
    reference_kind: OneOrMany[str] = None,
    reference_closure: OneOrMany[str] = None,
    quantity: OneOrMany[str] = None,
    tolerance: OneOrMany[float] = None,
    width: OneOrMany[int] = None,
    status: OneOrMany[str] = None,
    configuration_id: OneOrMany[int] = None,
    prediction_run_id: OneOrMany[int] = None,
    reference_run_id: OneOrMany[int] = None,
    limit: int | None = None,
    offset: int = 0,
) -> pd.DataFrame:
    """Columns of the view v_windows; certified_until and refuted_from in t = epsilon^2 * layer.

    Args:
        study: name or digest of a study; windows between runs of that study.
        reference_kind: "simulation", "theory", "measurement" or "check", what the predictions are held against.
        limit, offset: page of the list.
    """
    query = _filtered(
        v_windows,
        activation=activation,
        closure=closure,
        reference_kind=reference_kind,
        reference_closure=reference_closure,
        quantity=quantity,
        tolerance=tolerance,
        width=width,
        status=status,
        configuration_id=configuration_id,
        prediction_run_id=prediction_run_id,
        reference_run_id=reference_run_id,
    )
    query = _in_study(query, study, v_windows.c.prediction_run_id, v_windows.c.reference_run_id)
    return _frame(db, query.order_by(*_READING_ORDER).limit(limit).offset(offset))


def width_windows(
    db: Database,
    *,
    study: str | None = None,
    activation: OneOrMany[str] = None,
    closure: OneOrMany[str] = None,
    reference_kind: OneOrMany[str] = None,
    quantity: OneOrMany[str] = None,
    tolerance: OneOrMany[float] = None,
    status: OneOrMany[str] = None,
    configuration_id: OneOrMany[int] = None,
    prediction_run_id: OneOrMany[int] = None,
    layer: OneOrMany[int] = None,
    deepest: bool = False,
) -> pd.DataFrame:
    """Columns of the view v_width_windows: from which width on (neurons per layer) each prediction holds, by layer.

    Args:
        study: name or digest of a study to which the predictions belong.
        reference_kind: "theory" for what follows from the next order in 1/n, "simulation" for what networks of several
            widths show.
        deepest: only the last layer of each network.
    """
    query = _filtered(
        v_width_windows,
        activation=activation,
        closure=closure,
        reference_kind=reference_kind,
        quantity=quantity,
        tolerance=tolerance,
        status=status,
        configuration_id=configuration_id,
        prediction_run_id=prediction_run_id,
        layer=layer,
    )
    query = _in_study(query, study, v_width_windows.c.prediction_run_id)
    if deepest:
        query = query.where(v_width_windows.c.layer == v_width_windows.c.depth)
    order = (
        *("activation", "configuration_id", "quantity", "closure", "prediction_run_id", "reference_kind"),
        *("reference_run_id", "tolerance", "layer"),
    )
    return _frame(db, query.order_by(*(v_width_windows.c[name] for name in order)))


def errors(
    db: Database,
    *,
    study: str | None = None,
    reference_kind: OneOrMany[str] = None,
    reference_run_id: OneOrMany[int] = None,
    prediction_run_id: OneOrMany[int] = None,
    quantity: OneOrMany[str] = None,
    closure: OneOrMany[str] = None,
    configuration_id: OneOrMany[int] = None,
) -> pd.DataFrame:
    """Columns of the view v_errors (error over depth), ordered by run, quantity and layer.

    Args:
        study: name or digest of a study; errors between runs of that study.
        reference_kind: "simulation", "theory", "measurement" or "check", what the predictions are held against.
    """
    query = _filtered(
        v_errors,
        reference_kind=reference_kind,
        reference_run_id=reference_run_id,
        prediction_run_id=prediction_run_id,
        quantity=quantity,
        closure=closure,
        configuration_id=configuration_id,
    )
    query = _in_study(query, study, v_errors.c.prediction_run_id, v_errors.c.reference_run_id)
    order = ("reference_run_id", "prediction_run_id", "quantity", "layer")
    return _frame(db, query.order_by(*(v_errors.c[name] for name in order)))


def trajectories(
    db: Database,
    *,
    simulation_run_id: OneOrMany[int] = None,
    reference_run_id: OneOrMany[int] = None,
    quantity: OneOrMany[str] = None,
    component: OneOrMany[str] = None,
    closure: OneOrMany[str] = None,
    prediction_run_id: OneOrMany[int] = None,
) -> pd.DataFrame:
    """Columns of the view v_trajectories: values of simulations and checks, and predicted ones, side by side.

    Args:
        component: "01", "00,11" for V4, Sigma and D, or "00,00,00" for T, in any order of the symmetric indices.

    Raises:
        InputError: not a component.
    """
    query = _filtered(
        v_trajectories,
        simulation_run_id=simulation_run_id,
        reference_run_id=reference_run_id,
        quantity=quantity,
        component=_canonical(component),
        closure=closure,
        prediction_run_id=prediction_run_id,
    )
    order = ("reference_run_id", "prediction_run_id", "quantity", "component", "layer")
    return _frame(db, query.order_by(*(v_trajectories.c[name] for name in order)))


def measurements(
    db: Database,
    *,
    study: str | None = None,
    configuration_id: OneOrMany[int] = None,
    quantity: OneOrMany[str] = None,
    component: OneOrMany[str] = None,
    prediction_run_id: OneOrMany[int] = None,
    measurement_run_id: OneOrMany[int] = None,
) -> pd.DataFrame:
    """Columns of the view v_measurements: the next order in 1/n, measured and predicted side by side.

    Args:
        study: name or digest of a study to which the measurements belong.
        component: as in ``trajectories``.
    """
    query = _filtered(
        v_measurements,
        configuration_id=configuration_id,
        quantity=quantity,
        component=_canonical(component),
        prediction_run_id=prediction_run_id,
        measurement_run_id=measurement_run_id,
    )
    query = _in_study(query, study, v_measurements.c.measurement_run_id)
    order = ("measurement_run_id", "prediction_run_id", "quantity", "component", "layer")
    return _frame(db, query.order_by(*(v_measurements.c[name] for name in order)))


def quantiles(
    db: Database,
    *,
    study: str | None = None,
    activation: OneOrMany[str] = None,
    width: OneOrMany[int] = None,
    component: OneOrMany[str] = None,
    probability: OneOrMany[float] = None,
    configuration_id: OneOrMany[int] = None,
    simulation_run_id: OneOrMany[int] = None,
    reference_run_id: OneOrMany[int] = None,
) -> pd.DataFrame:
    """Columns of the view v_quantiles: quantiles of the kernel of one network, of simulations and checks.

    Args:
        study: name or digest of a study to which the simulations belong.
        component: diagonal entries such as "00".
        probability: of db.schema.components.QUANTILES.
    """
    query = _filtered(
        v_quantiles,
        activation=activation,
        width=width,
        component=_canonical(component),
        probability=probability,
        configuration_id=configuration_id,
        simulation_run_id=simulation_run_id,
        reference_run_id=reference_run_id,
    )
    query = _in_study(query, study, v_quantiles.c.simulation_run_id)
    order = ("reference_run_id", "component", "layer", "probability")
    return _frame(db, query.order_by(*(v_quantiles.c[name] for name in order)))


def checks(
    db: Database,
    *,
    module: OneOrMany[str] = None,
    activation: OneOrMany[str] = None,
    configuration_id: OneOrMany[int] = None,
    check_run_id: OneOrMany[int] = None,
    layer: OneOrMany[int] = None,
) -> pd.DataFrame:
    """Columns of the view v_checks: what was found of each block of checked modules, the newest check first.

    Args:
        module: class of the module.
        activation: of the network that it was compared with.
        layer: that a block makes; 1 gives one row for each check.
    """
    query = _filtered(
        v_checks,
        module=module,
        activation=activation,
        configuration_id=configuration_id,
        check_run_id=check_run_id,
        layer=layer,
    )
    return _frame(db, query.order_by(v_checks.c.check_run_id.desc(), v_checks.c.layer))


def best_closures(
    db: Database,
    *,
    study: str | None = None,
    activation: OneOrMany[str] = None,
    quantity: OneOrMany[str] = None,
    tolerance: OneOrMany[float] = None,
    width: OneOrMany[int] = None,
    configuration_id: OneOrMany[int] = None,
) -> pd.DataFrame:
    """Columns of the view v_best_closures: the closure that can be trusted deepest, for each configuration and width.

    Args:
        study: name or digest of a study; answers that rest on runs of that study.
    """
    query = _filtered(
        v_best_closures,
        activation=activation,
        quantity=quantity,
        tolerance=tolerance,
        width=width,
        configuration_id=configuration_id,
    )
    query = _in_study(query, study, v_best_closures.c.prediction_run_id, v_best_closures.c.simulation_run_id)
    order = ("activation", "configuration_id", "width", "quantity", "tolerance")
    return _frame(db, query.order_by(*(v_best_closures.c[name] for name in order)))


def precision(
    db: Database,
    *,
    study: str | None = None,
    activation: OneOrMany[str] = None,
    quantity: OneOrMany[str] = None,
    width: OneOrMany[int] = None,
    met: bool | None = None,
    configuration_id: OneOrMany[int] = None,
    simulation_run_id: OneOrMany[int] = None,
) -> pd.DataFrame:
    """Columns of the view v_precision: how well each simulation knows each quantity, and the target it was run for.

    Args:
        study: name or digest of a study.
        met: True for simulations that reached their target only, False for those that did not.
    """
    query = _filtered(
        v_precision,
        activation=activation,
        quantity=quantity,
        width=width,
        met=met,
        configuration_id=configuration_id,
        simulation_run_id=simulation_run_id,
    )
    query = _in_study(query, study, v_precision.c.simulation_run_id)
    return _frame(db, query.order_by(v_precision.c.simulation_run_id, v_precision.c.quantity))


def arrays(db: Database, run_id: int) -> dict[str, np.ndarray]:
    """The exact arrays of a run by name.

    They are "depth" and "time" (R,) and, where present, "K0", "K1", "U1", "K2" (R, N, N), "V4", "Sigma", "D" (R, P, P)
    and "T" (R, P, P, P). A simulation has standard errors too: "K0_se" and so on.

    Raises InputError when there is no such run.
    """
    run_id = int(run_id)  # an id from a frame is a numpy integer, which SQLite would store as bytes
    with db.reading() as session:
        run = session.get(Run, run_id)
        if run is None:
            raise InputError("there is no such run", place="run_id", value=run_id)
        epsilon = session.scalar(sa.select(v_runs.c.epsilon).where(v_runs.c.run_id == run_id))
        stored = session.scalars(sa.select(KernelTrajectory).where(KernelTrajectory.run_id == run_id)).all()
    depth = np.array(run.spec["depths"])
    found: dict[str, np.ndarray] = {"depth": depth, "time": float(epsilon or 0.0) ** 2 * depth}
    for item in stored:
        shape = QUANTITIES[item.quantity].shape(item.n_layers, item.n_entries)
        found[item.quantity] = unpack(item.data, shape)
        if item.se is not None:
            found[f"{item.quantity}_se"] = unpack(item.se, shape)
    return found


_READING_ORDER = [
    v_windows.c[name]
    for name in (
        *("activation", "configuration_id", "reference_kind", "width", "quantity", "closure", "tolerance"),
        *("prediction_run_id", "reference_run_id"),
    )
]
"""The columns by which windows are sorted for reading."""


def _canonical(component: OneOrMany[str]) -> list[str] | None:
    """Components as they are stored. Raises InputError where one is no component."""
    if component is None:
        return None
    return [canonical_component(name) for name in ([component] if isinstance(component, str) else component)]


def _filtered(view: sa.TableClause, **filters: Any) -> sa.Select[Any]:
    query = sa.select(view)
    for name, wanted in filters.items():
        if wanted is None:
            continue
        column = view.c[name]
        many = isinstance(wanted, Sequence | np.ndarray | pd.Series | set) and not isinstance(wanted, str)
        values = _plain(list(wanted) if many else [wanted])
        if name == "activation":
            values = [canonical_name(value) for value in values]
        query = query.where(column.in_(values) if many else column == values[0])
    return query


def _plain(values: list[Any]) -> list[Any]:
    """The values, with numpy scalars from a frame as the Python numbers that the database drivers accept."""
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _in_study(query: sa.Select[Any], study: str | None, *run_ids: sa.ColumnElement[Any]) -> sa.Select[Any]:
    if study is None:
        return query
    members = (
        sa.select(StudyRun.run_id)
        .join(Study, Study.id == StudyRun.study_id)
        .where(sa.or_(Study.name == study, Study.digest == study))
    )
    return query.where(*(run_id.in_(members) for run_id in run_ids))


def _frame(db: Database, query: sa.Select[*tuple[Any, ...]]) -> pd.DataFrame:
    query = narrowed(db, query)
    with db.reading() as session:
        records = session.execute(query).all()
    types = {column.name: column.type for column in query.selected_columns}
    columns: Mapping[str, Sequence[Any]] = dict(
        zip(types, zip(*records, strict=True) if records else [()] * len(types), strict=True)
    )
    frame = pd.DataFrame({name: _series(columns[name], kind) for name, kind in types.items()})
    for name in [name for name in types if name.endswith("_nonfinite")]:
        marked = frame[name].notna()
        frame.loc[marked, name.removesuffix("_nonfinite")] = frame.loc[marked, name].astype(float)
    return frame.drop(columns=[name for name in types if name.endswith("_nonfinite")])


def _series(values: Sequence[Any], kind: sa.types.TypeEngine[Any]) -> pd.Series[Any]:
    if isinstance(kind, UTCDateTime):
        return pd.Series(pd.to_datetime(list(values), utc=True))
    if isinstance(kind, sa.Boolean):
        return pd.Series(list(values), dtype="boolean")
    if isinstance(kind, sa.Integer):
        return pd.Series(list(values), dtype="Int64")
    if isinstance(kind, sa.Double):
        return pd.Series(list(values), dtype="float64")
    return pd.Series(list(values), dtype="object")
