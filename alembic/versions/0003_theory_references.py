"""Comparisons with a theory as the reference, their two views, and Sigma, the source of V4, among the trajectories.

Revises: 0002_lifecycle
"""

from collections.abc import Mapping, Sequence
from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0003_theory_references"
down_revision = "0002_lifecycle"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

TRAJECTORIES = ("K0", "V4", "K1", "U1", "Sigma")
TRAJECTORY_TABLES = ("kernel_trajectories", "trajectory_values")
TWO_RUNS = "prediction_run_id <> reference_run_id"

CONFIGURATION = """c.id AS configuration_id, c.activation, c.weight_variance, c.bias_variance, c.epsilon, c.depth,
    c.total_time, k.n_inputs, k.label AS kernel_label, k.variance AS kernel_variance,
    k.correlation AS kernel_correlation"""
COMPARED = "s.width, s.samples, p.closure, p.closure_order, p.quadrature, p.nodes"
HELD_AGAINST = """p.closure, p.closure_order, p.quadrature, p.nodes,
    r.closure AS reference_closure, r.closure_order AS reference_order"""
WINDOW = "w.quantity, w.tolerance, w.certified_until, w.refuted_from, w.status"
ERRORS = """e.quantity, e.layer, c.epsilon * c.epsilon * e.layer AS time,
    e.error, e.error_se, e.absolute_error, e.absolute_error_se, e.defined,
    e.error_nonfinite, e.error_se_nonfinite, e.absolute_error_nonfinite, e.absolute_error_se_nonfinite"""
CONFIGURATION_OF_PREDICTION = """JOIN model_configurations c ON c.id = p.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id"""

VIEWS = {
    "v_windows": f"""
SELECT {CONFIGURATION}, {COMPARED}, {WINDOW},
    COALESCE(p.algorithm_version < a.version OR s.algorithm_version < b.version, FALSE) AS superseded,
    x.prediction_run_id, x.reference_run_id AS simulation_run_id
FROM validity_windows w
JOIN comparisons x ON x.id = w.comparison_id
JOIN runs p ON p.id = x.prediction_run_id
JOIN runs s ON s.id = x.reference_run_id AND s.kind = 'simulation'
{CONFIGURATION_OF_PREDICTION}
LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
LEFT JOIN algorithm_versions b ON b.algorithm = 'simulation'
""",
    "v_errors": f"""
SELECT {CONFIGURATION}, {COMPARED}, {ERRORS},
    x.prediction_run_id, x.reference_run_id AS simulation_run_id
FROM error_metrics e
JOIN comparisons x ON x.id = e.comparison_id
JOIN runs p ON p.id = x.prediction_run_id
JOIN runs s ON s.id = x.reference_run_id AND s.kind = 'simulation'
{CONFIGURATION_OF_PREDICTION}
""",
    "v_best_closures": f"""
SELECT {CONFIGURATION}, {COMPARED}, {WINDOW}, w.closures, w.as_good,
    w.prediction_run_id, w.simulation_run_id
FROM (
    SELECT z.*,
        row_number() OVER (PARTITION BY simulation_run_id, quantity, tolerance ORDER BY place, cost, prediction_run_id)
            AS choice,
        count(*) OVER (PARTITION BY simulation_run_id, quantity, tolerance) AS closures,
        count(*) OVER (PARTITION BY simulation_run_id, quantity, tolerance, place) AS as_good
    FROM (
        SELECT y.*, rank() OVER (PARTITION BY simulation_run_id, quantity, tolerance
                ORDER BY COALESCE(certified_until, -1) DESC, CASE WHEN status = 'bounded' THEN 1 ELSE 0 END,
                    refuted_from DESC) AS place
        FROM (
            SELECT v.quantity, v.tolerance, v.certified_until, v.refuted_from, v.status,
                x.prediction_run_id, x.reference_run_id AS simulation_run_id,
                CASE q.closure WHEN 'mean' THEN 1 WHEN 'source_only' THEN 2 WHEN 'g_only' THEN 3 WHEN 'sigma' THEN 4
                    WHEN 'wick' THEN 5 ELSE 6 END AS cost,
                rank() OVER (PARTITION BY q.configuration_id, n.width
                    ORDER BY n.algorithm_version DESC, n.samples DESC, n.id DESC) AS largest
            FROM validity_windows v
            JOIN comparisons x ON x.id = v.comparison_id
            JOIN runs q ON q.id = x.prediction_run_id
            JOIN runs n ON n.id = x.reference_run_id AND n.kind = 'simulation'
            LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
            WHERE v.status <> 'too_noisy' AND NOT COALESCE(q.algorithm_version < a.version, FALSE)
        ) y
        WHERE largest = 1
    ) z
) w
JOIN runs p ON p.id = w.prediction_run_id
JOIN runs s ON s.id = w.simulation_run_id
{CONFIGURATION_OF_PREDICTION}
WHERE w.choice = 1
""",
    "v_theory_windows": f"""
SELECT {CONFIGURATION}, {HELD_AGAINST}, {WINDOW},
    COALESCE(p.algorithm_version < a.version OR r.algorithm_version < a.version, FALSE) AS superseded,
    x.prediction_run_id, x.reference_run_id
FROM validity_windows w
JOIN comparisons x ON x.id = w.comparison_id
JOIN runs p ON p.id = x.prediction_run_id
JOIN runs r ON r.id = x.reference_run_id AND r.kind = 'prediction'
{CONFIGURATION_OF_PREDICTION}
LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
""",
    "v_theory_errors": f"""
SELECT {CONFIGURATION}, {HELD_AGAINST}, {ERRORS},
    x.prediction_run_id, x.reference_run_id
FROM error_metrics e
JOIN comparisons x ON x.id = e.comparison_id
JOIN runs p ON p.id = x.prediction_run_id
JOIN runs r ON r.id = x.reference_run_id AND r.kind = 'prediction'
{CONFIGURATION_OF_PREDICTION}
""",
}


def earlier_revisions() -> tuple[ModuleType, ModuleType]:
    """The modules of revisions 0001 and 0002."""
    scripts = op.get_context().environment_context.script
    second = scripts.get_revision(down_revision).module
    return scripts.get_revision(second.down_revision).module, second


def tables(dialect: str, first: ModuleType) -> dict[str, sa.Table]:
    """The three tables that this revision changes, as it leaves them."""
    metadata = first.tables(dialect)
    for name in TRAJECTORY_TABLES:
        quantity = sa.Column("quantity", first.choice("quantity", TRAJECTORIES), primary_key=True)
        metadata.tables[name].append_column(quantity, replace_existing=True)
    metadata.remove(metadata.tables["comparisons"])
    now = sa.text(first.CLOCK[dialect])
    sa.Table(
        "comparisons",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        first.owner("prediction_run_id", "runs.id"),
        first.owner("reference_run_id", "runs.id", index=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.UniqueConstraint("prediction_run_id", "reference_run_id"),
        sa.CheckConstraint(TWO_RUNS, name="of_two_runs"),
        sqlite_autoincrement=True,
    )
    return dict(metadata.tables)


def rebuild(table: sa.Table) -> None:
    """SQLite: copy a table into one of this definition, which must not forget the ids of deleted rows.

    Foreign keys are off while migrations run, so that rows which refer to the table stay.
    """
    connection = op.get_bind()
    last = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
    options = {f"sqlite_{name}": value for name, value in table.dialect_options["sqlite"].items()}
    with op.batch_alter_table(table.name, copy_from=table, recreate="always", table_kwargs=options):
        pass
    for index in table.indexes:  # what the copy leaves behind
        op.create_index(index.name, table.name, list(index.columns.keys()))
    if last is not None:
        op.execute(f"DELETE FROM sqlite_sequence WHERE name = '{table.name}'")
        op.execute(f"INSERT INTO sqlite_sequence VALUES ('{table.name}', {last})")


def change(definitions: Mapping[str, sa.Table], quantities: Sequence[str], reference: str, before: str) -> None:
    """Bring the three tables to these definitions: trajectories of ``quantities``, comparisons with ``reference``."""
    op.execute(f"ALTER TABLE comparisons RENAME COLUMN {before} TO {reference}")
    if op.get_bind().dialect.name == "sqlite":
        for name in (*TRAJECTORY_TABLES, "comparisons"):
            rebuild(definitions[name])
        return
    for name in TRAJECTORY_TABLES:
        op.execute(f"ALTER TABLE {name} DROP CONSTRAINT ck_{name}_quantity")
        op.create_check_constraint(op.f(f"ck_{name}_quantity"), name, sa.column("quantity").in_(quantities))
    for name in ("uq_comparisons_prediction_run_id_", "fk_comparisons_"):
        op.execute(f"ALTER TABLE comparisons RENAME CONSTRAINT {name}{before} TO {name}{reference}")
    op.execute(f"ALTER INDEX ix_comparisons_{before} RENAME TO ix_comparisons_{reference}")
    if reference == "reference_run_id":
        op.create_check_constraint(op.f("ck_comparisons_of_two_runs"), "comparisons", TWO_RUNS)
    else:
        op.drop_constraint(op.f("ck_comparisons_of_two_runs"), "comparisons")


def runs_of_automatic_order(first: ModuleType) -> tuple[sa.TableClause, sa.ColumnElement[bool]]:
    """Wick predictions that chose their order themselves, which revision 0002 kept in their details alone."""
    columns = (sa.column("closure"), sa.column("closure_order"), sa.column("spec", first.JSON))
    runs = sa.table("runs", *columns, sa.column("details", first.JSON))
    return runs, sa.and_(runs.c.closure == "wick", runs.c.spec["order"].as_string() == "auto")


def upgrade() -> None:
    first, second = earlier_revisions()
    views = {**first.VIEWS, **second.VIEWS}
    second.drop_views(list(views))
    definitions = tables(op.get_bind().dialect.name, first)
    change(definitions, TRAJECTORIES, reference="reference_run_id", before="simulation_run_id")
    runs, automatic = runs_of_automatic_order(first)
    op.execute(sa.update(runs).where(automatic).values(closure_order=runs.c.details["wick_order"].as_integer()))
    second.create_views({**views, **VIEWS})


def downgrade() -> None:
    """Comparisons with a theory as the reference and trajectories of Sigma are deleted."""
    first, second = earlier_revisions()
    views = {**first.VIEWS, **second.VIEWS}
    second.drop_views(list({**views, **VIEWS}))
    with_theory = (
        "SELECT x.id FROM comparisons x JOIN runs r ON r.id = x.reference_run_id WHERE r.kind = 'prediction'"
    )
    for table in ("error_metrics", "validity_windows"):
        op.execute(f"DELETE FROM {table} WHERE comparison_id IN ({with_theory})")
    op.execute(f"DELETE FROM comparisons WHERE id IN ({with_theory})")
    for table in TRAJECTORY_TABLES:
        op.execute(f"DELETE FROM {table} WHERE quantity = 'Sigma'")
    runs, automatic = runs_of_automatic_order(first)
    op.execute(sa.update(runs).where(automatic).values(closure_order=None))
    definitions = first.tables(op.get_bind().dialect.name).tables
    change(definitions, first.QUANTITIES, reference="simulation_run_id", before="reference_run_id")
    second.create_views(views)
