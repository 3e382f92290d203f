"""Windows with the time from which they are resolved, and bounds of errors that hold at all depths at once.

Revises: 0003_theory_references
"""

import re
from collections.abc import Callable, Iterator
from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0004_calibrated_verdicts"
down_revision = "0003_theory_references"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

INDEX = ("ix_validity_windows_quantity_tolerance", "validity_windows", ["quantity", "tolerance"])
NEW_COLUMNS = {
    "error_metrics": ("error_low", "error_high", "resolution"),
    "validity_windows": ("resolved_from", "numerical_error", "confidence"),
    "simulation_precision": ("reliable_share", "degrees_of_freedom"),
}
OLD_ENDS = "(status = 'too_noisy') = (certified_until IS NULL) AND (status = 'bounded') = (refuted_from IS NOT NULL)"
ENDS = (
    "(status = 'bounded') = (refuted_from IS NOT NULL)"
    " AND (status <> 'too_noisy' OR (certified_until IS NULL AND resolved_from IS NULL))"
    " AND (status <> 'beyond' OR certified_until IS NOT NULL)"
)

WINDOW = """w.quantity, w.tolerance, w.resolved_from, w.certified_until, w.refuted_from, w.status, w.confidence,
    p.converged, w.numerical_error"""
BOUNDS = "e.error_low, e.error_high, e.resolution, p.converged"


def changed_views(first: ModuleType, second: ModuleType, third: ModuleType) -> dict[str, str]:
    """The views that this revision changes."""
    found = {}
    for name in ("v_windows", "v_best_closures", "v_theory_windows"):
        found[name] = third.VIEWS[name].replace(third.WINDOW, WINDOW)
    inner = "v.quantity, v.tolerance, v.certified_until, v.refuted_from, v.status,"
    more = (
        "v.quantity, v.tolerance, v.resolved_from, v.certified_until, v.refuted_from, v.status, v.confidence,"
        "\n                v.numerical_error,"
    )
    assert inner in found["v_best_closures"]
    found["v_best_closures"] = found["v_best_closures"].replace(inner, more)
    for name in ("v_errors", "v_theory_errors"):
        found[name] = third.VIEWS[name].replace(third.ERRORS, f"{third.ERRORS},\n    {BOUNDS}")
    before = first.VIEWS["v_trajectories"]
    predicted = "t.value AS predicted,"
    assert predicted in before
    found["v_trajectories"] = before.replace(predicted, f"{predicted} p.converged,")
    reached = "q.target_kind, q.target, q.reached,"
    precision = second.VIEWS["v_precision"]
    assert reached in precision
    found["v_precision"] = precision.replace(reached, f"q.reliable_share, q.degrees_of_freedom,\n    {reached}")
    return found


def new_columns(first: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Table, column and rule of each new column."""
    for table, columns in NEW_COLUMNS.items():
        for column in columns:
            (rule,) = first.finite(column)
            yield table, column, str(rule.sqltext)


def windows_table(dialect: str, first: ModuleType) -> sa.Table:
    """validity_windows as this revision leaves it."""
    table = first.tables(dialect).tables["validity_windows"]
    for column in NEW_COLUMNS["validity_windows"]:
        table.append_column(sa.Column(column, sa.Double))
        table.append_constraint(first.finite(column)[0])
    old = {rule for rule in table.constraints if str(rule.name).endswith("ends_of_its_status")}
    table.constraints -= old
    table.append_constraint(sa.CheckConstraint(ENDS, name="ends_of_its_status"))
    return table


def upgrade() -> None:
    first, second, third = earlier_revisions()
    dialect = op.get_bind().dialect.name
    everything = {**first.VIEWS, **second.VIEWS, **third.VIEWS}
    second.drop_views(list(everything))
    kind = sa.Double().compile(dialect=op.get_bind().dialect)
    for table, column, rule in new_columns(first):
        name = f"ck_{table}_{column}_is_finite"
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind} CONSTRAINT {name} CHECK ({rule})")
    if dialect == "sqlite":
        third.rebuild(windows_table(dialect, first))
        op.create_index(*INDEX)
    else:
        replace_rule(ENDS)
    rename_activations(lambda value: repr(value).removesuffix(".0"))
    second.create_views({**everything, **changed_views(first, second, third)})


def downgrade() -> None:
    """Bounds of errors and the times from which windows are resolved are deleted; windows of the older kind begin at 0.

    A window that is not certified anywhere is then certified up to 0.
    """
    first, second, third = earlier_revisions()
    everything = {**first.VIEWS, **second.VIEWS, **third.VIEWS}
    second.drop_views(list(everything))
    op.execute(
        "UPDATE validity_windows SET certified_until = 0 WHERE certified_until IS NULL AND status <> 'too_noisy'"
    )
    if op.get_bind().dialect.name == "sqlite":
        third.rebuild(first.tables("sqlite").tables["validity_windows"])
        op.create_index(*INDEX)
    else:
        replace_rule(OLD_ENDS)
    rename_activations(lambda value: f"{value:.17g}")
    for table, column, _ in new_columns(first):
        if table != "validity_windows" or op.get_bind().dialect.name != "sqlite":
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    second.create_views(everything)


def rename_activations(show: Callable[[float], str]) -> None:
    """Parameters of activations, 'leaky_relu(slope=0.2)', in another text of the same number."""
    connection = op.get_bind()
    names = connection.execute(sa.text("SELECT DISTINCT activation FROM model_configurations")).scalars().all()
    for name in names:
        renamed = re.sub(r"=([^,)]+)", lambda found: "=" + show(float(found.group(1))), name)
        if renamed != name:
            statement = "UPDATE model_configurations SET activation = :new WHERE activation = :old"
            connection.execute(sa.text(statement), {"new": renamed, "old": name})


def replace_rule(rule: str) -> None:
    """PostgreSQL: the rule for the ends of a window, in place."""
    op.execute("ALTER TABLE validity_windows DROP CONSTRAINT ck_validity_windows_ends_of_its_status")
    op.create_check_constraint(op.f("ck_validity_windows_ends_of_its_status"), "validity_windows", sa.text(rule))


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0001 to 0003."""
    third = op.get_context().environment_context.script.get_revision(down_revision).module
    return (*third.earlier_revisions(), third)
