"""Where the slow check of stored objects stands, and what it found missing or damaged"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Timestamp

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "object_checks",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("next_at", Timestamp(), nullable=False),
        sa.Column("began_at", Timestamp(), nullable=False),
        sa.Column("ended_at", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_object_checks")),
    )
    op.create_table(
        "lost_objects",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=64), nullable=False),
        sa.Column("what", sa.String(length=255), nullable=False),
        sa.Column("found_at", Timestamp(), nullable=False),
        sa.Column("seen_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_lost_objects")),
    )
    op.create_index(op.f("ix_lost_objects_owner_id"), "lost_objects", ["owner_id"], unique=False)
