"""Studies, kernels, configurations, runs, trajectories, comparisons, and the four views people query.

Revises: nothing
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0001_first_tables"
down_revision = None
branch_labels = None
depends_on = None

# Everything below is a frozen copy: later changes of db/schema/models.py must not change what this revision creates.

QUANTITIES = ("K0", "V4", "K1", "U1")
LARGEST = "1.7976931348623157e308"
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
CLOCK = {"sqlite": "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))", "postgresql": "CURRENT_TIMESTAMP"}
NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


def choice(name: str, values: tuple[str, ...], length: int = 16) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=length)


def flag(name: str, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.Boolean(create_constraint=True, name=name), nullable=nullable)


def marker(number: str) -> sa.Column:
    name = f"{number}_nonfinite"
    return sa.Column(name, choice(name, ("nan", "inf", "-inf"), 4))


def finite(*columns: str) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(
            f"{column} IS NULL OR {column} BETWEEN -{LARGEST} AND {LARGEST}", name=f"{column}_is_finite"
        )
        for column in columns
    ]


def one_form(column: str, required: bool) -> list[sa.CheckConstraint]:
    exactly = f"({column} IS NULL) = ({column}_nonfinite IS NOT NULL)"
    at_most = f"{column} IS NULL OR {column}_nonfinite IS NULL"
    return [
        *finite(column),
        sa.CheckConstraint(exactly if required else at_most, name=f"{column}_has_one_form"),
    ]


def owner(name: str, target: str, **options) -> sa.Column:
    return sa.Column(name, sa.ForeignKey(target, ondelete="CASCADE"), nullable=False, **options)


def tables(dialect: str) -> sa.MetaData:
    metadata = sa.MetaData(naming_convention=NAMES)

    def now(name: str) -> sa.Column:
        return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text(CLOCK[dialect]))

    sa.Table(
        "studies",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, index=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("spec", JSON, nullable=False),
        now("created_at"),
        sqlite_autoincrement=True,
    )
    sa.Table(
        "input_kernels",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("n_inputs", sa.Integer, nullable=False),
        sa.Column("variance", sa.Double, nullable=False),
        sa.Column("correlation", sa.Double),
        sa.Column("matrix", JSON, nullable=False),
        sa.CheckConstraint("n_inputs >= 1", name="has_inputs"),
        *finite("variance", "correlation"),
        sqlite_autoincrement=True,
    )
    sa.Table(
        "model_configurations",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("kernel_id", sa.ForeignKey("input_kernels.id"), nullable=False, index=True),
        sa.Column("activation", sa.Text, nullable=False, index=True),
        sa.Column("weight_variance", sa.Double, nullable=False),
        sa.Column("bias_variance", sa.Double, nullable=False),
        sa.Column("epsilon", sa.Double, nullable=False),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("total_time", sa.Double, nullable=False),
        *finite("weight_variance", "bias_variance", "epsilon", "total_time"),
        sa.CheckConstraint("depth >= 1", name="has_layers"),
        sqlite_autoincrement=True,
    )
    sa.Table(
        "runs",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", choice("kind", ("simulation", "prediction")), nullable=False),
        sa.Column("status", choice("status", ("succeeded", "failed")), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("configuration_id", sa.ForeignKey("model_configurations.id"), nullable=False, index=True),
        sa.Column("algorithm_version", sa.Integer, nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("closure", sa.Text),
        sa.Column("closure_order", sa.Integer),
        sa.Column("quadrature", sa.Text),
        sa.Column("nodes", sa.Integer),
        sa.Column("rtol", sa.Double),
        sa.Column("step", sa.Text),
        flag("continuous"),
        flag("converged"),
        sa.Column("details", JSON),
        sa.Column("ensemble_digest", sa.String(64), index=True),
        sa.Column("width", sa.Integer),
        sa.Column("samples", sa.BigInteger),
        sa.Column("shards", JSON),
        sa.Column("seed", sa.BigInteger),
        sa.Column("estimator", sa.Text),
        sa.Column("sampler", sa.Text),
        sa.Column("dtype", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("git_commit", sa.Text),
        flag("git_dirty"),
        sa.Column("versions", JSON),
        sa.Column("host", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("python", sa.Text),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("wall_seconds", sa.Double),
        now("created_at"),
        now("updated_at"),
        sa.CheckConstraint(
            "(kind = 'prediction' AND closure IS NOT NULL AND quadrature IS NOT NULL AND width IS NULL)"
            " OR (kind = 'simulation' AND width IS NOT NULL AND samples IS NOT NULL AND closure IS NULL)",
            name="fields_of_its_kind",
        ),
        sa.CheckConstraint("(status = 'failed') = (error_message IS NOT NULL)", name="failure_has_message"),
        sa.CheckConstraint("width >= 1 AND samples >= 1", name="has_networks"),
        *finite("rtol", "wall_seconds"),
        sqlite_autoincrement=True,
    )
    sa.Table(
        "study_runs",
        metadata,
        owner("study_id", "studies.id", primary_key=True),
        owner("run_id", "runs.id", primary_key=True, index=True),
    )
    sa.Table(
        "kernel_trajectories",
        metadata,
        owner("run_id", "runs.id", primary_key=True),
        sa.Column("quantity", choice("quantity", QUANTITIES), primary_key=True),
        sa.Column("n_layers", sa.Integer, nullable=False),
        sa.Column("n_entries", sa.Integer, nullable=False),
        sa.Column("numerical_error", sa.Double),
        marker("numerical_error"),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("se", sa.LargeBinary),
        sa.CheckConstraint("length(data) = 8 * n_layers * n_entries * n_entries", name="data_fits_shape"),
        sa.CheckConstraint("se IS NULL OR length(se) = length(data)", name="se_fits_shape"),
        *one_form("numerical_error", required=False),
    )
    sa.Table(
        "trajectory_values",
        metadata,
        owner("run_id", "runs.id", primary_key=True),
        sa.Column("quantity", choice("quantity", QUANTITIES), primary_key=True),
        sa.Column("component", sa.String(32), primary_key=True),
        sa.Column("layer", sa.Integer, primary_key=True),
        sa.Column("value", sa.Double),
        sa.Column("se", sa.Double),
        marker("value"),
        marker("se"),
        *one_form("value", required=True),
        *one_form("se", required=False),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "comparisons",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        owner("prediction_run_id", "runs.id"),
        owner("simulation_run_id", "runs.id", index=True),
        now("created_at"),
        now("updated_at"),
        sa.UniqueConstraint("prediction_run_id", "simulation_run_id"),
        sqlite_autoincrement=True,
    )
    numbers = ("error", "error_se", "absolute_error", "absolute_error_se")
    sa.Table(
        "error_metrics",
        metadata,
        owner("comparison_id", "comparisons.id", primary_key=True),
        sa.Column("quantity", choice("quantity", QUANTITIES), primary_key=True),
        sa.Column("layer", sa.Integer, primary_key=True),
        flag("defined", nullable=False),
        *(sa.Column(name, sa.Double) for name in numbers),
        *(marker(name) for name in numbers),
        *(rule for name in numbers for rule in one_form(name, required=name == "absolute_error")),
        sa.CheckConstraint("defined = (error IS NOT NULL OR error_nonfinite IS NOT NULL)", name="error_where_defined"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "validity_windows",
        metadata,
        owner("comparison_id", "comparisons.id", primary_key=True),
        sa.Column("quantity", choice("quantity", QUANTITIES), primary_key=True),
        sa.Column("tolerance", sa.Double, primary_key=True),
        sa.Column("certified_until", sa.Double),
        sa.Column("refuted_from", sa.Double),
        sa.Column("status", choice("status", ("bounded", "beyond", "undecided", "too_noisy")), nullable=False),
        *finite("tolerance", "certified_until", "refuted_from"),
        sa.CheckConstraint(
            "(status = 'too_noisy') = (certified_until IS NULL) AND (status = 'bounded') = (refuted_from IS NOT NULL)",
            name="ends_of_its_status",
        ),
        sqlite_with_rowid=False,
    )
    return metadata


CONFIGURATION = """c.id AS configuration_id, c.activation, c.weight_variance, c.bias_variance, c.epsilon, c.depth,
    c.total_time, k.n_inputs, k.label AS kernel_label, k.variance AS kernel_variance,
    k.correlation AS kernel_correlation"""

VIEWS = {
    "v_runs": f"""
SELECT r.id AS run_id, r.kind, r.status, r.digest, {CONFIGURATION},
    r.width, r.samples, r.seed, r.estimator, r.sampler, r.dtype,
    r.closure, r.closure_order, r.quadrature, r.nodes, r.rtol, r.step, r.continuous, r.converged,
    r.algorithm_version, r.git_commit, r.git_dirty, r.host, r.device, r.python, r.started_at, r.wall_seconds,
    r.created_at, r.updated_at, r.error_message
FROM runs r
JOIN model_configurations c ON c.id = r.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
""",
    "v_windows": f"""
SELECT {CONFIGURATION},
    s.width, s.samples, p.closure, p.closure_order, p.quadrature, p.nodes,
    w.quantity, w.tolerance, w.certified_until, w.refuted_from, w.status,
    x.prediction_run_id, x.simulation_run_id
FROM validity_windows w
JOIN comparisons x ON x.id = w.comparison_id
JOIN runs p ON p.id = x.prediction_run_id
JOIN runs s ON s.id = x.simulation_run_id
JOIN model_configurations c ON c.id = p.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
""",
    "v_errors": f"""
SELECT {CONFIGURATION},
    s.width, s.samples, p.closure, p.closure_order, p.quadrature, p.nodes,
    e.quantity, e.layer, c.epsilon * c.epsilon * e.layer AS time,
    e.error, e.error_se, e.absolute_error, e.absolute_error_se, e.defined,
    e.error_nonfinite, e.error_se_nonfinite, e.absolute_error_nonfinite, e.absolute_error_se_nonfinite,
    x.prediction_run_id, x.simulation_run_id
FROM error_metrics e
JOIN comparisons x ON x.id = e.comparison_id
JOIN runs p ON p.id = x.prediction_run_id
JOIN runs s ON s.id = x.simulation_run_id
JOIN model_configurations c ON c.id = p.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
""",
    "v_trajectories": f"""
SELECT {CONFIGURATION},
    s.width, s.samples, p.closure, p.closure_order, p.quadrature, p.nodes,
    v.quantity, v.component, v.layer, c.epsilon * c.epsilon * v.layer AS time,
    v.value AS simulated, v.se AS simulated_se, t.value AS predicted,
    v.value_nonfinite AS simulated_nonfinite, v.se_nonfinite AS simulated_se_nonfinite,
    t.value_nonfinite AS predicted_nonfinite,
    p.id AS prediction_run_id, s.id AS simulation_run_id
FROM trajectory_values v
JOIN runs s ON s.id = v.run_id AND s.kind = 'simulation'
JOIN model_configurations c ON c.id = s.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
LEFT JOIN runs p ON p.configuration_id = s.configuration_id AND p.kind = 'prediction' AND p.status = 'succeeded'
LEFT JOIN trajectory_values t
    ON t.run_id = p.id AND t.quantity = v.quantity AND t.component = v.component AND t.layer = v.layer
""",
}


def upgrade() -> None:
    connection = op.get_bind()
    tables(connection.dialect.name).create_all(connection, checkfirst=False)
    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    connection = op.get_bind()
    for name in VIEWS:
        op.execute(f"DROP VIEW {name}")
    tables(connection.dialect.name).drop_all(connection, checkfirst=False)
