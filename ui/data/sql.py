"""Documented views with their columns, example queries and columns for charts, for the SQL page."""

from __future__ import annotations

import pandas as pd

from db.schema.views import OF_RESULTS

EXAMPLES = {
    "windows at 5 %": """SELECT activation, weight_variance, width, closure, quantity,
       certified_until, refuted_from, status
FROM v_windows
WHERE reference_kind = 'simulation' AND tolerance = 0.05
ORDER BY activation, width, closure, quantity""",
    "where G-only fails first": """SELECT activation, epsilon, weight_variance, bias_variance, kernel_label, width,
       certified_until, refuted_from
FROM v_windows
WHERE reference_kind = 'simulation' AND closure = 'g_only' AND quantity = 'V4' AND tolerance = 0.05
  AND status = 'bounded'
ORDER BY refuted_from
LIMIT 20""",
    "how wide, from theory": """SELECT activation, weight_variance, kernel_label, closure, time, width, status
FROM v_width_windows
WHERE reference_kind = 'theory' AND quantity = 'V4' AND tolerance = 0.05 AND layer = depth
ORDER BY activation, closure""",
    "error of V4 over depth": """SELECT time, error, error_se, closure
FROM v_errors
WHERE quantity = 'V4' AND simulation_run_id = (SELECT max(simulation_run_id) FROM v_errors)
ORDER BY closure, time""",
    "theory beside simulation": """SELECT time, closure, simulated, simulated_se, predicted
FROM v_trajectories
WHERE quantity = 'K1' AND component = '00'
  AND simulation_run_id = (SELECT max(simulation_run_id) FROM v_trajectories)
ORDER BY closure, time""",
    "the kernel of one network": """SELECT time, probability, value, low, high
FROM v_quantiles
WHERE component = '00' AND probability IN (0.025, 0.5, 0.975)
  AND simulation_run_id = (SELECT max(simulation_run_id) FROM v_quantiles)
ORDER BY probability, time""",
    "modules that deviate": """SELECT module, factory, width, samples, block_name, p_value,
       fitted_weight_variance / weight_variance AS ratio, diagnosis
FROM v_checks
WHERE layer = first_deviating_layer
ORDER BY check_run_id DESC""",
    "what simulations cost": """SELECT run_id, activation, depth, width, n_inputs, samples, worker_seconds,
       1e9 * worker_seconds / samples / depth / width / n_inputs AS ns_per_neuron_input_layer
FROM v_runs
WHERE kind = 'simulation' AND status = 'succeeded'
ORDER BY run_id DESC""",
    "failures": """SELECT run_id, kind, activation, closure, width, error_message, updated_at
FROM v_runs
WHERE status = 'failed'
ORDER BY updated_at DESC""",
}
"""Example queries by name, each one SELECT that SQLite and PostgreSQL both understand."""

MOST_CURVES = 20
"""Most distinct values of a column that may distinguish curves."""

MEANING = {
    "v_runs": "one row per run: what was computed, how it went, where it came from",
    "v_windows": "one row per theory, reference, quantity and tolerance: the validity window t*",
    "v_errors": "one row per theory, reference, quantity and layer: relative and absolute error",
    "v_trajectories": "one row per theory, simulation or check, component and layer: both values side by side",
    "v_measurements": "one row per theory, component and layer of D and K2: predicted and measured side by side",
    "v_theory_windows": "the rows of v_windows whose reference is a better theory",
    "v_theory_errors": "the rows of v_errors whose reference is a better theory",
    "v_quantiles": "one row per simulation or check, entry, layer and probability: a quantile of a network's kernel",
    "v_checks": "one row per block of a checked torch module: its p-value, and what it has beside what it should have",
    "v_best_closures": "one row per simulation, quantity and tolerance: the closure that holds longest",
    "v_width_windows": "one row per theory, quantity, tolerance and layer: from which width on it holds, n*",
    "v_precision": "one row per simulation and quantity: how well it is known, and the precision it was run for",
}


def view_columns() -> pd.DataFrame:
    """view, column and type of every column of the documented views."""
    rows = [
        {"view": view.name, "column": column.name, "type": str(column.type).lower()}
        for view in OF_RESULTS
        for column in view.columns
    ]
    return pd.DataFrame(rows)


def chart_columns(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Columns that can be an axis (numbers), and other columns with few values, which can distinguish curves."""
    numeric = [str(name) for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])]
    few = [str(name) for name in frame.columns if str(name) not in numeric and frame[name].nunique() <= MOST_CURVES]
    return numeric, few
