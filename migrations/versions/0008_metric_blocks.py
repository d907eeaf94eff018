"""Extremes of curves in blocks of steps, for charts of long runs"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
STAGES = ("staging", "sft", "reference", "dpo", "evaluation", "publishing")


def upgrade() -> None:
    op.create_table(
        "metric_blocks",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column(
            "stage",
            sa.Enum(*STAGES, name="stage", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("split", sa.String(length=255), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("extremes", JSON, nullable=False),
        sa.CheckConstraint("split IN ('train', 'validation')", name=op.f("ck_metric_blocks_split")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_metric_blocks_job_id")),
        sa.PrimaryKeyConstraint("job_id", "stage", "split", "step", name=op.f("pk_metric_blocks")),
    )
