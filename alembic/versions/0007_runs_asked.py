"""Studies say how many runs they ask for; NULL for a study recorded before.

Revises: 0006_one_reference
"""

from alembic import op

revision = "0007_runs_asked"
down_revision = "0006_one_reference"
branch_labels = None
depends_on = None


def upgrade() -> None:
    rule = "CONSTRAINT ck_studies_asks_for_runs CHECK (runs_asked >= 1)"
    op.execute(f"ALTER TABLE studies ADD COLUMN runs_asked INTEGER {rule}")


def downgrade() -> None:
    """The numbers are deleted."""
    op.execute("ALTER TABLE studies DROP COLUMN runs_asked")
