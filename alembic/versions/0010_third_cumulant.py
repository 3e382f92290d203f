"""T, the third cumulant of the kernel, among the trajectories: an array over triples of pairs.

Revises: 0009_width_windows
"""

from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0010_third_cumulant"
down_revision = "0009_width_windows"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

CUMULANT = "T"
BEFORE = "length(data) = 8 * n_layers * n_entries * n_entries"
AFTER = f"{BEFORE} * CASE quantity WHEN '{CUMULANT}' THEN n_entries ELSE 1 END"


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType, ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0001, 0002, 0003, 0005, 0006, 0008 and 0009."""
    ninth = op.get_context().environment_context.script.get_revision(down_revision).module
    *_, fifth, eighth = ninth.earlier_revisions()
    first, second, third, sixth = eighth.earlier_revisions()
    return first, second, third, fifth, sixth, eighth, ninth


def views() -> dict[str, str]:
    """Every view as this revision finds and leaves it."""
    _, _, third, fifth, sixth, eighth, ninth = earlier_revisions()
    return {**eighth.views(sixth), **ninth.views(third, fifth, eighth)}


def hold(quantities: tuple[str, ...], shape: str) -> None:
    """Let the trajectories be of these quantities, and the size of an array follow this rule."""
    first, _, third, *_ = earlier_revisions()
    dialect = op.get_bind().dialect.name
    definitions = third.tables(dialect, first)
    for name in third.TRAJECTORY_TABLES:
        if dialect == "sqlite":
            quantity = sa.Column("quantity", first.choice("quantity", quantities), primary_key=True)
            definitions[name].append_column(quantity, replace_existing=True)
            for rule in definitions[name].constraints:
                if isinstance(rule, sa.CheckConstraint) and str(rule.sqltext) == BEFORE:
                    rule.sqltext = sa.text(shape)
            third.rebuild(definitions[name])
        else:
            op.execute(f"ALTER TABLE {name} DROP CONSTRAINT ck_{name}_quantity")
            op.create_check_constraint(op.f(f"ck_{name}_quantity"), name, sa.column("quantity").in_(quantities))
    if dialect != "sqlite":
        op.execute("ALTER TABLE kernel_trajectories DROP CONSTRAINT ck_kernel_trajectories_data_fits_shape")
        op.create_check_constraint(op.f("ck_kernel_trajectories_data_fits_shape"), "kernel_trajectories", shape)


def upgrade() -> None:
    """Predictions that are recorded already have no third cumulant."""
    _, second, third, *_, eighth, _ = earlier_revisions()
    second.drop_views(list(views()))
    hold((*third.TRAJECTORIES, *eighth.NEW, CUMULANT), AFTER)
    second.create_views(views())


def downgrade() -> None:
    """The third cumulants are deleted."""
    _, second, third, *_, eighth, _ = earlier_revisions()
    second.drop_views(list(views()))
    for table in third.TRAJECTORY_TABLES:
        op.execute(f"DELETE FROM {table} WHERE quantity = '{CUMULANT}'")
    hold((*third.TRAJECTORIES, *eighth.NEW), BEFORE)
    second.create_views(views())
