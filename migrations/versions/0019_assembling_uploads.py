"""Who puts the parts of an upload together, so that they stay as they are meanwhile"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Timestamp

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("assembler", sa.String(64), nullable=True))
    op.add_column("uploads", sa.Column("assembling_until", Timestamp(), nullable=True))
