"""Every setting of a job, described once in `core.domain.jobs.job_spec`, reaches docs, form, preview and model card.

`python tests/unit/domain/test_job_settings.py` writes the page's tables.
"""

import re
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
FORM = ROOT / "api" / "web" / "ui" / "job_form.js"
MARK = "-->\n"
COMMAND = "python tests/unit/domain/test_job_settings.py"

STAGE_DETAILS = ("schedule", "optimizer", "weight_decay", "max_grad_norm")
"""Settings of both stages whose presets are right for nearly everybody."""
NOT_IN_THE_FORM = {
    **{f"/{stage}/{name}": "presets" for stage in ("sft", "dpo") for name in STAGE_DETAILS},
    "/lora/target_modules": "the default covers all linear layers",
    "/lora/target_parameters": "only some models have such experts",
    "/artifact_dtype": "the default loses nothing",
    "/validation_dataset_id": "rare",
    "/keep_checkpoints": "rare",
    "/keep_best": "rare",
    "/early_stopping/metric": "early stopping is set as JSON",
    "/early_stopping/patience": "early stopping is set as JSON",
    "/early_stopping/min_delta": "early stopping is set as JSON",
    "/early_stopping/restore_best": "early stopping is set as JSON",
    "/score_training_pairs": "rare",
    "/chat_template_kwargs": "an object of any names",
    "/exclude_lines": "set by a rerun from the table of pairs",
    "/swap_lines": "set by a rerun from the table of pairs",
    "/reuse": "for tests of the service",
    "/metadata": "for programs",
}
"""Pointer of a setting -> why people set it through the API, the command line or the client only."""


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
        owner: type[BaseModel] = JobRequest
        *parents, name = pointer.split("/")[1:]
        for parent in parents:
            owner = next(models_of(owner.model_fields[parent].annotation))
        schema = owner.model_json_schema()["properties"][name]
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{'.'.join([*parents, name])}` | {allowed(schema)} | {default_of(field)} | {meaning} |")
    return "\n".join(lines)


def test_the_page_says_what_the_models_say() -> None:
    written = PAGE.read_text(encoding="utf-8").split(MARK, 1)[1].strip()
    is_current = written == render().strip()
    assert is_current, f"{PAGE.relative_to(ROOT)} differs from core/domain/jobs/job_spec.py; write it anew: {COMMAND}"


def test_every_setting_has_a_description() -> None:
    without = [pointer for pointer, field in leaves(JobRequest) if not field.description]
    assert not without, "give them a description, with the unit, in core/domain/jobs/job_spec.py: " + ", ".join(without)


def test_every_setting_is_in_the_form_or_named_as_left_out() -> None:
    """The form writes a stage's fields once, with the stage as a variable, and an option's as the variant has it."""
    form = FORM.read_text(encoding="utf-8")

    def is_in_form(pointer: str) -> bool:
        of_any_stage = re.sub(r"^/(sft|dpo)/", "/${name}/", pointer)
        return any(mark in form for mark in (f'"{pointer}"', f"`{of_any_stage}`", f"{pointer}/$"))

    pointers = [pointer for pointer, field in leaves(JobRequest) if next(models_of(field.annotation), None) is None]
    missing = [pointer for pointer in pointers if not is_in_form(pointer) and pointer not in NOT_IN_THE_FORM]
    assert not missing, (
        f"add a field to api/web/ui/job_form.js, or name them in NOT_IN_THE_FORM with the reason: {missing}"
    )
    stale = [pointer for pointer in NOT_IN_THE_FORM if pointer not in pointers or is_in_form(pointer)]
    assert not stale, f"they are in the form, or no settings any more; take them out of NOT_IN_THE_FORM: {stale}"


@pytest.mark.parametrize("name", StageSettings.model_fields)
def test_the_model_card_names_every_setting_of_a_stage(name: str) -> None:
    values = dict.fromkeys(StageSettings.model_fields, "auto") | {name: "seen"}
    assert f"{name.replace('_', ' ')} seen" in stage_settings(values)


if __name__ == "__main__":
    by_hand = PAGE.read_text(encoding="utf-8").split(MARK, 1)[0]
    PAGE.write_text(f"{by_hand}{MARK}\n{render()}\n", encoding="utf-8")
