"""Runs that measure the next order in 1/n from simulations of several widths; errors and windows of D and K2.

Revises: 0010_third_cumulant
"""

from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0011_measured_next_order"
down_revision = "0010_third_cumulant"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

KINDS = "kind IN ('simulation', 'prediction'{})"
FIELDS = (
    "(kind = 'prediction' AND closure IS NOT NULL AND quadrature IS NOT NULL AND width IS NULL)"
    " OR (kind = 'simulation' AND width IS NOT NULL AND samples IS NOT NULL AND closure IS NULL){}"
)
QUANTITIES = "quantity IN ('K0', 'V4', 'K1', 'U1'{})"
CHANGES = {
    "runs": {
        "kind": (KINDS, ", 'measurement'"),
        "fields_of_its_kind": (
            FIELDS,
            " OR (kind = 'measurement' AND widths IS NOT NULL AND samples IS NOT NULL AND width IS NULL"
            " AND closure IS NULL)",
        ),
    },
    "error_metrics": {"quantity": (QUANTITIES, ", 'D', 'K2'")},
    "validity_windows": {"quantity": (QUANTITIES, ", 'D', 'K2'")},
}
"""Checks by table and name: the rule, and what this revision adds to it."""

VIEW, BY_STUDY = "v_measurements", "v_study_measurements"
REFERENCE = {
    "r.next_order AS reference_next_order": "r.next_order AS reference_next_order,\n"
    "    m.widths AS reference_widths, m.samples AS reference_samples",
    "LEFT JOIN runs s ON s.id = x.reference_run_id AND s.kind = 'simulation'": (
        "LEFT JOIN runs s ON s.id = x.reference_run_id AND s.kind = 'simulation'\n"
        "LEFT JOIN runs m ON m.id = x.reference_run_id AND m.kind = 'measurement'"
    ),
}
OF_RUNS = {"r.width, r.samples": "r.width, r.widths, r.samples"}


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0002, 0003, 0005, 0008, 0009 and 0010."""
    tenth = op.get_context().environment_context.script.get_revision(down_revision).module
    _, second, third, fifth, _, eighth, ninth = tenth.earlier_revisions()
    return second, third, fifth, eighth, ninth, tenth


def views() -> dict[str, str]:
    """Every view as this revision leaves it: also measured and predicted values side by side, and the twin by study."""
    _, third, fifth, eighth, ninth, tenth = earlier_revisions()
    before = tenth.views()
    changes = {"v_windows": REFERENCE, "v_errors": REFERENCE, "v_runs": OF_RUNS}
    of_both = before["v_study_trajectories"]
    return {
        **{name: eighth.replaced(query, changes.get(name, {})) for name, query in before.items()},
        VIEW: f"""
SELECT {third.CONFIGURATION},
    m.widths, m.samples, {fifth.PREDICTED}, p.{ninth.NEXT_ORDER},
    t.quantity, t.component, t.layer, c.epsilon * c.epsilon * t.layer AS time,
    t.value AS measured, t.se AS measured_se, v.value AS predicted, p.converged,
    COALESCE(p.algorithm_version < a.version OR m.algorithm_version < b.version, FALSE) AS superseded,
    t.value_nonfinite AS measured_nonfinite, t.se_nonfinite AS measured_se_nonfinite,
    v.value_nonfinite AS predicted_nonfinite, p.id AS prediction_run_id, m.id AS measurement_run_id
FROM trajectory_values t
JOIN runs m ON m.id = t.run_id AND m.kind = 'measurement' AND m.status = 'succeeded'
JOIN model_configurations c ON c.id = m.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
LEFT JOIN runs p ON p.configuration_id = m.configuration_id AND p.kind = 'prediction' AND p.status = 'succeeded'
    AND p.{ninth.NEXT_ORDER}
LEFT JOIN trajectory_values v ON v.run_id = p.id AND v.quantity = t.quantity AND v.component = t.component
    AND v.layer = t.layer
LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
LEFT JOIN algorithm_versions b ON b.algorithm = 'measurement'
""",
        BY_STUDY: of_both.replace("v_trajectories", VIEW).replace("simulation_run_id", "measurement_run_id"),
    }


def check(table: str, *, wider: bool) -> None:
    """Let the checks of a table be those of this revision, or those of the one before."""
    rules = {
        name: (rule.format("" if wider else more), rule.format(more if wider else ""))
        for name, (rule, more) in CHANGES[table].items()
    }
    if op.get_bind().dialect.name != "sqlite":
        for name, (_, rule) in rules.items():
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{name}")
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, sa.text(rule))
        return
    rebuild(table, dict(rules.values()))


def rebuild(table: str, changes: dict[str, str]) -> None:
    """SQLite: copy a table into one whose definition differs in these texts.

    It must not forget the ids of deleted rows. Foreign keys are off while migrations run, so that rows which refer to
    the table stay.
    """
    connection = op.get_bind()
    made = "SELECT sql FROM sqlite_master WHERE tbl_name = :name AND type = :type AND sql IS NOT NULL"
    definition = connection.scalar(sa.text(made), {"name": table, "type": "table"})
    indexes = connection.scalars(sa.text(made), {"name": table, "type": "index"}).all()
    last = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table})
    for old, new in changes.items():
        assert definition.count(old) == 1
        definition = definition.replace(old, new)
    copy = f"new_{table}"
    head, body = definition.split("(", 1)
    assert head.count(table) == 1
    op.execute(sa.text(f"{head.replace(table, copy)}({body}".replace(":", "\\:")))
    op.execute(f"INSERT INTO {copy} SELECT * FROM {table}")
    op.execute(f"DROP TABLE {table}")
    op.execute(f"ALTER TABLE {copy} RENAME TO {table}")
    for index in indexes:
        op.execute(index)
    if last is not None:
        op.execute(f"DELETE FROM sqlite_sequence WHERE name = '{table}'")
        op.execute(f"INSERT INTO sqlite_sequence VALUES ('{table}', {last})")


def upgrade() -> None:
    second, *_, tenth = earlier_revisions()
    second.drop_views(list(tenth.views()))
    op.execute("ALTER TABLE runs ADD COLUMN widths TEXT")
    for table in CHANGES:
        check(table, wider=True)
    second.create_views(views())


def downgrade() -> None:
    """Measurements, and what was held against them, are deleted; `eft run` makes them again."""
    second, *_, tenth = earlier_revisions()
    second.drop_views(list(views()))
    measured = "SELECT id FROM runs WHERE kind = 'measurement'"
    compared = f"SELECT id FROM comparisons WHERE reference_run_id IN ({measured})"
    for table in ("error_metrics", "validity_windows"):
        op.execute(f"DELETE FROM {table} WHERE comparison_id IN ({compared})")
    op.execute(f"DELETE FROM comparisons WHERE id IN ({compared})")
    for table in ("trajectory_values", "kernel_trajectories", "study_runs"):
        op.execute(f"DELETE FROM {table} WHERE run_id IN ({measured})")
    op.execute("DELETE FROM runs WHERE kind = 'measurement'")
    for table in CHANGES:
        check(table, wider=False)
    op.execute("ALTER TABLE runs DROP COLUMN widths")
    second.create_views(tenth.views())
