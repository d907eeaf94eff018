"""Arenas: blind pairs, leases of voters, votes; and the datasets that grow from them"""

import sqlalchemy as sa
from alembic import op

from core.database.columns import Json, Timestamp

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "arenas",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("requested", Json, nullable=False),
        sa.Column("first_model", sa.String(length=255), nullable=False),
        sa.Column("second_model", sa.String(length=255), nullable=False),
        sa.Column("source_name", sa.String(length=255), nullable=True),
        sa.Column("votes_per_pair", sa.Integer(), nullable=False),
        sa.Column("num_pairs", sa.Integer(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_arenas_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arenas")),
    )
    op.create_index(op.f("ix_arenas_project_id_id"), "arenas", ["project_id", "id"], unique=False)
    op.create_table(
        "arena_pairs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("arena_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("content", Json, nullable=False),
        sa.Column("num_votes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["arena_id"], ["arenas.id"], name=op.f("fk_arena_pairs_arena_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arena_pairs")),
    )
    op.create_index(op.f("ix_arena_pairs_arena_id_position"), "arena_pairs", ["arena_id", "position"], unique=False)
    op.create_table(
        "arena_leases",
        sa.Column("pair_id", sa.String(length=64), nullable=False),
        sa.Column("voter", sa.String(length=255), nullable=False),
        sa.Column("arena_id", sa.String(length=64), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["arena_pairs.id"], name=op.f("fk_arena_leases_pair_id")),
        sa.PrimaryKeyConstraint("pair_id", "voter", name=op.f("pk_arena_leases")),
    )
    op.create_index(op.f("ix_arena_leases_arena_id"), "arena_leases", ["arena_id"], unique=False)
    op.create_table(
        "arena_votes",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("arena_id", sa.String(length=64), nullable=False),
        sa.Column("pair_id", sa.String(length=64), nullable=False),
        sa.Column("voter", sa.String(length=255), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=False),
        sa.Column("is_swapped", sa.Boolean(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["arena_pairs.id"], name=op.f("fk_arena_votes_pair_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arena_votes")),
        sa.UniqueConstraint("pair_id", "voter", name=op.f("uq_arena_votes_pair_id_voter")),
    )
    op.create_index(op.f("ix_arena_votes_arena_id_id"), "arena_votes", ["arena_id", "id"], unique=False)
    op.create_table(
        "grown_datasets",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "source", name=op.f("pk_grown_datasets")),
    )
