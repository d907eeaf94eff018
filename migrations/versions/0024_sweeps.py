"""Sweeps, and the jobs that are their members"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json, Timestamp

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_OPEN = sa.text("finished_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("requested", Json, nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("metric", sa.String(length=255), nullable=False),
        sa.Column("max_parallel", sa.Integer(), nullable=False),
        sa.Column("best_job_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("finished_at", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_sweeps_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    op.create_index(op.f("ix_sweeps_project_id_id"), "sweeps", ["project_id", "id"], unique=False)
    op.create_index("ix_sweeps_open", "sweeps", ["id"], unique=False, sqlite_where=_OPEN, postgresql_where=_OPEN)
    op.create_table(
        "sweep_members",
        sa.Column("sweep_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("overrides", Json, nullable=False),
        sa.Column("is_submitted", sa.Boolean(), nullable=False),
        sa.Column("is_held", sa.Boolean(), nullable=False),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_sweep_members_sweep_id")),
        sa.PrimaryKeyConstraint("sweep_id", "position", name=op.f("pk_sweep_members")),
    )
    op.create_index(op.f("ix_sweep_members_job_id"), "sweep_members", ["job_id"], unique=False)
