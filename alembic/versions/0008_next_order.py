"""D and K2, the next order in 1/n, among the trajectories; predictions say whether they have it.

Revises: 0007_runs_asked
"""

from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0008_next_order"
down_revision = "0007_runs_asked"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

NEW = ("D", "K2")

PREDICTED = {"p.step, p.continuous": "p.step, p.continuous, p.next_order"}
REFERENCE = {
    "r.continuous AS reference_continuous": "r.continuous AS reference_continuous, r.next_order AS reference_next_order"
}
OF_THEORIES = {
    " step, continuous,": " step, continuous, next_order,",
    "\n    reference_continuous": "\n    reference_continuous, reference_next_order",
}
CHANGES = {
    "v_runs": {"r.step, r.continuous": "r.step, r.continuous, r.next_order"},
    "v_windows": {**PREDICTED, **REFERENCE},
    "v_errors": {**PREDICTED, **REFERENCE},
    "v_trajectories": PREDICTED,
    "v_best_closures": PREDICTED,
    "v_theory_windows": OF_THEORIES,
    "v_theory_errors": OF_THEORIES,
}

NOT_SIMULATED = {
    "v.quantity, v.component, v.layer, c.epsilon * c.epsilon * v.layer": (
        "t.quantity, t.component, t.layer, c.epsilon * c.epsilon * t.layer"
    ),
    "v.value AS simulated, v.se AS simulated_se": "NULL AS simulated, NULL AS simulated_se",
    "v.value_nonfinite AS simulated_nonfinite, v.se_nonfinite AS": "NULL AS simulated_nonfinite, NULL AS",
}
"""What a simulation says of its own in v_trajectories, and what stands there for quantities that it lacks."""
FROM_PREDICTIONS = """FROM trajectory_values t
JOIN runs p ON p.id = t.run_id AND p.kind = 'prediction' AND p.status = 'succeeded'
JOIN runs s ON s.configuration_id = p.configuration_id AND s.kind = 'simulation' AND s.status = 'succeeded'
JOIN model_configurations c ON c.id = s.configuration_id
JOIN input_kernels k ON k.id = c.kernel_id
WHERE NOT EXISTS (SELECT 1 FROM kernel_trajectories h WHERE h.run_id = s.id AND h.quantity = t.quantity)
"""


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0001, 0002, 0003 and 0006."""
    scripts = op.get_context().environment_context.script
    sixth = scripts.get_revision(scripts.get_revision(down_revision).down_revision).module
    first, second, third, *_ = sixth.earlier_revisions()
    return first, second, third, sixth


def views(sixth: ModuleType) -> dict[str, str]:
    """Every view as this revision leaves it. Those by study take their columns from these."""
    found = {name: replaced(query, CHANGES.get(name, {})) for name, query in sixth.views().items()}
    both = found["v_trajectories"]
    columns, _ = both.split("FROM trajectory_values v")
    found["v_trajectories"] = f"{both}UNION ALL{replaced(columns, NOT_SIMULATED)}{FROM_PREDICTIONS}"
    return found


def replaced(query: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert query.count(old) == 1
        query = query.replace(old, new)
    return query


def hold(quantities: tuple[str, ...], first: ModuleType, third: ModuleType) -> None:
    """Let the trajectories be of these quantities."""
    dialect = op.get_bind().dialect.name
    definitions = third.tables(dialect, first)
    for name in third.TRAJECTORY_TABLES:
        if dialect == "sqlite":
            quantity = sa.Column("quantity", first.choice("quantity", quantities), primary_key=True)
            definitions[name].append_column(quantity, replace_existing=True)
            third.rebuild(definitions[name])
        else:
            op.execute(f"ALTER TABLE {name} DROP CONSTRAINT ck_{name}_quantity")
            op.create_check_constraint(op.f(f"ck_{name}_quantity"), name, sa.column("quantity").in_(quantities))


def upgrade() -> None:
    first, second, third, sixth = earlier_revisions()
    second.drop_views(list(sixth.views()))
    hold((*third.TRAJECTORIES, *NEW), first, third)
    # PostgreSQL has a type for it
    rule = " CONSTRAINT ck_runs_next_order CHECK (next_order IN (0, 1))" if op.get_bind().dialect.name == "sqlite" else ""
    op.execute(f"ALTER TABLE runs ADD COLUMN next_order BOOLEAN{rule}")
    runs = sa.table("runs", sa.column("kind"), sa.column("next_order", sa.Boolean), sa.column("spec", first.JSON))
    asked = sa.func.coalesce(runs.c.spec["next_order"].as_boolean(), sa.false())
    op.execute(sa.update(runs).where(runs.c.kind == "prediction").values(next_order=asked))
    second.create_views(views(sixth))


def downgrade() -> None:
    """The trajectories of predictions with the next order are deleted, and these marked as stale.

    A later upgrade makes them again; programs of this revision cannot read what they are.
    """
    first, second, third, sixth = earlier_revisions()
    second.drop_views(list(views(sixth)))
    for table in third.TRAJECTORY_TABLES:
        op.execute(f"DELETE FROM {table} WHERE run_id IN (SELECT id FROM runs WHERE next_order)")
    hold(third.TRAJECTORIES, first, third)
    op.execute("UPDATE runs SET status = 'stale' WHERE next_order")
    op.execute("ALTER TABLE runs DROP COLUMN next_order")
    second.create_views(sixth.views())
