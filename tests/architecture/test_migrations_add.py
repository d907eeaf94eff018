"""Migrations only add, so that workers of the version before go on while they run, and after."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = sorted((ROOT / "migrations" / "versions").glob("*.py"))
ADDING = {"create_table", "create_index", "add_column", "f"}
EXCEPTIONS: dict[str, str] = {
    "0015_audit.py: execute": "triggers of a table that the version before does not have",
    "0015_audit.py: get_bind": "asked for the name of the database only",
    "0032_reward_stage.py: drop_constraint": "the check comes back in the same transaction, with one value more",
    "0032_reward_stage.py: create_check_constraint": "it takes all that the version before writes",
    "0032_reward_stage.py: get_bind": "asked for the name of the database; in SQLite the text of the checks changes",
}
"""`file: operation` -> why no process of the version before can notice."""


def operations(path: Path) -> list[tuple[str, ast.Call]]:
    """What `upgrade`, and whatever it may call, calls of alembic, or runs as a statement of its own."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    forwards = [node for node in body if not (isinstance(node, ast.FunctionDef) and node.name == "downgrade")]
    nodes = [node for part in forwards for node in ast.walk(part)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [
        (call.func.attr, call)
        for call in calls
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) and call.func.value.id == "op"
    ]


def options(call: ast.Call) -> dict[str, object]:
    return {word.arg: getattr(word.value, "value", "an expression") for word in call.keywords if word.arg}


def fault(name: str, call: ast.Call) -> str | None:
    if name not in ADDING:
        return f"{name} takes or changes what the version before uses"
    if name == "create_index" and options(call).get("unique"):
        return "a unique index refuses what the version before may write"
    if name == "add_column":
        column = call.args[1]
        assert isinstance(column, ast.Call)
        if options(column).get("unique"):
            return "a unique column refuses what the version before may write"
        if options(column).get("nullable", True) is not True and "server_default" not in options(column):
            return "the version before writes rows without the new column: it must be nullable or have a server default"
    return None


def test_migrations_are_one_chain_in_the_order_of_their_names() -> None:
    """Two that follow the same one leave a database without a next version."""
    chain = []
    for path in MIGRATIONS:
        names = dict(re.findall(r"^(revision|down_revision) = (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        chain.append((path.name[:4], names["revision"].strip('"'), names["down_revision"].strip('"')))
    before = ["None", *(number for number, _, _ in chain)]
    assert chain == [(number, number, previous) for (number, _, _), previous in zip(chain, before, strict=False)]


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_a_migration_only_adds(path: Path) -> None:
    faults = [f"{path.name}: {name}: {reason}" for name, call in operations(path) if (reason := fault(name, call))]
    assert [line for line in faults if line.rpartition(":")[0] not in EXCEPTIONS] == []


@pytest.mark.parametrize(
    ("statement", "is_fault"),
    [
        ('op.add_column("jobs", sa.Column("x", sa.Text(), nullable=True))', False),
        ('op.add_column("jobs", sa.Column("x", sa.Text(), nullable=False, server_default=""))', False),
        ('op.add_column("jobs", sa.Column("x", sa.Text(), nullable=False))', True),
        ('op.add_column("jobs", sa.Column("x", sa.Text(), unique=True))', True),
        ('op.create_index("ix", "jobs", ["x"], unique=True)', True),
        ('op.create_check_constraint("ck", "jobs", "priority > 0")', True),
        ('op.get_bind().execute(sa.text("UPDATE jobs SET priority = 0"))', True),
        ('op.drop_column("jobs", "name")', True),
        ('op.alter_column("jobs", "name", nullable=False)', True),
        ('op.execute("DELETE FROM jobs")', True),
        ('op.batch_alter_table("jobs")', True),
    ],
)
def test_what_counts_as_adding(tmp_path: Path, statement: str, is_fault: bool) -> None:
    path = tmp_path / "0001_x.py"
    path.write_text(f"def upgrade() -> None:\n    {statement}\n")
    assert any(fault(name, call) for name, call in operations(path)) is is_fault


def test_a_function_beside_upgrade_is_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "0001_x.py"
    path.write_text("""def _more():
    op.drop_column("jobs", "name")


def upgrade():
    _more()


def downgrade():
    op.drop_table("jobs")
""")
    assert [name for name, call in operations(path) if fault(name, call)] == ["drop_column"]
