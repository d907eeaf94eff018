"""The policy of a checkpoint, as users load it, is kept apart from the state to resume from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("policy_prefix", sa.Text(), nullable=True))
    op.add_column("checkpoints", sa.Column("policy_manifest_sha256", sa.String(length=64), nullable=True))
    op.add_column("checkpoints", sa.Column("policy_num_bytes", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_checkpoints_policy_prefix"), "checkpoints", ["policy_prefix"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_checkpoints_policy_prefix"), table_name="checkpoints")
    op.drop_column("checkpoints", "policy_num_bytes")
    op.drop_column("checkpoints", "policy_manifest_sha256")
    op.drop_column("checkpoints", "policy_prefix")
