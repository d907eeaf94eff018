"""Answers that were kept, and feedback on them"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Timestamp

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("keeps_answers", sa.Boolean(), nullable=True))
    op.create_table(
        "served_answers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=255), nullable=True),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("is_judged", sa.Boolean(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_served_answers_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_served_answers")),
    )
    op.create_index(op.f("ix_served_answers_project_id_id"), "served_answers", ["project_id", "id"], unique=False)
    op.create_index(op.f("ix_served_answers_created_at"), "served_answers", ["created_at"], unique=False)
    op.create_table(
        "feedback_items",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("answer_id", sa.String(length=64), nullable=False),
        sa.Column("other_id", sa.String(length=64), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("is_good", sa.Boolean(), nullable=True),
        sa.Column("edited", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("giver", sa.String(length=255), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["answer_id"], ["served_answers.id"], name=op.f("fk_feedback_items_answer_id")),
        sa.ForeignKeyConstraint(["other_id"], ["served_answers.id"], name=op.f("fk_feedback_items_other_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback_items")),
    )
    op.create_index(op.f("ix_feedback_items_project_id_id"), "feedback_items", ["project_id", "id"], unique=False)
    op.create_index(op.f("ix_feedback_items_answer_id"), "feedback_items", ["answer_id"], unique=False)
    op.create_index(op.f("ix_feedback_items_other_id"), "feedback_items", ["other_id"], unique=False)
