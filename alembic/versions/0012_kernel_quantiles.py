"""Quantiles of each kernel entry G_aa over the networks of a simulation, and their view.

Revises: 0011_measured_next_order
"""

from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0012_kernel_quantiles"
down_revision = "0011_measured_next_order"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

TABLE = "kernel_quantiles"
VIEW, BY_STUDY = "v_quantiles", "v_study_quantiles"


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0001, 0003, 0005 and 0011."""
    eleventh = op.get_context().environment_context.script.get_revision(down_revision).module
    *_, tenth = eleventh.earlier_revisions()
    first, _, third, fifth, *_ = tenth.earlier_revisions()
    return first, third, fifth, eleventh


def table(dialect: str, first: ModuleType) -> sa.Table:
    return sa.Table(
        TABLE,
        first.tables(dialect),
        first.owner("run_id", "runs.id", primary_key=True),
        sa.Column("component", sa.String(32), primary_key=True),
        sa.Column("layer", sa.Integer, primary_key=True),
        sa.Column("probability", sa.Double, primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("low", sa.Double),
        sa.Column("high", sa.Double),
        *first.finite("value", "low", "high"),
        sa.CheckConstraint("probability > 0 AND probability < 1", name="probability_inside"),
        sa.CheckConstraint("low <= value AND value <= high", name="bounds_in_order"),
        sqlite_with_rowid=False,
    )


def views(third: ModuleType, fifth: ModuleType, eleventh: ModuleType) -> dict[str, str]:
    """The view of quantiles, and its twin by study."""
    of_simulations = eleventh.views()["v_study_precision"]
    return {
        VIEW: f"""
SELECT {third.CONFIGURATION}, {fifth.SIMULATED},
    q.component, q.layer, c.epsilon * c.epsilon * q.layer AS time, q.probability, q.value, q.low, q.high,
    COALESCE(s.algorithm_version < b.version, FALSE) AS superseded, q.run_id AS simulation_run_id
FROM {TABLE} q
JOIN runs s ON s.id = q.run_id
JOIN model_configurations c ON c.id = s.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
LEFT JOIN algorithm_versions b ON b.algorithm = 'simulation'
""",
        BY_STUDY: of_simulations.replace("v_precision", VIEW),
    }


def upgrade() -> None:
    """Simulations that are recorded already get theirs from `eft run`, which computes nothing again for them."""
    first, third, fifth, eleventh = earlier_revisions()
    table(op.get_bind().dialect.name, first).create(op.get_bind())
    for name, query in views(third, fifth, eleventh).items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    """The quantiles are deleted; `eft run` adds them again."""
    for name in (BY_STUDY, VIEW):
        op.execute(f"DROP VIEW {name}")
    op.drop_table(TABLE)
