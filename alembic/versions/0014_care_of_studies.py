"""What users write about studies (title, notes, tags, archived), and views of the explorer saved by name.

Revises: 0013_blocks
"""

from types import ModuleType

import sqlalchemy as sa

from alembic import op

revision = "0014_care_of_studies"
down_revision = "0013_blocks"
branch_labels = None
depends_on = None

# Everything below is a frozen copy; the revisions before are frozen too, and their definitions are used where they stay.

TABLES = ("study_annotations", "study_tags", "saved_views")


def first_revision() -> ModuleType:
    return op.get_context().environment_context.script.get_revision("0001_first_tables").module


def tables(dialect: str, first: ModuleType) -> list[sa.Table]:
    metadata = first.tables(dialect)
    return [
        sa.Table(
            "study_annotations",
            metadata,
            first.owner("study_id", "studies.id", primary_key=True),
            sa.Column("title", sa.Text),
            sa.Column("notes", sa.Text),
            first.flag("archived", nullable=False),
        ),
        sa.Table(
            "study_tags",
            metadata,
            first.owner("study_id", "studies.id", primary_key=True),
            sa.Column("tag", sa.String(80), primary_key=True),
            sqlite_with_rowid=False,
        ),
        sa.Table(
            "saved_views",
            metadata,
            sa.Column("name", sa.String(80), primary_key=True),
            sa.Column("page", sa.Text, nullable=False),
            sa.Column("query", sa.Text, nullable=False),
        ),
    ]


def upgrade() -> None:
    """Nothing is written about the studies that are recorded already."""
    dialect = op.get_bind().dialect.name
    for table in tables(dialect, first_revision()):
        table.create(op.get_bind())


def downgrade() -> None:
    """What users wrote is deleted; every result stays."""
    for name in reversed(TABLES):
        op.drop_table(name)
