"""Data sets: up to which version of the reading their rows are known, and what a newer one says of their file"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("datasets", sa.Column("reader_version", sa.Integer(), nullable=True))
    op.add_column("datasets", sa.Column("rereading", JSON, nullable=True))
