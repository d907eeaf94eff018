"""The type of published weights, and requests to publish a policy again from its adapter"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from core.database.columns import Timestamp

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
STATUSES = ("queued", "running", "succeeded", "failed")
TABLE = "republish_requests"
UNREAD = sa.text("weights_dtype IS NULL")


def upgrade() -> None:
    op.add_column("artifacts", sa.Column("weights_dtype", sa.String(255), nullable=True))
    op.create_index("ix_artifacts_unread", "artifacts", ["job_id"], sqlite_where=UNREAD, postgresql_where=UNREAD)
    op.create_table(
        TABLE,
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
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
        sa.Column("outcome", JSON, nullable=False),
        sa.CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL)", name=op.f("ck_republish_requests_lease_while_running")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_expires_at IS NULL)", name=op.f("ck_republish_requests_lease_is_whole")
        ),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)",
            name=op.f("ck_republish_requests_finished"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_republish_requests_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_republish_requests")),
    )
    op.create_index(op.f("ix_republish_requests_job_id"), TABLE, ["job_id"], unique=False)
    op.create_index(op.f("ix_republish_requests_status_id"), TABLE, ["status", "id"], unique=False)
