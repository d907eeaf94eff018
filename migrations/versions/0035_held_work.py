"""Generations and judgements that are held while their rounds are paused; troubles of rounds, counted"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Timestamp

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("generations", "judgements"):
        op.add_column(table, sa.Column("is_held", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("rounds", sa.Column("num_troubles", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("rounds", sa.Column("trouble_since", Timestamp(), nullable=True))
