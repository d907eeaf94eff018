"""Digests of normalised rows; the token of each attempt, and where it ended"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("rows_sha256", sa.String(64), nullable=True))
    op.add_column("datasets", sa.Column("rows_bytes", sa.BigInteger(), nullable=True))
    op.add_column("datasets", sa.Column("issues_sha256", sa.String(64), nullable=True))
    op.add_column("attempts", sa.Column("claim_token", sa.String(64), nullable=True))
    op.add_column("attempts", sa.Column("ended_stage", sa.String(32), nullable=True))
    op.add_column("attempts", sa.Column("ended_step", sa.BigInteger(), nullable=True))
