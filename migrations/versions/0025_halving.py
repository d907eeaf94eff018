"""Successive halving: rungs of sweeps, where their members pause, and what was decided there"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json, Timestamp

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("pause_at_share", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("is_at_rung", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("sweeps", sa.Column("halving", Json, nullable=True))
    op.add_column("sweep_members", sa.Column("rung", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("sweep_members", sa.Column("is_dropped", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("sweep_members", sa.Column("rung_values", Json, nullable=True))
    op.create_table(
        "sweep_events",
        sa.Column("sweep_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("at", Timestamp(), nullable=False),
        sa.Column("level", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", Json, nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_sweep_events_sweep_id")),
        sa.PrimaryKeyConstraint("sweep_id", "seq", name=op.f("pk_sweep_events")),
    )
