"""Every view says which settings a row was computed with, and has a twin by study; time at work, and elapsed time.

Revises: 0004_calibrated_verdicts
"""

from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0005_studies_and_settings"
down_revision = "0004_calibrated_verdicts"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

SPENT = ("worker_seconds", "elapsed_seconds")

SIMULATED = "s.width, s.samples, s.seed, s.estimator, s.sampler, s.dtype"
PREDICTED = "p.closure, p.closure_order, p.quadrature, p.nodes, p.rtol, p.step, p.continuous"
REFERENCE = """r.closure AS reference_closure, r.closure_order AS reference_order,
    r.quadrature AS reference_quadrature, r.nodes AS reference_nodes, r.rtol AS reference_rtol,
    r.step AS reference_step, r.continuous AS reference_continuous"""
CHANGES = {
    "v_runs": {"r.wall_seconds": "r.worker_seconds, r.elapsed_seconds"},
    "v_precision": {
        "s.width, s.samples, s.estimator": SIMULATED,
        "s.wall_seconds": "s.worker_seconds, s.elapsed_seconds",
    },
}
"""Of these views; the others name what they compare in one of two ways."""

WITH_SIMULATION = ("v.prediction_run_id", "v.simulation_run_id")
WITH_THEORY = ("v.prediction_run_id", "v.reference_run_id")
RUNS_OF = {
    "v_runs": ("v.run_id",),
    "v_windows": WITH_SIMULATION,
    "v_errors": WITH_SIMULATION,
    "v_trajectories": ("COALESCE(v.prediction_run_id, v.simulation_run_id)", "v.simulation_run_id"),
    "v_best_closures": WITH_SIMULATION,
    "v_precision": ("v.simulation_run_id",),
    "v_theory_windows": WITH_THEORY,
    "v_theory_errors": WITH_THEORY,
}
"""What names the runs of a row of each view."""


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0001 to 0004."""
    fourth = op.get_context().environment_context.script.get_revision(down_revision).module
    return (*fourth.earlier_revisions(), fourth)


def earlier_views() -> dict[str, str]:
    """Every view as revision 0004 left it."""
    first, second, third, fourth = earlier_revisions()
    return {**first.VIEWS, **second.VIEWS, **third.VIEWS, **fourth.changed_views(first, second, third)}


def views() -> dict[str, str]:
    """Every view as this revision leaves it, and its twin."""
    _, second, third, _ = earlier_revisions()
    compared = {second.COMPARED: f"{SIMULATED}, {PREDICTED}", third.HELD_AGAINST: f"{PREDICTED},\n    {REFERENCE}"}
    found = {}
    for name, query in earlier_views().items():
        changes = CHANGES.get(name) or {old: new for old, new in compared.items() if old in query}
        assert changes
        for old, new in changes.items():
            assert query.count(old) == 1
            query = query.replace(old, new)
        found[name] = query
    return {**found, **{name.replace("v_", "v_study_", 1): by_study(name) for name in found}}


def by_study(name: str) -> str:
    """The rows of a view, once for each name of a study to which all of a row's runs belong."""
    members = "\n    ".join(
        f"JOIN study_runs m{place} ON m{place}.study_id = y.id AND m{place}.run_id = {run}"
        for place, run in enumerate(RUNS_OF[name])
    )
    return f"""
SELECT n.study, v.*
FROM {name} v
JOIN (SELECT DISTINCT name AS study FROM studies) n ON EXISTS (
    SELECT 1 FROM studies y
    {members}
    WHERE y.name = n.study
)
"""


def upgrade() -> None:
    first, second, *_ = earlier_revisions()
    dialect = op.get_bind().dialect.name
    second.drop_views(list(earlier_views()))
    with second.rebuilt_runs(second.current_runs(dialect, first)) as batch:
        batch.drop_constraint(op.f("ck_runs_wall_seconds_is_finite"), type_="check")
        batch.alter_column("wall_seconds", new_column_name="worker_seconds")
        batch.add_column(sa.Column("elapsed_seconds", sa.Double))
        for column in SPENT:
            (rule,) = first.finite(column)
            batch.create_check_constraint(op.f(f"ck_runs_{column}_is_finite"), rule.sqltext)
    restore_indexes()
    second.create_views(views())


def downgrade() -> None:
    """Elapsed times are deleted."""
    first, second, third, _ = earlier_revisions()
    dialect = op.get_bind().dialect.name
    second.drop_views(list(views()))
    op.execute("ALTER TABLE runs RENAME COLUMN worker_seconds TO wall_seconds")
    if dialect == "sqlite":
        third.rebuild(second.current_runs(dialect, first))
    else:
        op.execute("ALTER TABLE runs DROP COLUMN elapsed_seconds")
        names = "ck_runs_worker_seconds_is_finite TO ck_runs_wall_seconds_is_finite"
        op.execute(f"ALTER TABLE runs RENAME CONSTRAINT {names}")
    restore_indexes()
    second.create_views(earlier_views())


def restore_indexes() -> None:
    """SQLite: what a copy of the table leaves behind and revision 0002 added."""
    if op.get_bind().dialect.name == "sqlite":
        for name in ("status", "extends_run_id"):
            op.create_index(f"ix_runs_{name}", "runs", [name])
