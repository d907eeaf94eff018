"""What finished jobs took, which workers are alive, and the estimate that was made of a job"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json, Timestamp

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("estimate", Json, nullable=True))
    op.create_table(
        "job_measurements",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("base_model", sa.String(length=255), nullable=False),
        sa.Column("device_class", sa.String(length=255), nullable=False),
        sa.Column("settings", sa.String(length=255), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("values", Json, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_measurements")),
    )
    name = op.f("ix_job_measurements_base_model_device_class_created_at")
    op.create_index(name, "job_measurements", ["base_model", "device_class", "created_at"], unique=False)
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("device_class", sa.String(length=255), nullable=False),
        sa.Column("trains", sa.Boolean(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("started_at", Timestamp(), nullable=False),
        sa.Column("seen_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
