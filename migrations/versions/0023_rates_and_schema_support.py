"""Rates that all API processes share, and which versions may work with the schema"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Timestamp

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rate_buckets",
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("full_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_rate_buckets")),
    )
    op.create_table(
        "schema_support",
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_schema_support")),
    )
