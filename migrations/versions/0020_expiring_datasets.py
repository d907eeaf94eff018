"""When a dataset is to go, the tokens that a finished job was trained on, and the life of what an upload becomes"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Timestamp

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("expires_at", Timestamp(), nullable=True))
    op.create_index(op.f("ix_datasets_expires_at"), "datasets", ["expires_at"], unique=False)
    op.add_column("uploads", sa.Column("dataset_seconds", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("trained_tokens", sa.BigInteger(), nullable=True))
