"""Generations and their parts; datasets of responses"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json, Timestamp

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

STATUSES = ("queued", "running", "succeeded", "failed")
TABLE = "generations"


def upgrade() -> None:
    op.add_column("datasets", sa.Column("holds_responses", sa.Boolean(), nullable=True))
    op.create_table(
        TABLE,
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column(
            "status",
            sa.Enum(*STATUSES, name="status", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("num_tries", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.String(length=64), nullable=True),
        sa.Column("lease_expires_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("finished_at", Timestamp(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("requested", Json, nullable=False),
        sa.Column("prompts", sa.Text(), nullable=False),
        sa.Column("source_name", sa.String(length=255), nullable=True),
        sa.Column("num_prompts", sa.Integer(), nullable=False),
        sa.Column("num_answers", sa.Integer(), nullable=False),
        sa.Column("part_answers", sa.Integer(), nullable=False),
        sa.Column("num_done", sa.Integer(), nullable=False),
        sa.Column("num_failed", sa.Integer(), nullable=False),
        sa.Column("num_tokens", sa.BigInteger(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("failures", Json, nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("is_cancelled", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL)", name=op.f("ck_generations_lease_while_running")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_expires_at IS NULL)", name=op.f("ck_generations_lease_is_whole")
        ),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)", name=op.f("ck_generations_finished")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    op.create_index(op.f("ix_generations_status_id"), TABLE, ["status", "id"], unique=False)
    op.create_index(op.f("ix_generations_project_id_id"), TABLE, ["project_id", "id"], unique=False)
    op.create_table(
        "generation_parts",
        sa.Column("generation_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("answers", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_generation_parts_generation_id")),
        sa.PrimaryKeyConstraint("generation_id", "number", name=op.f("pk_generation_parts")),
    )
