"""Audit events, which are only ever added to; keys of operators; sessions that were signed out"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from core.database.columns import Timestamp

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
FINAL = "audit events are final"
KEPT = {
    "sqlite": "OLD.at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')",
    "postgresql": "OLD.at > now() - interval '1 day'",
}


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("at", Timestamp(), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=True),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("object_id", sa.String(length=255), nullable=True),
        sa.Column("outcome", sa.String(length=64), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events_project_id_id"), "audit_events", ["project_id", "id"], unique=False)
    op.create_index(op.f("ix_audit_events_at"), "audit_events", ["at"], unique=False)
    op.create_table(
        "ended_sessions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ended_sessions")),
    )
    op.add_column("api_keys", sa.Column("is_operator", sa.Boolean(), nullable=True))
    for statement in _triggers(op.get_bind().dialect.name):
        op.execute(statement)


def _triggers(dialect: str) -> list[str]:
    """No change at all, and no deletion before a day is over: the least that retention may be set to."""
    if dialect == "sqlite":
        refuse = f"BEGIN SELECT RAISE(ABORT, '{FINAL}'); END"
        return [
            f"CREATE TRIGGER audit_events_no_change BEFORE UPDATE ON audit_events {refuse}",
            f"CREATE TRIGGER audit_events_kept BEFORE DELETE ON audit_events WHEN {KEPT[dialect]} {refuse}",
        ]
    return [
        "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{FINAL}'; END $$",
        "CREATE TRIGGER audit_events_no_change BEFORE UPDATE ON audit_events "
        "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()",
        f"CREATE TRIGGER audit_events_kept BEFORE DELETE ON audit_events FOR EACH ROW WHEN ({KEPT[dialect]}) "
        "EXECUTE FUNCTION refuse_audit_change()",
    ]
