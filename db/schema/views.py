"""The documented views as SQLAlchemy selectables: their columns and types (the SQL is in the migrations)."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from db.schema.types import UTCDateTime

REFERENCE_KINDS = ("simulation", "theory", "measurement", "check")
"""Values of the column reference_kind: what a prediction is held against."""

_TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "integer": sa.Integer(),
    "number": sa.Double(),
    "text": sa.Text(),
    "flag": sa.Boolean(),
    "time": UTCDateTime(),
}

_CONFIGURATION = (
    "configuration_id:integer activation:text weight_variance:number bias_variance:number epsilon:number depth:integer"
    " total_time:number block:text normalisation:text hidden_ratio:number hidden_weight_variance:number"
    " hidden_bias_variance:number n_inputs:integer kernel_label:text kernel_variance:number kernel_correlation:number"
)
OF_CONFIGURATION = tuple(column.partition(":")[0] for column in _CONFIGURATION.split())
"""Columns that describe a model at one input kernel, with which every view begins."""

_ENSEMBLE = "samples:integer seed:integer estimator:text sampler:text dtype:text"
_SIMULATED = f"width:integer {_ENSEMBLE}"
OF_SIMULATION = frozenset(column.partition(":")[0] for column in f"{_CONFIGURATION} {_SIMULATED}".split())
"""Columns that describe a simulation, in every view that has simulations."""

_PREDICTED = (
    "closure:text closure_order:integer quadrature:text nodes:integer rtol:number step:text continuous:flag"
    " next_order:flag"
)
_COMPARED = f"{_SIMULATED} {_PREDICTED}"
_REFERENCE_THEORY = (
    "reference_closure:text reference_order:integer reference_quadrature:text reference_nodes:integer"
    " reference_rtol:number reference_step:text reference_continuous:flag reference_next_order:flag"
)
_REFERENCE = f"reference_kind:text {_REFERENCE_THEORY}"
_REFERENCE_MEASURED = "reference_widths:text reference_samples:integer"
_SPENT = "worker_seconds:number elapsed_seconds:number"
_ENDS = (
    "quantity:text tolerance:number resolved_from:number certified_until:number refuted_from:number status:text"
    " confidence:number converged:flag numerical_error:number"
)
_WINDOW = f"{_ENDS} superseded:flag"
_ERRORS = (
    "quantity:text layer:integer time:number error:number error_se:number absolute_error:number"
    " absolute_error_se:number defined:flag error_nonfinite:text error_se_nonfinite:text"
    " absolute_error_nonfinite:text absolute_error_se_nonfinite:text"
    " error_low:number error_high:number resolution:number converged:flag"
)
_RUN_IDS = "prediction_run_id:integer simulation_run_id:integer"
_THEORY_IDS = "prediction_run_id:integer reference_run_id:integer"
_ALL_IDS = f"{_THEORY_IDS} simulation_run_id:integer"


def _view(name: str, *parts: str) -> sa.TableClause:
    columns = (column.split(":") for column in " ".join(parts).split())
    return sa.table(name, *(sa.column(column, _TYPES[kind]) for column, kind in columns))


v_runs = _view(
    "v_runs",
    "run_id:integer kind:text status:text digest:text",
    _CONFIGURATION,
    f"width:integer widths:text {_ENSEMBLE}",
    "extends_run_id:integer stopped_because:text",
    _PREDICTED,
    "converged:flag algorithm_version:integer superseded:flag git_commit:text git_dirty:flag host:text device:text",
    "python:text flow_run_id:text task_run_id:text started_at:time",
    _SPENT,
    "created_at:time updated_at:time heartbeat_at:time error_message:text",
)

v_windows = _view("v_windows", _CONFIGURATION, _COMPARED, _REFERENCE, _REFERENCE_MEASURED, _WINDOW, _ALL_IDS)

v_errors = _view("v_errors", _CONFIGURATION, _COMPARED, _REFERENCE, _REFERENCE_MEASURED, _ERRORS, _ALL_IDS)

v_theory_windows = _view("v_theory_windows", _CONFIGURATION, _PREDICTED, _REFERENCE_THEORY, _WINDOW, _THEORY_IDS)

v_theory_errors = _view("v_theory_errors", _CONFIGURATION, _PREDICTED, _REFERENCE_THEORY, _ERRORS, _THEORY_IDS)

v_trajectories = _view(
    "v_trajectories",
    _CONFIGURATION,
    _COMPARED,
    "reference_kind:text",
    "quantity:text component:text layer:integer time:number simulated:number simulated_se:number predicted:number",
    "converged:flag",
    "simulated_nonfinite:text simulated_se_nonfinite:text predicted_nonfinite:text",
    _ALL_IDS,
)

v_measurements = _view(
    "v_measurements",
    _CONFIGURATION,
    "widths:text samples:integer",
    _PREDICTED,
    "quantity:text component:text layer:integer time:number measured:number measured_se:number predicted:number",
    "converged:flag superseded:flag",
    "measured_nonfinite:text measured_se_nonfinite:text predicted_nonfinite:text",
    "prediction_run_id:integer measurement_run_id:integer",
)

v_best_closures = _view(
    "v_best_closures",
    _CONFIGURATION,
    _COMPARED,
    _ENDS,
    "closures:integer as_good:integer",
    _RUN_IDS,
)

v_quantiles = _view(
    "v_quantiles",
    _CONFIGURATION,
    _SIMULATED,
    "reference_kind:text component:text layer:integer time:number",
    "probability:number value:number low:number high:number",
    "superseded:flag reference_run_id:integer simulation_run_id:integer",
)

v_precision = _view(
    "v_precision",
    _CONFIGURATION,
    _SIMULATED,
    "quantity:text relative_se:number largest_relative_se:number",
    "reliable_share:number degrees_of_freedom:number",
    "target_kind:text target:number reached:number met:flag stopped_because:text",
    _SPENT,
    "relative_se_nonfinite:text largest_relative_se_nonfinite:text reached_nonfinite:text",
    "simulation_run_id:integer",
)

v_width_windows = _view(
    "v_width_windows",
    _CONFIGURATION,
    _PREDICTED,
    _REFERENCE,
    "quantity:text tolerance:number layer:integer time:number width:number width_low:number width_high:number",
    "status:text widths:integer converged:flag superseded:flag",
    _THEORY_IDS,
)

v_checks = _view(
    "v_checks",
    _CONFIGURATION,
    "width:integer samples:integer seed:integer dtype:text device:text",
    "module:text module_digest:text factory:text factory_digest:text guessed:flag",
    "module_p_value:number first_deviating_layer:integer verdict:text",
    "layer:integer time:number block_name:text p_value:number largest_z:number deviates:flag",
    "fitted_weight_variance:number fitted_weight_variance_se:number fitted_bias_variance:number",
    "fitted_bias_variance_se:number fitted_epsilon:number fitted_epsilon_se:number diagnosis:text",
    "superseded:flag check_run_id:integer",
)

TWINNED = (
    v_runs,
    v_windows,
    v_errors,
    v_trajectories,
    v_measurements,
    v_quantiles,
    v_best_closures,
    v_precision,
    v_theory_windows,
    v_theory_errors,
    v_width_windows,
)
"""Views of what studies ask for, each with a twin by study."""

OF_RESULTS = (*TWINNED, v_checks)


def by_study(view: str) -> str:
    """Name of the variant of a view by study.

    It has a row for each study that a row of the view belongs to, with the name of the study as the first column.

    >>> by_study("v_windows")
    'v_study_windows'
    """
    return view.replace("v_", "v_study_", 1)


def _twin(view: sa.TableClause) -> sa.TableClause:
    columns = (sa.column(column.name, column.type) for column in view.c)
    return sa.table(by_study(view.name), sa.column("study", sa.Text()), *columns)


VIEWS = (*OF_RESULTS, *map(_twin, TWINNED))
