"""Gangs: workers that are reserved for a job on several nodes"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json, Timestamp

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

TABLE = "gang_members"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("nodes", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("num_unfilled", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        TABLE,
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("joined_at", Timestamp(), nullable=False),
        sa.Column("pulse_at", Timestamp(), nullable=False),
        sa.Column("pulse_seq", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("node", sa.Integer(), nullable=True),
        sa.Column("claim_token", sa.String(length=64), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("part", Json, nullable=True),
        sa.Column("report", Json, nullable=True),
        sa.CheckConstraint("(attempt IS NULL) = (node IS NULL)", name=op.f("ck_gang_members_node_of_attempt")),
        sa.CheckConstraint("(attempt IS NULL) = (claim_token IS NULL)", name=op.f("ck_gang_members_token_of_attempt")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_gang_members_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gang_members")),
    )
    op.create_index(op.f("ix_gang_members_job_id"), TABLE, ["job_id"], unique=False)
