"""What workers and API processes say of themselves: version, lanes, devices, clock and disks"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("facts", Json, nullable=True))
