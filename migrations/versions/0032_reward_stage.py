"""The stage `reward`, that of jobs which train a reward model"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

BEFORE, AFTER = "'dpo', 'evaluation'", "'dpo', 'reward', 'evaluation'"
STAGES = f"'staging', 'sft', 'reference', {AFTER}, 'publishing'"
CHECKED = (
    ("jobs", "stage"),
    ("attempts", "resume_stage"),
    ("job_stages", "stage"),
    ("metric_points", "stage"),
    ("metric_blocks", "stage"),
    ("rewound_points", "stage"),
    ("checkpoints", "stage"),
    ("stage_outputs", "stage"),
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rewrite_checks_of_sqlite()
        return
    for table, column in CHECKED:
        name = op.f(f"ck_{table}_{column}")
        op.drop_constraint(name, table, type_="check")
        op.create_check_constraint(name, table, f"{column} IN ({STAGES})")


def _rewrite_checks_of_sqlite() -> None:
    """Change the text of the CHECKs, which no row is stored by: copying tables would take their size once more.

    The procedure is that of SQLite's documentation for changes that leave the content of a table as it is
    (https://www.sqlite.org/lang_altertable.html, section 7).
    """
    connection = op.get_bind()
    version = connection.scalar(sa.text("PRAGMA schema_version"))
    connection.execute(sa.text("PRAGMA writable_schema = ON"))
    tables = sorted({table for table, _ in CHECKED})
    connection.execute(
        sa.text(
            "UPDATE sqlite_master SET sql = replace(sql, :before, :after) WHERE type = 'table' AND name IN :tables"
        ).bindparams(sa.bindparam("tables", expanding=True)),
        {"before": BEFORE, "after": AFTER, "tables": tables},
    )
    connection.execute(sa.text(f"PRAGMA schema_version = {int(version) + 1}"))
    connection.execute(sa.text("PRAGMA writable_schema = OFF"))
