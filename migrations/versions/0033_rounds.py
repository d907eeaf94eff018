"""Rounds, and the steps that they go through"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json, Timestamp

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_OPEN = sa.text("finished_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "rounds",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("requested", Json, nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("num_rounds", sa.Integer(), nullable=False),
        sa.Column("stop_reason", sa.String(length=32), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("finished_at", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_rounds_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
    )
    op.create_index(op.f("ix_rounds_project_id_id"), "rounds", ["project_id", "id"], unique=False)
    op.create_index("ix_rounds_open", "rounds", ["id"], unique=False, sqlite_where=_OPEN, postgresql_where=_OPEN)
    op.create_table(
        "round_steps",
        sa.Column("rounds_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("child_id", sa.String(length=64), nullable=False),
        sa.Column("earlier", Json, nullable=False),
        sa.Column("is_held", sa.Boolean(), nullable=False),
        sa.Column("result", Json, nullable=False),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("started_at", Timestamp(), nullable=True),
        sa.Column("finished_at", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(["rounds_id"], ["rounds.id"], name=op.f("fk_round_steps_rounds_id")),
        sa.PrimaryKeyConstraint("rounds_id", "position", name=op.f("pk_round_steps")),
    )
    op.create_index(op.f("ix_round_steps_child_id"), "round_steps", ["child_id"], unique=False)
