"""Every setting of a job, described once in `core.domain.jobs.job_spec`, reaches docs, form, preview and model card.

`python tests/unit/domain/test_job_settings.py` writes the page's tables and the dashboard's form.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from core.domain.jobs.job_spec import JobRequest, StageSettings
from worker.artifact.model_card import stage_settings

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "guide" / "job-settings.md"
FORM = ROOT / "api" / "web" / "ui" / "form" / "settings.js"
MARK = "-->\n"
COMMAND = "python tests/unit/domain/test_job_settings.py"

FORM_HEAD = f"""// Every setting of a job, as core/domain/jobs/job_spec.py describes it. Written by `{COMMAND}`.
// kind: integer, number, boolean, choice, text, lines, names, texts, map or group; `keywords` are taken as well.
"""


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_of(part)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(pointer, field) of every setting below a model, in the order of its fields."""
    for name, field in model.model_fields.items():
        inner = next(models_of(field.annotation), None)
        yield f"{prefix}/{name}", field
        if inner is not None:
            yield from leaves(inner, f"{prefix}/{name}")


def allowed(schema: dict[str, Any]) -> str:
    """What a value may be, from its JSON schema."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(allowed(part) for part in schema["anyOf"]))
    if "$ref" in schema:
        return "settings, below"
    kind = {"integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}.get(
        schema.get("type", ""), schema.get("type", "any")
    )
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None and high is None:
        return kind
    left = "[" if "minimum" in schema else "("
    right = "]" if "maximum" in schema else ")"
    return f"{kind} in {left}{_number(low, '-∞')}, {_number(high, '∞')}{right}"


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:,}" if float(value).is_integer() else f"{value:g}"


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "its own defaults" if isinstance(value, BaseModel) else f"`{'null' if value is None else value}`"


def render() -> str:
    """The part of the page that is written from the models."""
    lines = ["| Setting | Allowed | Default | Meaning |", "|---|---|---|---|"]
    for pointer, field in leaves(JobRequest):
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(
            f"| `{pointer[1:].replace('/', '.')}` | {allowed(schema_of(pointer))} | {default_of(field)} | {meaning} |"
        )
    return "\n".join(lines)


def test_the_page_says_what_the_models_say() -> None:
    written = PAGE.read_text(encoding="utf-8").split(MARK, 1)[1].strip()
    is_current = written == render().strip()
    assert is_current, f"{PAGE.relative_to(ROOT)} differs from core/domain/jobs/job_spec.py; write it anew: {COMMAND}"


def test_every_setting_has_a_description() -> None:
    without = [pointer for pointer, field in leaves(JobRequest) if not field.description]
    assert not without, "give them a description, with the unit, in core/domain/jobs/job_spec.py: " + ", ".join(without)


def form_settings() -> Iterator[dict[str, Any]]:
    """What the dashboard's form needs to know of each setting."""
    for pointer, field in leaves(JobRequest):
        schema = schema_of(pointer)
        parts = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
        keywords = [part["const"] for part in parts if "const" in part]
        main = next((part for part in parts if "const" not in part), parts[0])
        described: dict[str, Any] = {"pointer": pointer, "kind": kind_of(main)}
        if "enum" in main:
            keywords += main["enum"]
        if keywords:
            described["keywords"] = keywords
        if field.is_required():
            described["required"] = True
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if not isinstance(default, BaseModel):
            described["default"] = default
        yield described | {"description": field.description}


def schema_of(pointer: str) -> dict[str, Any]:
    owner: type[BaseModel] = JobRequest
    *parents, name = pointer.split("/")[1:]
    for parent in parents:
        owner = next(models_of(owner.model_fields[parent].annotation))
    schema: dict[str, Any] = owner.model_json_schema()["properties"][name]
    return schema


def kind_of(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "group"
    if "enum" in schema or "const" in schema:
        return "choice"
    if schema["type"] == "array":
        is_number = schema["items"]["type"] == "integer"
        return "lines" if is_number else "texts" if schema["items"].get("maxLength", 0) > 255 else "names"
    return {"string": "text", "object": "map"}.get(schema["type"], str(schema["type"]))


def render_form() -> str:
    lines = (f"  {json.dumps(setting, ensure_ascii=False)}," for setting in form_settings())
    return f"{FORM_HEAD}export const SETTINGS = [\n" + "\n".join(lines) + "\n];\n"


def test_the_form_has_every_setting() -> None:
    is_current = FORM.read_text(encoding="utf-8") == render_form()
    assert is_current, f"{FORM.relative_to(ROOT)} differs from core/domain/jobs/job_spec.py; write it anew: {COMMAND}"


@pytest.mark.parametrize("name", StageSettings.model_fields)
def test_the_model_card_names_every_setting_of_a_stage(name: str) -> None:
    values = dict.fromkeys(StageSettings.model_fields, "auto") | {name: "seen"}
    assert f"{name.replace('_', ' ')} seen" in stage_settings(values)


if __name__ == "__main__":
    by_hand = PAGE.read_text(encoding="utf-8").split(MARK, 1)[0]
    PAGE.write_text(f"{by_hand}{MARK}\n{render()}\n", encoding="utf-8")
    FORM.write_text(render_form(), encoding="utf-8")
