"""Views that `from_row` makes: every field is an attribute of its row, of the same type, or is given."""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from sqlalchemy.orm import Mapped

from core.database.tables.objects import Artifact
from core.database.tables.records import JobSample
from core.database.tables.uploads import UploadPart

SERVICES = Path(__file__).parents[3] / "core" / "services"
ROWS_OF_QUERIES = {"ArtifactView": Artifact, "SampleView": JobSample, "UploadPartView": UploadPart}
"""Tables of the views whose row is no argument of a function."""


@dataclass(frozen=True)
class Use:
    view: Any
    table: Any
    given: frozenset[str]


def uses() -> Iterator[Any]:
    """Every call of `from_row`, with the type of its row from the function's annotations."""
    for path in sorted(SERVICES.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = importlib.import_module(".".join(path.relative_to(SERVICES.parents[1]).with_suffix("").parts))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                if isinstance(call.func, ast.Name) and call.func.id == "from_row":
                    yield pytest.param(_use(module, function, call), id=f"{path.stem}-{ast.unparse(call.args[0])}")


def _use(module: ModuleType, function: ast.FunctionDef, call: ast.Call) -> Use:
    view, row = (ast.unparse(argument) for argument in call.args)
    annotations = {each.arg: ast.unparse(each.annotation) for each in function.args.args if each.annotation}
    table = ROWS_OF_QUERIES.get(view) or getattr(module, annotations[row])
    return Use(getattr(module, view), table, frozenset(keyword.arg or "" for keyword in call.keywords))


def type_of(table: Any, name: str) -> Any:
    attribute = getattr(table, name)
    if isinstance(attribute, property):
        return get_type_hints(attribute.fget)["return"]
    hint = get_type_hints(table)[name]
    return get_args(hint)[0] if get_origin(hint) is Mapped else hint


@pytest.mark.parametrize("use", list(uses()))
def test_a_row_has_what_its_view_shows(use: Use) -> None:
    shown = {field.name for field in fields(use.view)}
    assert use.given <= shown
    hints = get_type_hints(use.view)
    taken = {name: type_of(use.table, name) for name in shown - use.given}
    assert taken == {name: hints[name] for name in taken}


def test_the_calls_are_found() -> None:
    assert len(list(uses())) > 15
