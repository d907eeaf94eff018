"""Requests resolved to specs: every `auto` becomes a number, and the same request the same numbers."""

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from api.http.validation_messages import field_errors
from core.domain.jobs.job_spec import (
    JobRequest,
    JobSpec,
    Precision,
    resolve_request,
    resolve_staged,
    total_steps,
)
from core.domain.jobs.spec_forms import accepted_form, stored_form

LEAST = {"base_model": "smollm2-135m-instruct", "dataset_id": "ds_1"}


def accepted(body: dict[str, Any], num_pairs: int = 1000, num_parameters: int = 135_000_000) -> JobSpec:
    request = JobRequest.model_validate(LEAST | body)
    return resolve_request(request, num_parameters=num_parameters, num_pairs=num_pairs, default_beta=0.1)


def staged(body: dict[str, Any], num_pairs: int = 1000, precision: Precision = "bf16") -> JobSpec:
    return resolve_staged(
        accepted(body, num_pairs),
        num_sft_rows=num_pairs,
        num_train_pairs=num_pairs,
        device="cpu",
        fast_precision=precision,
    )


def autos(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return [found for value in values.values() for found in autos(value)]
    return [values] if values == "auto" else []


def leaves(wanted: set[str], schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where values of these types of JSON Schema stand in a request."""
    options = [schema, *schema.get("anyOf", [])]
    if any(option.get("type") in wanted for option in options):
        yield path
    for option in options:
        option = DEFINITIONS[option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        for name, inner in option.get("properties", {}).items():
            yield from leaves(wanted, inner, (*path, name))
        if option.get("type") == "array":
            yield from leaves(wanted, option["items"], (*path, "0"))


def put(path: tuple[str, ...], value: Any) -> Any:
    for name in reversed(path):
        value = [value] if name == "0" else {name: value}
    return value


SCHEMA = JobRequest.model_json_schema()
DEFINITIONS = SCHEMA["$defs"]
NUMBERS = sorted({*leaves({"integer", "number"}, SCHEMA)})
BOOLEANS = sorted({*leaves({"boolean"}, SCHEMA)})


def test_all_kinds_of_fields_were_found() -> None:
    assert {("beta",), ("dpo", "epochs"), ("sft", "learning_rate"), ("lora", "rank"), ("swap_lines", "0")} <= {*NUMBERS}
    assert {
        ("reuse",),
        ("score_training_pairs",),
        ("early_stopping", "restore_best"),
        ("group_by_prompt",),
    } == {*BOOLEANS}


@pytest.mark.parametrize("path", NUMBERS, ids=".".join)
@pytest.mark.parametrize("value", [True, False, "1", "0.5", "", "1e3"])
def test_only_numbers_are_numbers(path: tuple[str, ...], value: Any) -> None:
    body = put(path, value)
    with pytest.raises(ValidationError) as refusal:
        JobRequest.model_validate(LEAST | body)
    (error,) = field_errors(refusal.value.errors(), LEAST | body)
    assert error.pointer == "/" + "/".join(path)
    assert re.fullmatch(r'must be a (whole )?number( or "\w+")?( or null)?, not .*', error.detail), error.detail


@pytest.mark.parametrize("path", BOOLEANS, ids=".".join)
@pytest.mark.parametrize("value", [0, 1, "true", "yes", 1.0])
def test_only_true_and_false_are_truths(path: tuple[str, ...], value: Any) -> None:
    with pytest.raises(ValidationError, match="valid boolean"):
        JobRequest.model_validate(LEAST | put(path, value))


def test_whole_numbers_do_for_others_and_a_fraction_of_zero_for_whole_ones() -> None:
    spec = accepted({"beta": 1, "lora": {"alpha": 8}, "dpo": {"epochs": 2.0}, "priority": 3.0, "seed": 7})
    assert (spec.beta, spec.dpo.epochs, spec.priority) == (1.0, 2, 3)
    assert isinstance(spec.beta, float)
    assert isinstance(spec.dpo.epochs, int)
    with pytest.raises(ValidationError, match="epochs"):
        accepted({"dpo": {"epochs": 2.5}})


def test_two_fields_are_enough_and_no_auto_is_left() -> None:
    spec = staged({})
    assert spec.beta == 0.1
    assert spec.variant == "dpo"
    values = spec.model_dump()
    del values["reward"]  # settings of another method
    assert values.pop("artifact_dtype") == "auto"  # the engine's to follow: from `lora` and `precision`
    assert autos(values) == []


def test_warm_up_is_a_tenth_of_the_steps_and_at_most_150() -> None:
    few = staged({"dpo": {"batch_size": 10}}, num_pairs=95)
    assert few.dpo.warmup_steps == math.ceil(0.1 * 10)
    many = staged({"dpo": {"batch_size": 1}}, num_pairs=5000)
    assert many.dpo.warmup_steps == 150


def test_a_small_data_set_gets_smaller_batches() -> None:
    assert accepted({}, num_pairs=100_000).dpo.batch_size == 64
    batch_size = accepted({}, num_pairs=320).dpo.batch_size
    assert isinstance(batch_size, int)
    assert 320 / batch_size >= 20
    assert accepted({}, num_pairs=1).dpo.batch_size == 4


def test_lora_learns_ten_times_faster_and_large_models_slower() -> None:
    full, lora = accepted({}).dpo.learning_rate, accepted({"lora": {}}).dpo.learning_rate
    assert isinstance(full, float)
    assert lora == pytest.approx(10 * full)
    large = accepted({}, num_parameters=8_000_000_000).dpo.learning_rate
    assert large == 5e-7


def test_what_was_given_is_kept() -> None:
    spec = staged({"dpo": {"learning_rate": 3e-6, "warmup_steps": 0}, "precision": "fp32", "beta": 0.5})
    assert (spec.dpo.learning_rate, spec.dpo.warmup_steps, spec.precision, spec.beta) == (3e-6, 0, "fp32", 0.5)


def test_null_means_the_default() -> None:
    assert accepted({"lora": None, "seed": None, "sft": None}) == accepted({})
    assert accepted({"dpo": {"learning_rate": None}}) == accepted({})


def test_resolving_is_stable_over_json() -> None:
    spec = staged({"sft": {"epochs": 2}, "lora": {"rank": 8}})
    again = JobSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    elsewhere = resolve_staged(again, num_sft_rows=5, num_train_pairs=5, device="cuda:0", fast_precision="fp32")
    assert elsewhere == spec


def test_the_precision_is_what_the_device_multiplies_fastest() -> None:
    assert staged({}, precision="fp32").precision == "fp32"
    assert staged({"precision": "bf16"}, precision="fp32").precision == "bf16"


def test_the_last_smaller_step_counts() -> None:
    assert total_steps({"epochs": 3, "batch_size": 10}, 25) == 9


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"beta": 0}, "beta"),
        ({"beta": -0.1}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"beta": math.inf}, "beta"),
        ({"dpo": {"learning_rate": 0}}, "dpo"),
        ({"dpo": {"batch_size": 0}}, "dpo"),
        ({"surprise": 1}, "surprise"),
        ({"dpo": {"surprise": 1}}, "dpo"),
        ({"metadata": {"a": "x\x00"}}, "metadata"),
        ({"name": "\ud800"}, "name"),
        ({"validation_fraction": 0.9}, "validation_fraction"),
        ({"keep_checkpoints": 1}, "keep_checkpoints"),
        ({"base_model": None}, "base_model"),
    ],
)
def test_bad_values_are_refused_by_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(LEAST | body)
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


def test_one_source_of_validation() -> None:
    with pytest.raises(ValidationError, match="not both"):
        JobRequest.model_validate(LEAST | {"validation_dataset_id": "ds_2", "validation_fraction": 0.1})
    assert accepted({"validation_dataset_id": "ds_2"}).validation_fraction == 0.0


@pytest.mark.parametrize(
    ("body", "context_length", "expected"),
    [({}, 512, 512), ({}, 4096, 1024), ({}, None, 1024), ({}, 4, 8), ({"max_length": 2048}, 512, 2048)],
)
def test_max_length_is_the_context_length_where_none_is_given(
    body: dict[str, Any], context_length: int | None, expected: int
) -> None:
    request = JobRequest.model_validate(LEAST | body)
    spec = resolve_request(request, num_parameters=1000, num_pairs=10, default_beta=0.1, context_length=context_length)
    assert spec.max_length == expected


def test_the_best_policy_is_restored_unless_an_earlier_version_has_staged_the_job() -> None:
    spec = accepted({"early_stopping": {}})
    assert spec.early_stopping is not None
    assert spec.early_stopping.restore_best is True
    stored = accepted_form(spec)
    assert stored["early_stopping"] == {"metric": "loss", "patience": 3, "min_delta": 0.0}, "older workers read it"
    queued = restage(stored)
    assert queued["early_stopping"]["restore_best"] is True
    staged_before = stored_form(staged({"early_stopping": {}}))
    del staged_before["early_stopping"]["restore_best"]
    assert restage(staged_before)["early_stopping"]["restore_best"] is False
    asked = accepted_form(accepted({"early_stopping": {"restore_best": False}}))
    assert restage(asked)["early_stopping"]["restore_best"] is False


def restage(stored: dict[str, Any]) -> dict[str, Any]:
    """The spec as a worker resolves what is stored."""
    spec = JobSpec.model_validate(stored)
    again = resolve_staged(spec, num_sft_rows=900, num_train_pairs=900, device="cpu", fast_precision="fp32")
    return again.model_dump()


@pytest.mark.parametrize(
    ("variant", "lora", "rate", "skips_sft"),
    [
        ("dpo", None, 5e-6, False),
        ("ipo", {}, 5e-5, False),
        ("kto", None, 5e-6, False),
        ("simpo", None, 1e-6, False),
        ("simpo", {}, 1e-5, False),
        ("orpo", None, 8e-6, True),
        ("cpo", {}, 8e-5, True),
    ],
)
def test_presets_know_the_variant(variant: str, lora: Any, rate: float, skips_sft: bool) -> None:
    spec = accepted({"variant": variant, "lora": lora})
    assert spec.dpo.learning_rate == pytest.approx(rate)
    assert (spec.sft == "skip") is skips_sft


def test_sft_that_is_asked_for_is_done_whatever_the_variant_has() -> None:
    assert accepted({"variant": "orpo", "sft": {}}).sft != "skip"
    given = accepted({"variant": "cpo", "dpo": {"learning_rate": 3e-6}})
    assert (given.sft, given.dpo.learning_rate) == ("skip", 3e-6)


def test_what_an_earlier_version_resolved_stays() -> None:
    stored = accepted_form(accepted({"variant": "dpo"})) | {"variant": "orpo"}
    again = restage(stored)
    assert again["dpo"]["learning_rate"] == pytest.approx(5e-6)
    assert again["sft"]["learning_rate"] == pytest.approx(1e-4)


def test_a_loss_over_lists_keeps_the_pairs_of_a_prompt_together() -> None:
    assert staged({"variant": "plackett_luce"}).group_by_prompt is True
    with pytest.raises(ValidationError, match="leave group_by_prompt out"):
        JobRequest.model_validate(LEAST | {"variant": "plackett_luce", "group_by_prompt": False})


def test_pairs_are_grouped_where_the_data_are_ranked_and_never_in_the_middle_of_a_run() -> None:
    def resolved(body: dict[str, Any], *, is_ranked: bool) -> JobSpec:
        return resolve_staged(
            accepted(body),
            num_sft_rows=9,
            num_train_pairs=9,
            device="cpu",
            fast_precision="bf16",
            is_ranked=is_ranked,
        )

    assert resolved({}, is_ranked=True).group_by_prompt is True
    assert resolved({}, is_ranked=False).group_by_prompt is False
    assert resolved({"group_by_prompt": True}, is_ranked=False).group_by_prompt is True
    ungrouped = resolved({"group_by_prompt": False}, is_ranked=True)
    assert ungrouped.group_by_prompt is False
    stored = stored_form(ungrouped)
    assert "group_by_prompt" not in stored, "as an earlier version, which knows no groups, has staged it"
    assert JobSpec.model_validate(stored).group_by_prompt is False
    assert stored_form(accepted({"group_by_prompt": False}))["group_by_prompt"] is False
    assert stored_form(resolved({}, is_ranked=True))["group_by_prompt"] is True
