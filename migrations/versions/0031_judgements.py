"""Judgements, their pairs, and answers of language models"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json, Timestamp

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

STATUSES = ("queued", "running", "succeeded", "failed")
TABLE = "judgements"


def upgrade() -> None:
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
        sa.Column("first_model", sa.String(length=255), nullable=False),
        sa.Column("second_model", sa.String(length=255), nullable=False),
        sa.Column("source_name", sa.String(length=255), nullable=False),
        sa.Column("num_pairs", sa.Integer(), nullable=False),
        sa.Column("num_judged", sa.Integer(), nullable=False),
        sa.Column("num_failed", sa.Integer(), nullable=False),
        sa.Column("num_requests", sa.Integer(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("tally", Json, nullable=False),
        sa.Column("results", Json, nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("has_dataset", sa.Boolean(), nullable=False),
        sa.Column("is_cancelled", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL)", name=op.f("ck_judgements_lease_while_running")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_expires_at IS NULL)", name=op.f("ck_judgements_lease_is_whole")
        ),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)", name=op.f("ck_judgements_finished")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judgements")),
    )
    op.create_index(op.f("ix_judgements_status_id"), TABLE, ["status", "id"], unique=False)
    op.create_index(op.f("ix_judgements_project_id_id"), TABLE, ["project_id", "id"], unique=False)
    op.create_table(
        "judged_pairs",
        sa.Column("judgement_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("is_done", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("detail", Json, nullable=False),
        sa.ForeignKeyConstraint(["judgement_id"], ["judgements.id"], name=op.f("fk_judged_pairs_judgement_id")),
        sa.PrimaryKeyConstraint("judgement_id", "position", name=op.f("pk_judged_pairs")),
    )
    op.create_table(
        "judge_answers",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("answer", Json, nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key", name=op.f("pk_judge_answers")),
    )
    op.create_index(op.f("ix_judge_answers_created_at"), "judge_answers", ["created_at"], unique=False)
