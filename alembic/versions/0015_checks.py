"""Checks of users' torch modules: runs of their own kind, what was found of each block, and their kernels beside theory.

Revises: 0014_care_of_studies
"""

from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0015_checks"
down_revision = "0014_care_of_studies"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

MODULES, BLOCKS = "module_checks", "checked_blocks"
CHANGES = {
    "kind": ("kind IN ('simulation', 'prediction', 'measurement'{})", ", 'check'"),
    "fields_of_its_kind": (
        "(kind = 'prediction' AND closure IS NOT NULL AND quadrature IS NOT NULL AND width IS NULL)"
        " OR (kind = 'simulation' AND width IS NOT NULL AND samples IS NOT NULL AND closure IS NULL)"
        " OR (kind = 'measurement' AND widths IS NOT NULL AND samples IS NOT NULL AND width IS NULL"
        " AND closure IS NULL){}",
        " OR (kind = 'check' AND width IS NOT NULL AND samples IS NOT NULL AND widths IS NULL AND closure IS NULL)",
    ),
}
"""Checks of runs by name: the rule, and what this revision adds to it."""

VIEW = "v_checks"
FITTED = (
    "fitted_weight_variance",
    "fitted_weight_variance_se",
    "fitted_bias_variance",
    "fitted_bias_variance_se",
    "fitted_epsilon",
    "fitted_epsilon_se",
)
MEASURED = "g.width, g.samples, g.seed, g.estimator, g.sampler, g.dtype"
NETWORKS = "g.kind IN ('simulation', 'check')"
KIND = "CASE g.kind WHEN 'prediction' THEN 'theory' ELSE g.kind END AS reference_kind"


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0001, 0002, 0003, 0005, 0011 and 0013."""
    thirteenth = op.get_context().environment_context.script.get_revision("0013_blocks").module
    second, twelfth = thirteenth.earlier_revisions()
    first, third, fifth, eleventh = twelfth.earlier_revisions()
    return first, second, third, fifth, eleventh, thirteenth


def tables(dialect: str, first: ModuleType) -> list[sa.Table]:
    metadata = first.tables(dialect)
    return [
        sa.Table(
            MODULES,
            metadata,
            first.owner("run_id", "runs.id", primary_key=True),
            sa.Column("module", sa.Text, nullable=False),
            sa.Column("module_digest", sa.String(64), nullable=False),
            sa.Column("factory", sa.Text),
            sa.Column("factory_digest", sa.String(64)),
            first.flag("guessed", nullable=False),
            sa.Column("p_value", sa.Double, nullable=False),
            sa.Column("first_deviating_layer", sa.Integer),
            sa.Column("verdict", sa.Text, nullable=False),
            sa.CheckConstraint("p_value BETWEEN 0 AND 1", name="p_value_is_one"),
            sa.CheckConstraint("(factory IS NULL) = (factory_digest IS NULL)", name="factory_has_digest"),
            sa.CheckConstraint("first_deviating_layer >= 1", name="deviates_at_a_layer"),
        ),
        sa.Table(
            BLOCKS,
            metadata,
            first.owner("run_id", "runs.id", primary_key=True),
            sa.Column("layer", sa.Integer, primary_key=True),
            sa.Column("block_name", sa.Text, nullable=False),
            sa.Column("p_value", sa.Double, nullable=False),
            sa.Column("largest_z", sa.Double, nullable=False),
            first.flag("deviates", nullable=False),
            *(sa.Column(name, sa.Double, nullable=not name.startswith("fitted_weight")) for name in FITTED),
            sa.Column("diagnosis", sa.Text),
            sa.CheckConstraint("p_value BETWEEN 0 AND 1", name="p_value_is_one"),
            *first.finite("largest_z", *FITTED),
            sqlite_with_rowid=False,
        ),
    ]


def configuration(third: ModuleType, thirteenth: ModuleType) -> str:
    of_blocks = "c.total_time," + "".join(f" c.{column}," for column in thirteenth.NEW)
    found: str = third.CONFIGURATION.replace("c.total_time,", of_blocks)
    return found


def views() -> dict[str, str]:
    """Every view as this revision leaves it: kernels of checks stand where those of simulations do."""
    _, _, third, fifth, _, thirteenth = earlier_revisions()
    found = thirteenth.views()
    for name in ("v_windows", "v_errors"):
        with_networks = (
            "LEFT JOIN runs s ON s.id = x.reference_run_id AND s.kind = 'simulation'",
            "LEFT JOIN runs s ON s.id = x.reference_run_id AND s.kind = 'simulation'\n"
            f"LEFT JOIN runs g ON g.id = x.reference_run_id AND {NETWORKS}",
        )
        found[name] = replaced(found[name], 1, (fifth.SIMULATED, MEASURED), with_networks)
    found["v_trajectories"] = replaced(
        found["v_trajectories"],
        None,
        (fifth.SIMULATED, MEASURED),
        ("p.next_order,\n", f"p.next_order,\n    {KIND},\n"),
        ("JOIN runs s ON s.id = v.run_id AND s.kind = 'simulation'", joined("g.id = v.run_id")),
        (
            "JOIN runs s ON s.configuration_id = p.configuration_id AND s.kind = 'simulation' AND s.status = 'succeeded'",
            joined("g.configuration_id = p.configuration_id AND g.status = 'succeeded'"),
        ),
        ("c.id = s.configuration_id", "c.id = g.configuration_id"),
        ("p.configuration_id = s.configuration_id", "p.configuration_id = g.configuration_id"),
        ("h.run_id = s.id", "h.run_id = g.id"),
        ("p.id AS prediction_run_id,", "p.id AS prediction_run_id, g.id AS reference_run_id,"),
    )
    found["v_quantiles"] = replaced(
        found["v_quantiles"],
        1,
        (fifth.SIMULATED, MEASURED),
        ("\n    q.component", f"\n    {KIND}, q.component"),
        ("s.algorithm_version", "g.algorithm_version"),
        ("q.run_id AS simulation_run_id", "g.id AS reference_run_id, s.id AS simulation_run_id"),
        ("JOIN runs s ON s.id = q.run_id", joined("g.id = q.run_id")),
        ("c.id = s.configuration_id", "c.id = g.configuration_id"),
        ("b.algorithm = 'simulation'", "b.algorithm = g.kind"),
    )
    fitted = ", ".join(f"b.{name}" for name in FITTED)
    found[VIEW] = f"""
SELECT {configuration(third, thirteenth)},
    r.width, r.samples, r.seed, r.dtype, r.device,
    m.module, m.module_digest, m.factory, m.factory_digest, m.guessed,
    m.p_value AS module_p_value, m.first_deviating_layer, m.verdict,
    b.layer, c.epsilon * c.epsilon * b.layer AS time, b.block_name, b.p_value, b.largest_z, b.deviates,
    {fitted}, b.diagnosis,
    COALESCE(r.algorithm_version < a.version, FALSE) AS superseded, r.id AS check_run_id
FROM {BLOCKS} b
JOIN {MODULES} m ON m.run_id = b.run_id
JOIN runs r ON r.id = b.run_id
JOIN model_configurations c ON c.id = r.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
LEFT JOIN algorithm_versions a ON a.algorithm = 'check'
"""
    return found


def joined(condition: str) -> str:
    """Runs g that have networks, and the same run s where it is a simulation."""
    return (
        f"JOIN runs g ON {condition} AND {NETWORKS}\nLEFT JOIN runs s ON s.id = g.id AND s.kind = 'simulation'"
    )


def replaced(query: str, times: int | None, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert query.count(old) == times or (times is None and old in query), old
        query = query.replace(old, new)
    return query


def check(*, wider: bool) -> None:
    """Let the checks of runs be those of this revision, or those of the one before."""
    *_, eleventh, _ = earlier_revisions()
    rules = {
        name: (rule.format("" if wider else more), rule.format(more if wider else ""))
        for name, (rule, more) in CHANGES.items()
    }
    if op.get_bind().dialect.name == "sqlite":
        eleventh.rebuild("runs", dict(rules.values()))
        return
    for name, (_, rule) in rules.items():
        op.execute(f"ALTER TABLE runs DROP CONSTRAINT ck_runs_{name}")
        op.create_check_constraint(op.f(f"ck_runs_{name}"), "runs", sa.text(rule))


def upgrade() -> None:
    first, second, *_, thirteenth = earlier_revisions()
    second.drop_views(list(thirteenth.views()))
    check(wider=True)
    for table in tables(op.get_bind().dialect.name, first):
        table.create(op.get_bind())
    second.create_views(views())


def downgrade() -> None:
    """Checks, and what was held against them, are deleted."""
    _, second, *_, thirteenth = earlier_revisions()
    second.drop_views(list(views()))
    checked = "SELECT id FROM runs WHERE kind = 'check'"
    compared = f"SELECT id FROM comparisons WHERE reference_run_id IN ({checked})"
    for table in thirteenth.OF_COMPARISONS:
        op.execute(f"DELETE FROM {table} WHERE comparison_id IN ({compared})")
    op.execute(f"DELETE FROM comparisons WHERE id IN ({compared})")
    for table in (BLOCKS, MODULES):
        op.drop_table(table)
    for table in thirteenth.OF_RUNS:
        op.execute(f"DELETE FROM {table} WHERE run_id IN ({checked})")
    op.execute("DELETE FROM runs WHERE kind = 'check'")
    check(wider=False)
    second.create_views(thirteenth.views())
