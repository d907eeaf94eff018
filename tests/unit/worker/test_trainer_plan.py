"""Every setting of a job reaches the engine's plan, or is named here with the place where it takes effect instead.

A new setting fails these tests until `worker/processes/trainer/plan.py` maps it, or `ELSEWHERE` says what reads it.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import make_base_model
from tiny_models import write_tiny_tokenizer

from core.domain.jobs.job_spec import JobRequest, JobSpec, resolve_request, resolve_staged
from core.domain.trainer_protocol import Assignment
from core.tokenization.pair_tokenizer import PairTokenizer
from worker.processes.trainer.inputs import EncodedInputs, EncodedSplit
from worker.processes.trainer.plan import make_plan

ELSEWHERE = {
    "base_model": "the assignment: the supervisor fetches its folder",
    "dataset_id": "the assignment: the supervisor fetches its rows",
    "dataset_version": "submission: the job keeps the id of the version",
    "sft.dataset_id": "the assignment: the supervisor fetches its rows",
    "validation_dataset_id": "the assignment: the supervisor fetches its rows",
    "max_length": "InputEncoder sets longer rows aside",
    "validation_fraction": "InputEncoder splits the rows",
    "exclude_lines": "InputEncoder edits the rows",
    "swap_lines": "InputEncoder edits the rows",
    "chat_template_kwargs": "the tokenizer gives them to the chat template",
    "keep_checkpoints": "the services decide which checkpoints stay",
    "keep_best": "the services decide which checkpoints stay",
    "reuse": "the supervisor answers queries for stage outputs, or does not",
    "name": "for people",
    "tracking": "the tracking clients name their run",
    "tracking.project": "checked on submission",
    "tracking.run_name": "the tracking clients name their run",
    "tracking.tags": "the tracking clients name their run",
    "metadata": "for people",
    "priority": "the queue",
    "max_runtime_seconds": "the supervisor stops the run",
    "nodes": "the queue: so many workers take it; each is told by its assignment",
}
OTHER = {
    "group_by_prompt": {"group_by_prompt": True},
    "variant": {"variant": "ipo"},
    "variant_options": {"variant_options": {"label_smoothing": 0.1}},
    "beta": {"beta": 0.7},
    "precision": {"precision": "fp32"},
    "lora.target_modules": {"lora": {"target_modules": ["q_proj"]}},
    "lora.target_parameters": {"lora": {"target_parameters": ["down_proj"]}},
    "sample_prompts": {"sample_prompts": ["once upon a time"]},
    "sft": {"sft": "skip"},
    "sft.schedule": {"sft": {"schedule": "linear"}},
    "dpo.schedule": {"dpo": {"schedule": "cosine"}},
    "lora": {"lora": None},
    "early_stopping": {"early_stopping": None},
    "reward.schedule": {"reward": {"schedule": "cosine"}},
}
"""Another value for settings whose schema alone does not suggest one."""
BASE: dict[str, Any] = {
    "base_model": "tiny",
    "dataset_id": "ds_1",
    "lora": {},
    "early_stopping": {},
    "precision": "bf16",
}


SCHEMA = JobRequest.model_json_schema()


def settings(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted name, schema) of every setting of a request, those inside `sft`, `dpo`, `lora`, `early_stopping` too."""
    for name, inner in schema["properties"].items():
        yield ".".join((*path, name)), inner
        for option in [inner, *inner.get("anyOf", []), *inner.get("allOf", [])]:
            if "$ref" in option:
                yield from settings(SCHEMA["$defs"][option["$ref"].rpartition("/")[2]], (*path, name))


BLOCKS = ("dpo", "reward")
"""They cannot be left out."""
SETTINGS = {name: schema for name, schema in settings(SCHEMA) if name not in BLOCKS}


def another_value(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A request body that differs from `BASE` in this setting alone."""
    if name in OTHER:
        return OTHER[name]
    value: Any = None
    for option in [schema, *schema.get("anyOf", [])]:
        if "enum" in option:
            value = next(each for each in reversed(option["enum"]) if each != schema.get("default"))
        elif option.get("type") == "boolean":
            value = not schema["default"]
        elif option.get("type") in {"integer", "number"}:
            value = option["maximum"] / 2 if option["type"] == "number" and "maximum" in option else 17
            value = 0.25 if option.get("maximum") == 1 or option.get("exclusiveMaximum") == 1 else value
    assert value is not None, f"say in OTHER what {name} may be"
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PairTokenizer:
    return PairTokenizer.open(write_tiny_tokenizer(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_base_model(folder / "tiny")
    return folder


def staged(body: dict[str, Any]) -> JobSpec:
    request = JobRequest.model_validate(body)
    spec = resolve_request(request, num_parameters=1_000_000, num_pairs=1000, default_beta=0.1)
    return resolve_staged(spec, num_sft_rows=1000, num_train_pairs=1000, device="cpu", fast_precision="bf16")


def planned(body: dict[str, Any], tokenizer: PairTokenizer, models_dir: Path) -> dict[str, Any]:
    spec = staged(body)
    assignment = Assignment(
        job_id="job_1", attempt=1, spec=spec.model_dump(), base_model_dir=str(models_dir / "tiny"), rows="rows.jsonl"
    )
    split = EncodedSplit(directory=Path("train"), num_rows=1000)
    inputs = EncodedInputs(train=split, validation=split, sft=None)
    plan = make_plan(assignment, spec, inputs, tokenizer, Path("work"))
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(plan)))
    return values


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in ELSEWHERE])
def test_every_setting_reaches_the_plan(name: str, tokenizer: PairTokenizer, models_dir: Path) -> None:
    base = BASE | ({"method": "reward"} if name.startswith("reward.") else {})
    changed = dict(base)
    for key, value in another_value(name, SETTINGS[name]).items():
        changed[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
    is_felt = planned(changed, tokenizer, models_dir) != planned(base, tokenizer, models_dir)
    assert is_felt, (
        f"`{name}` is accepted and then ignored: map it in worker/processes/trainer/plan.py, "
        "or name in ELSEWHERE what reads it"
    )


def test_settings_that_take_effect_elsewhere_exist() -> None:
    assert sorted(ELSEWHERE.keys() - SETTINGS.keys()) == []
    assert sorted(OTHER.keys() - SETTINGS.keys()) == []
