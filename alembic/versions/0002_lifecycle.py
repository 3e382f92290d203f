"""Runs that are pending, running or stale; claims on work; top-ups; precision of simulations; versions of algorithms.

Revises: 0001_first_tables
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import sqlalchemy as sa
from alembic.operations import BatchOperations

from alembic import op

revision = "0002_lifecycle"
down_revision = "0001_first_tables"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revision before is frozen too, and its definitions are used where they stay.

OLD_STATUSES = ("succeeded", "failed")
STATUSES = ("pending", "running", "succeeded", "failed", "stale")
STOP_REASONS = ("met", "cap", "count")
NEW_COLUMNS = ("extends_run_id", "stopped_because", "flow_run_id", "task_run_id")

CONFIGURATION = """c.id AS configuration_id, c.activation, c.weight_variance, c.bias_variance, c.epsilon, c.depth,
    c.total_time, k.n_inputs, k.label AS kernel_label, k.variance AS kernel_variance,
    k.correlation AS kernel_correlation"""
COMPARED = "s.width, s.samples, p.closure, p.closure_order, p.quadrature, p.nodes"

VIEWS = {
    "v_runs": f"""
SELECT r.id AS run_id, r.kind, r.status, r.digest, {CONFIGURATION},
    r.width, r.samples, r.seed, r.estimator, r.sampler, r.dtype, r.extends_run_id, r.stopped_because,
    r.closure, r.closure_order, r.quadrature, r.nodes, r.rtol, r.step, r.continuous, r.converged,
    r.algorithm_version, COALESCE(r.algorithm_version < a.version, FALSE) AS superseded,
    r.git_commit, r.git_dirty, r.host, r.device, r.python, r.flow_run_id, r.task_run_id, r.started_at, r.wall_seconds,
    r.created_at, r.updated_at, h.heartbeat_at, r.error_message
FROM runs r
JOIN model_configurations c ON c.id = r.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
LEFT JOIN algorithm_versions a ON a.algorithm = r.kind
LEFT JOIN claims h ON h.digest = r.digest
""",
    "v_windows": f"""
SELECT {CONFIGURATION}, {COMPARED},
    w.quantity, w.tolerance, w.certified_until, w.refuted_from, w.status,
    COALESCE(p.algorithm_version < a.version OR s.algorithm_version < b.version, FALSE) AS superseded,
    x.prediction_run_id, x.simulation_run_id
FROM validity_windows w
JOIN comparisons x ON x.id = w.comparison_id
JOIN runs p ON p.id = x.prediction_run_id
JOIN runs s ON s.id = x.simulation_run_id
JOIN model_configurations c ON c.id = p.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
LEFT JOIN algorithm_versions b ON b.algorithm = 'simulation'
""",
    "v_best_closures": f"""
SELECT {CONFIGURATION}, {COMPARED},
    w.quantity, w.tolerance, w.certified_until, w.refuted_from, w.status, w.closures, w.as_good,
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
                x.prediction_run_id, x.simulation_run_id,
                CASE q.closure WHEN 'mean' THEN 1 WHEN 'source_only' THEN 2 WHEN 'g_only' THEN 3 WHEN 'sigma' THEN 4
                    WHEN 'wick' THEN 5 ELSE 6 END AS cost,
                rank() OVER (PARTITION BY q.configuration_id, n.width
                    ORDER BY n.algorithm_version DESC, n.samples DESC, n.id DESC) AS largest
            FROM validity_windows v
            JOIN comparisons x ON x.id = v.comparison_id
            JOIN runs q ON q.id = x.prediction_run_id
            JOIN runs n ON n.id = x.simulation_run_id
            LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
            WHERE v.status <> 'too_noisy' AND NOT COALESCE(q.algorithm_version < a.version, FALSE)
        ) y
        WHERE largest = 1
    ) z
) w
JOIN runs p ON p.id = w.prediction_run_id
JOIN runs s ON s.id = w.simulation_run_id
JOIN model_configurations c ON c.id = p.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
WHERE w.choice = 1
""",
    "v_precision": f"""
SELECT {CONFIGURATION}, s.width, s.samples, s.estimator,
    q.quantity, q.relative_se, q.largest_relative_se, q.target_kind, q.target, q.reached,
    q.reached <= q.target AS met, s.stopped_because, s.wall_seconds,
    q.relative_se_nonfinite, q.largest_relative_se_nonfinite, q.reached_nonfinite,
    q.run_id AS simulation_run_id
FROM simulation_precision q
JOIN runs s ON s.id = q.run_id
JOIN model_configurations c ON c.id = s.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
""",
}




def first_revision() -> ModuleType:
    """The module of revision 0001."""
    return op.get_context().environment_context.script.get_revision(down_revision).module


def new_tables(dialect: str, before: ModuleType) -> list[sa.Table]:
    metadata = before.tables(dialect)
    now = sa.text(before.CLOCK[dialect])
    precision = sa.Table(
        "simulation_precision",
        metadata,
        before.owner("run_id", "runs.id", primary_key=True),
        sa.Column("quantity", before.choice("quantity", before.QUANTITIES), primary_key=True),
        sa.Column("relative_se", sa.Double),
        sa.Column("largest_relative_se", sa.Double),
        sa.Column("target_kind", sa.Text),
        sa.Column("target", sa.Double),
        sa.Column("reached", sa.Double),
        *(before.marker(name) for name in ("relative_se", "largest_relative_se", "reached")),
        *(
            rule
            for name in ("relative_se", "largest_relative_se", "reached")
            for rule in before.one_form(name, required=False)
        ),
        *before.finite("target"),
        sa.CheckConstraint("(target IS NULL) = (target_kind IS NULL)", name="target_has_kind"),
    )
    claims = sa.Table(
        "claims",
        metadata,
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False, index=True),
        sa.Column("flow_run_id", sa.Text),
        sa.Column("task_run_id", sa.Text),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    versions = sa.Table(
        "algorithm_versions",
        metadata,
        sa.Column("algorithm", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
    )
    return [precision, claims, versions]


def drop_views(names) -> None:
    """SQLite refuses to rebuild a table that a view reads."""
    for name in reversed(names):
        op.execute(f"DROP VIEW {name}")


def create_views(views: dict[str, str]) -> None:
    for name, query in views.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


@contextmanager
def rebuilt_runs(table: sa.Table) -> Iterator[BatchOperations]:
    """Changes of runs: in place, or on SQLite by copying the table, which must not forget the ids of deleted rows."""
    connection = op.get_bind()
    sqlite = connection.dialect.name == "sqlite"
    used = sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'runs'")
    last = connection.scalar(used) if sqlite else None
    with op.batch_alter_table("runs", copy_from=table, table_kwargs={"sqlite_autoincrement": True}) as batch:
        yield batch
    if sqlite:  # what the copy leaves behind
        for name in ("configuration_id", "ensemble_digest"):
            op.create_index(f"ix_runs_{name}", "runs", [name])
    if last is not None:
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'runs'")
        op.execute(f"INSERT INTO sqlite_sequence VALUES ('runs', {last})")


def upgrade() -> None:
    connection, before = op.get_bind(), first_revision()
    dialect = connection.dialect.name
    drop_views(list(before.VIEWS))
    with rebuilt_runs(before.tables(dialect).tables["runs"]) as batch:
        batch.alter_column(
            "status",
            existing_type=before.choice("status", OLD_STATUSES),
            type_=before.choice("status", STATUSES),
            existing_nullable=False,
        )
        batch.add_column(sa.Column("extends_run_id", sa.Integer))
        batch.add_column(sa.Column("stopped_because", before.choice("stopped_because", STOP_REASONS)))
        batch.add_column(sa.Column("flow_run_id", sa.Text))
        batch.add_column(sa.Column("task_run_id", sa.Text))
        batch.create_foreign_key("fk_runs_extends_run_id", "runs", ["extends_run_id"], ["id"], ondelete="SET NULL")
    op.create_index("ix_runs_status", "runs", ["status"])
    op.create_index("ix_runs_extends_run_id", "runs", ["extends_run_id"])
    op.create_index("ix_validity_windows_quantity_tolerance", "validity_windows", ["quantity", "tolerance"])
    for table in new_tables(dialect, before):
        table.create(connection)
    op.execute("INSERT INTO algorithm_versions SELECT kind, max(algorithm_version) FROM runs GROUP BY kind")
    describe_old_simulations(connection)
    create_views({**before.VIEWS, **VIEWS})


def downgrade() -> None:
    """Runs that did not finish become failed ones, and say so."""
    connection, before = op.get_bind(), first_revision()
    dialect = connection.dialect.name
    drop_views(list({**before.VIEWS, **VIEWS}))
    op.execute(
        "UPDATE runs SET error_message = 'not finished: ' || status, status = 'failed'"
        " WHERE status IN ('pending', 'running', 'stale')"
    )
    for table in ("simulation_precision", "claims", "algorithm_versions"):
        op.drop_table(table)
    op.drop_index("ix_validity_windows_quantity_tolerance", "validity_windows")
    op.drop_index("ix_runs_status", "runs")
    op.drop_index("ix_runs_extends_run_id", "runs")
    with rebuilt_runs(current_runs(dialect, before)) as batch:
        batch.drop_constraint("fk_runs_extends_run_id", type_="foreignkey")
        for name in NEW_COLUMNS:
            batch.drop_column(name)
        batch.alter_column(
            "status",
            existing_type=before.choice("status", STATUSES),
            type_=before.choice("status", OLD_STATUSES),
            existing_nullable=False,
        )
    create_views(before.VIEWS)


def current_runs(dialect: str, before: ModuleType) -> sa.Table:
    """The table runs of this revision."""
    runs = before.tables(dialect).tables["runs"]
    runs.append_column(sa.Column("status", before.choice("status", STATUSES), nullable=False), replace_existing=True)
    extended = sa.ForeignKey("runs.id", name="fk_runs_extends_run_id", ondelete="SET NULL")
    runs.append_column(sa.Column("extends_run_id", sa.Integer, extended))
    runs.append_column(sa.Column("stopped_because", before.choice("stopped_because", STOP_REASONS)))
    runs.append_column(sa.Column("flow_run_id", sa.Text))
    runs.append_column(sa.Column("task_run_id", sa.Text))
    return runs


def describe_old_simulations(connection: sa.Connection) -> None:
    """Rows of simulation_precision, from the arrays of the simulations that are there, one at a time."""
    arrays = sa.text(
        "SELECT n_layers, n_entries, data, se FROM kernel_trajectories WHERE run_id = :run_id AND quantity = :quantity"
    )
    stored = connection.execute(
        sa.text(
            "SELECT t.run_id, t.quantity FROM kernel_trajectories t JOIN runs r ON r.id = t.run_id"
            " WHERE r.kind = 'simulation' AND t.se IS NOT NULL ORDER BY t.run_id, t.quantity"
        )
    ).all()
    for run_id, quantity in stored:
        layers, entries, data, se = connection.execute(arrays, {"run_id": run_id, "quantity": quantity}).one()
        last, largest = relative_errors(quantity, layers, entries, data, se)
        names = {"relative_se": last, "largest_relative_se": largest}
        numbers = {name: value if value is None or np.isfinite(value) else None for name, value in names.items()}
        markers = {
            f"{name}_nonfinite": None if value is None or np.isfinite(value) else str(value)
            for name, value in names.items()
        }
        row = {"run_id": run_id, "quantity": quantity, **numbers, **markers}
        columns = ", ".join(row)
        places = ", ".join(f":{name}" for name in row)
        connection.execute(sa.text(f"INSERT INTO simulation_precision ({columns}) VALUES ({places})"), row)


def relative_errors(quantity: str, layers: int, entries: int, data: bytes, se: bytes) -> list[float | None]:
    """||se|| / ||value|| at the last layer, and the largest over layers where the value exceeds twice its error."""
    value, error = (np.frombuffer(part, dtype="<f8").reshape(layers, entries, entries) for part in (data, se))
    if quantity != "V4":
        upper = np.triu_indices(entries)
        value, error = value[:, upper[0], upper[1]], error[:, upper[0], upper[1]]
    size, noise = (np.linalg.norm(part.reshape(layers, -1), axis=1) for part in (value, error))
    resolved = size > 2 * noise
    last = None if size[-1] == 0 else float(noise[-1] / size[-1])
    return [last, float((noise[resolved] / size[resolved]).max()) if resolved.any() else None]
