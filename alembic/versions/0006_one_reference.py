"""v_windows and v_errors hold the rows of every reference, a simulation or a better theory, and say which it is.

Revises: 0005_studies_and_settings
"""

from types import ModuleType

from alembic import op

revision = "0006_one_reference"
down_revision = "0005_studies_and_settings"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

KIND = "CASE r.kind WHEN 'prediction' THEN 'theory' ELSE r.kind END AS reference_kind"
SUPERSEDED = "COALESCE(p.algorithm_version < a.version OR r.algorithm_version < b.version, FALSE) AS superseded"
RUN_IDS = "x.prediction_run_id, x.reference_run_id, s.id AS simulation_run_id"
RUNS = """JOIN runs p ON p.id = x.prediction_run_id
JOIN runs r ON r.id = x.reference_run_id
LEFT JOIN runs s ON s.id = x.reference_run_id AND s.kind = 'simulation'"""
"""A condition on simulation_run_id turns the outer join into an inner one, which finds comparisons by their index."""

CONFIGURATION_NAMES = """configuration_id, activation, weight_variance, bias_variance, epsilon, depth, total_time, n_inputs,
    kernel_label, kernel_variance, kernel_correlation"""
THEORY_NAMES = """closure, closure_order, quadrature, nodes, rtol, step, continuous,
    reference_closure, reference_order, reference_quadrature, reference_nodes, reference_rtol, reference_step,
    reference_continuous"""
WINDOW_NAMES = """quantity, tolerance, resolved_from, certified_until, refuted_from, status, confidence, converged,
    numerical_error, superseded"""
ERROR_NAMES = """quantity, layer, time, error, error_se, absolute_error, absolute_error_se, defined,
    error_nonfinite, error_se_nonfinite, absolute_error_nonfinite, absolute_error_se_nonfinite,
    error_low, error_high, resolution, converged"""


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0001 to 0005."""
    fifth = op.get_context().environment_context.script.get_revision(down_revision).module
    return (*fifth.earlier_revisions(), fifth)


def views() -> dict[str, str]:
    """Every view as this revision leaves it, and its twin by study."""
    _, _, third, fourth, fifth = earlier_revisions()
    compared = f"{third.CONFIGURATION},\n    {fifth.SIMULATED}, {fifth.PREDICTED},\n    {KIND}, {fifth.REFERENCE}"
    changed = {
        "v_windows": f"""
SELECT {compared}, {fourth.WINDOW},
    {SUPERSEDED},
    {RUN_IDS}
FROM validity_windows w
JOIN comparisons x ON x.id = w.comparison_id
{RUNS}
{third.CONFIGURATION_OF_PREDICTION}
LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
LEFT JOIN algorithm_versions b ON b.algorithm = r.kind
""",
        "v_errors": f"""
SELECT {compared}, {third.ERRORS},
    {fourth.BOUNDS},
    {RUN_IDS}
FROM error_metrics e
JOIN comparisons x ON x.id = e.comparison_id
{RUNS}
{third.CONFIGURATION_OF_PREDICTION}
""",
        "v_theory_windows": of_theories("v_windows", WINDOW_NAMES),
        "v_theory_errors": of_theories("v_errors", ERROR_NAMES),
    }
    before = fifth.views()
    for name in ("windows", "errors"):  # rows of a study: as those with a theory as the reference
        twin = before[f"v_study_theory_{name}"]
        changed[f"v_study_{name}"] = twin.replace(f"v_theory_{name}", f"v_{name}")
    return {**before, **changed}


def of_theories(view: str, names: str) -> str:
    """The rows of a view whose reference is a theory, without the columns of simulations."""
    return f"""
SELECT {CONFIGURATION_NAMES},
    {THEORY_NAMES},
    {names},
    prediction_run_id, reference_run_id
FROM {view}
WHERE reference_kind = 'theory'
"""


def upgrade() -> None:
    _, second, _, _, fifth = earlier_revisions()
    second.drop_views(list(fifth.views()))
    second.create_views(views())


def downgrade() -> None:
    _, second, _, _, fifth = earlier_revisions()
    second.drop_views(list(views()))
    second.create_views(fifth.views())
