"""Windows in width: n*, from theory in a table, and what simulations of several widths say of it; one view of both.

Revises: 0008_next_order
"""

from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0009_width_windows"
down_revision = "0008_next_order"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

NEXT_ORDER = "next_order"
VIEW, BY_STUDY = "v_width_windows", "v_study_width_windows"

JUDGED = """
    SELECT x.prediction_run_id, w.quantity, w.tolerance, e.layer, x.width, x.outdated,
        e.error_low > w.tolerance AS fails, e.error_high <= w.tolerance AS holds
    FROM validity_windows w
    JOIN (
        SELECT c.id, c.prediction_run_id, n.width,
            CASE WHEN n.algorithm_version < b.version THEN 1 ELSE 0 END AS outdated,
            rank() OVER (PARTITION BY c.prediction_run_id, n.width
                ORDER BY n.algorithm_version DESC, n.samples DESC, n.id DESC) AS largest
        FROM comparisons c
        JOIN runs n ON n.id = c.reference_run_id AND n.kind = 'simulation'
        LEFT JOIN algorithm_versions b ON b.algorithm = 'simulation'
    ) x ON x.id = w.comparison_id AND x.largest = 1
    JOIN error_metrics e ON e.comparison_id = w.comparison_id AND e.quantity = w.quantity
"""
"""Whether a prediction fails or holds, surely, at each width; by the largest simulation of this width."""

SIMULATED = f"""
    SELECT prediction_run_id, quantity, tolerance, layer, count(*) AS widths, max(outdated) AS outdated,
        max(CASE WHEN fails THEN width END) AS width_low,
        min(CASE WHEN width > COALESCE(not_shown, 0) THEN width END) AS width_high
    FROM (
        SELECT j.*, max(CASE WHEN holds THEN NULL ELSE width END)
            OVER (PARTITION BY prediction_run_id, quantity, tolerance, layer) AS not_shown
        FROM ({JUDGED}) j
    ) k
    GROUP BY prediction_run_id, quantity, tolerance, layer
"""


def earlier_revisions() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    """The modules of revisions 0001, 0003, 0005 and 0008."""
    eighth = op.get_context().environment_context.script.get_revision(down_revision).module
    *_, sixth = eighth.earlier_revisions()
    first, _, third, _, fifth = sixth.earlier_revisions()
    return first, third, fifth, eighth


def table(dialect: str, first: ModuleType) -> sa.Table:
    return sa.Table(
        "width_windows",
        first.tables(dialect),
        first.owner("prediction_run_id", "runs.id", primary_key=True),
        first.owner("reference_run_id", "runs.id", primary_key=True, index=True),
        sa.Column("quantity", first.choice("quantity", ("K0", "V4", "K1")), primary_key=True),
        sa.Column("tolerance", sa.Double, primary_key=True),
        sa.Column("layer", sa.Integer, primary_key=True),
        sa.Column("width", sa.Double),
        sa.Column("width_low", sa.Double),
        sa.Column("width_high", sa.Double),
        sa.Column("status", first.choice("status", ("from", "never", "unknown")), nullable=False),
        *first.finite("tolerance", "width", "width_low", "width_high"),
        sa.CheckConstraint(
            "(status = 'from') = (width IS NOT NULL) AND (status = 'from') = (width_low IS NOT NULL)"
            " AND (status = 'from') = (width_high IS NOT NULL)",
            name="widths_of_its_status",
        ),
        sa.CheckConstraint("1 <= width_low AND width_low <= width AND width <= width_high", name="widths_in_order"),
        sa.Index(None, "quantity", "tolerance"),
        sqlite_with_rowid=False,
    )


def views(third: ModuleType, fifth: ModuleType, eighth: ModuleType) -> dict[str, str]:
    """The view of widths, and its twin by study: rows whose prediction, and reference theory, belong to the study."""
    predicted = f"{third.CONFIGURATION},\n    {fifth.PREDICTED}, p.{NEXT_ORDER}"
    reference = f"{fifth.REFERENCE}, r.{NEXT_ORDER} AS reference_{NEXT_ORDER}"
    time = "c.epsilon * c.epsilon * w.layer AS time"
    absent = ", ".join("NULL" for _ in reference.split(" AS ")[1:])
    of_both = eighth.views(eighth.earlier_revisions()[-1])["v_study_theory_windows"]
    return {
        VIEW: f"""
SELECT {predicted}, 'theory' AS reference_kind, {reference},
    w.quantity, w.tolerance, w.layer, {time}, w.width, w.width_low, w.width_high, w.status, NULL AS widths, p.converged,
    COALESCE(p.algorithm_version < a.version OR r.algorithm_version < a.version, FALSE) AS superseded,
    w.prediction_run_id, w.reference_run_id
FROM width_windows w
JOIN runs p ON p.id = w.prediction_run_id
JOIN runs r ON r.id = w.reference_run_id
{third.CONFIGURATION_OF_PREDICTION}
LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
UNION ALL
SELECT {predicted}, 'simulation' AS reference_kind, {absent},
    w.quantity, w.tolerance, w.layer, {time}, NULL AS width, w.width_low, w.width_high,
    CASE WHEN w.width_low IS NOT NULL AND w.width_high IS NOT NULL THEN 'between' WHEN w.width_low IS NOT NULL THEN 'above'
        WHEN w.width_high IS NOT NULL THEN 'at_most' ELSE 'unknown' END AS status,
    w.widths, p.converged, COALESCE(p.algorithm_version < a.version OR w.outdated = 1, FALSE) AS superseded,
    w.prediction_run_id, NULL AS reference_run_id
FROM ({SIMULATED}) w
JOIN runs p ON p.id = w.prediction_run_id
{third.CONFIGURATION_OF_PREDICTION}
LEFT JOIN algorithm_versions a ON a.algorithm = 'prediction'
""",
        BY_STUDY: of_both.replace("v_theory_windows", VIEW).replace(
            "v.reference_run_id", "COALESCE(v.reference_run_id, v.prediction_run_id)"
        ),
    }


def upgrade() -> None:
    first, third, fifth, eighth = earlier_revisions()
    table(op.get_bind().dialect.name, first).create(op.get_bind())
    for name, query in views(third, fifth, eighth).items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    """The widths from theory are deleted; `eft run` finds them again."""
    for name in (BY_STUDY, VIEW):
        op.execute(f"DROP VIEW {name}")
    op.drop_table("width_windows")
