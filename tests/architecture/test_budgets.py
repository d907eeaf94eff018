"""The budgets of the house: sizes a newcomer can hold in the head. Exceptions are named here with their reason."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "worker", "cli", "core", "client/preftune", "migrations")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 40
MAX_FOLDER_MODULES = 15
MAX_NESTING = 3
MAX_PARAMETERS = 6

LONG_FUNCTIONS: dict[str, str] = {
    "core/datasets/recognition.py:_no_layout": "one message per way a file can be of no known layout",
    "core/services/jobs/submission.py:insert": "one row with a column per line",
}
"""`path:function` -> why it may be longer."""
MANY_PARAMETERS: dict[str, str] = {
    "api/routes/datasets.py:create_dataset": "FastAPI declares query parameters so",
    "api/routes/job_records.py:get_job_metrics": "FastAPI declares query parameters so",
    "api/routes/jobs.py:list_jobs": "FastAPI declares query parameters so",
    "api/routes/pairs.py:list_job_pairs": "FastAPI declares query parameters so",
    "api/routes/scores.py:request_scores": "FastAPI declares query parameters so",
    "api/routes/audit.py:list_audit_events": "FastAPI declares query parameters so",
    "client/preftune/cli/commands/access.py:audit": "typer declares options so",
    "cli/commands/datasets.py:check": "typer declares options so",
    "client/preftune/cli/commands/datasets.py:upload": "typer declares options so",
    "client/preftune/cli/commands/jobs.py:submit": "typer declares options so",
    "client/preftune/cli/commands/generations.py:start": "typer declares options so",
    "client/preftune/cli/commands/judgements.py:start": "typer declares options so",
    "client/preftune/cli/commands/rounds.py:create": "typer declares options so",
    "client/preftune/cli/commands/sweeps.py:start": "typer declares options so",
    "core/training/kernels/packed_attention.py:packed_attention": "the signature of transformers' attention interface",
}
"""`path:function` -> why it may take more; keyword-only parameters with defaults do not count."""
LARGE_FOLDERS: dict[str, str] = {
    "api/routes": "one module per resource",
    "api/schemas": "one module per resource",
    "core/database/repositories": "one module per table",
    "core/database/tables": "one module per table",
    "core/datasets/layouts": "one module per family of layouts",
}
"""Folder -> why it may hold more modules."""
LOCAL_IMPORTS: dict[str, str] = {
    "core/database/migrate.py": "alembic is loaded where the schema changes, not by every process that looks at it",
    "core/datasets/options.py": "the reader is loaded by the child that checks, and for options that name parts of it",
    "core/services/curves/chosen_points.py": "numpy would be loaded at every start, for long curves only",
    "core/storage/open_store.py": "boto3 is a twentieth of the start of a process, and only stores behind S3 need it",
    "core/datasets/sources/source.py": "pyarrow is a third of a check's start-up, and Parquet and Arrow alone need it",
    "core/services/datasets/contents.py": "pyarrow would be loaded by every API process, for exports that few ask for",
}
"""`path` -> why it imports inside a function."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.Match)
"""A `with` is no branch."""


def modules() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(path for path in found if "versions" not in path.parts)


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, FUNCTIONS):
            yield f"{path.relative_to(ROOT)}:{node.name}", node


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the function without its docstring."""
    docstring = node.body[0] if ast.get_docstring(node) else None
    documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (node.end_lineno or 0) - node.lineno + 1 - documented


def nesting(node: ast.AST, depth: int = 0) -> int:
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse
        deeper = isinstance(child, BLOCKS) and not is_elif
        deepest = max(deepest, nesting(child, depth + deeper))
    return deepest


def required_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    positional = [arg.arg for arg in node.args.posonlyargs + node.args.args if arg.arg not in ("self", "cls")]
    keyword_only = sum(default is None for default in node.args.kw_defaults)
    return len(positional) + keyword_only


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_the_budgets(path: Path) -> None:
    faults = []
    name = str(path.relative_to(ROOT))
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    if num_lines > MAX_MODULE_LINES:
        faults.append(f"{name}: {num_lines} lines, at most {MAX_MODULE_LINES}: split it by what it does")
    for label, node in functions(path):
        if body_lines(node) > MAX_FUNCTION_LINES and label not in LONG_FUNCTIONS:
            faults.append(
                f"{label}: {body_lines(node)} lines, at most {MAX_FUNCTION_LINES}: split it, or name it above"
            )
        if nesting(node) > MAX_NESTING:
            faults.append(f"{label}: nested {nesting(node)} deep, at most {MAX_NESTING}")
        if required_parameters(node) > MAX_PARAMETERS and label not in MANY_PARAMETERS:
            faults.append(f"{label}: {required_parameters(node)} parameters")
        has_import = any(isinstance(child, ast.Import | ast.ImportFrom) for child in ast.walk(node))
        if has_import and name not in LOCAL_IMPORTS:
            faults.append(f"{label}: imports inside a function")
    assert not faults, "\n".join(faults)


def test_folders_hold_at_most_fifteen_modules() -> None:
    """`python tests/architecture/house_figures.py` prints the numbers. A folder that is full gets named rooms."""
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in modules() if path.name != "__init__.py")
    full = {folder: number for folder, number in folders.items() if number > MAX_FOLDER_MODULES}
    assert {folder: number for folder, number in full.items() if folder not in LARGE_FOLDERS} == {}
    assert LARGE_FOLDERS.keys() <= folders.keys()


def test_init_files_stay_empty() -> None:
    inits = [path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    assert inits
    filled = [str(path.relative_to(ROOT)) for path in inits if path.read_text().strip()]
    assert filled == ["client/preftune/__init__.py"]


def test_module_names_say_what_is_in_them() -> None:
    vague = {"utils", "helpers", "common", "manager", "misc", "tools"}
    assert not [str(path.relative_to(ROOT)) for path in modules() if path.stem in vague]


def test_exceptions_to_the_budgets_still_exist() -> None:
    labels = {label for path in modules() for label, _ in functions(path)}
    paths = {str(path.relative_to(ROOT)) for path in modules()}
    assert (LONG_FUNCTIONS.keys() | MANY_PARAMETERS.keys()) <= labels
    assert LOCAL_IMPORTS.keys() <= paths
