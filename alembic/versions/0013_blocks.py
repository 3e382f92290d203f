"""Blocks with two matrices: what a residual branch of a network is made of, among its configuration and in every view.

Revises: 0012_kernel_quantiles
"""

from types import ModuleType

from alembic import op

revision = "0013_blocks"
down_revision = "0012_kernel_quantiles"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

TABLE = "model_configurations"
NEW = ("block", "normalisation", "hidden_ratio", "hidden_weight_variance", "hidden_bias_variance")
LARGEST = "1.7976931348623157e308"
OF_RUNS = (
    "study_runs",
    "kernel_trajectories",
    "trajectory_values",
    "simulation_precision",
    "kernel_quantiles",
)
"""Tables with a column run_id."""
OF_COMPARISONS = ("error_metrics", "validity_windows")


def earlier_revisions() -> tuple[ModuleType, ModuleType]:
    """The modules of revisions 0002 and 0012."""
    twelfth = op.get_context().environment_context.script.get_revision(down_revision).module
    *_, eleventh = twelfth.earlier_revisions()
    second = eleventh.earlier_revisions()[0]
    return second, twelfth


def views_before() -> dict[str, str]:
    """Every view as this revision finds it."""
    _, twelfth = earlier_revisions()
    first, third, fifth, eleventh = twelfth.earlier_revisions()
    return {**eleventh.views(), **twelfth.views(third, fifth, eleventh)}


def views() -> dict[str, str]:
    """Every view as this revision leaves it; those by study take their columns from these."""
    found = {}
    for name, query in views_before().items():
        of_configuration = "c.total_time," + "".join(f" c.{column}," for column in NEW)
        found[name] = query.replace("c.total_time,", of_configuration)
        if name.startswith("v_theory_"):
            assert query.count(" total_time,") == 1
            found[name] = query.replace(" total_time,", " total_time," + "".join(f" {column}," for column in NEW))
    return found


def columns() -> dict[str, str]:
    """The new columns with their rules."""
    number = "DOUBLE" if op.get_bind().dialect.name == "sqlite" else "DOUBLE PRECISION"

    def finite(name: str) -> str:
        rule = f"{name} IS NULL OR {name} BETWEEN -{LARGEST} AND {LARGEST}"
        return f"{number} CONSTRAINT ck_{TABLE}_{name}_is_finite CHECK ({rule})"

    of_its_block = f"CONSTRAINT ck_{TABLE}_hidden_of_its_block CHECK ((block = 'two_matrix') = (hidden_ratio IS NOT NULL))"
    return {
        "block": "VARCHAR(16) DEFAULT 'one_matrix' NOT NULL"
        f" CONSTRAINT ck_{TABLE}_block CHECK (block IN ('one_matrix', 'two_matrix'))",
        "normalisation": f"VARCHAR(16) CONSTRAINT ck_{TABLE}_normalisation CHECK (normalisation IN ('rms', 'layer'))",
        "hidden_ratio": f"{finite('hidden_ratio')} {of_its_block}",
        "hidden_weight_variance": finite("hidden_weight_variance"),
        "hidden_bias_variance": finite("hidden_bias_variance"),
    }


def upgrade() -> None:
    """Networks that are recorded already have one matrix in a block."""
    second, _ = earlier_revisions()
    second.drop_views(list(views_before()))
    for name, definition in columns().items():
        op.execute(f"ALTER TABLE {TABLE} ADD COLUMN {name} {definition}")
    second.create_views(views())


def downgrade() -> None:
    """Networks of other blocks than the paper's are deleted with all their results: earlier programs know no such thing.

    They have two matrices, or a normalisation.
    """
    second, _ = earlier_revisions()
    second.drop_views(list(views()))
    others = f"SELECT id FROM {TABLE} WHERE block = 'two_matrix' OR normalisation IS NOT NULL"
    runs = f"SELECT id FROM runs WHERE configuration_id IN ({others})"
    compared = f"SELECT id FROM comparisons WHERE prediction_run_id IN ({runs})"
    for table in OF_COMPARISONS:
        op.execute(f"DELETE FROM {table} WHERE comparison_id IN ({compared})")
    op.execute(f"DELETE FROM comparisons WHERE prediction_run_id IN ({runs})")
    op.execute(f"DELETE FROM width_windows WHERE prediction_run_id IN ({runs})")
    for table in OF_RUNS:
        op.execute(f"DELETE FROM {table} WHERE run_id IN ({runs})")
    op.execute(f"UPDATE runs SET extends_run_id = NULL WHERE configuration_id IN ({others})")
    op.execute(f"DELETE FROM runs WHERE configuration_id IN ({others})")
    op.execute(f"DELETE FROM {TABLE} WHERE block = 'two_matrix' OR normalisation IS NOT NULL")
    # the last column first: its rule names the first
    for name in reversed(NEW):
        op.execute(f"ALTER TABLE {TABLE} DROP COLUMN {name}")
    second.create_views(views_before())
