"""Versions of datasets"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("root_id", sa.String(length=64), nullable=True))
    op.add_column("datasets", sa.Column("version", sa.Integer(), nullable=True))
    op.add_column("datasets", sa.Column("last_version", sa.Integer(), nullable=True))
    op.add_column("datasets", sa.Column("made_from", Json, nullable=True))
    op.create_index(op.f("ix_datasets_root_id_version"), "datasets", ["root_id", "version"], unique=False)
